# SPDX-License-Identifier: BSD-2-Clause
"""What the tests inside `scripts/rxe-vm` share: ends, links, devices, and what reports must say."""

import contextlib
import ctypes
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import harness  # pylint: disable=wrong-import-position
from harness import equal  # pylint: disable=wrong-import-position

harness.SCALE = 2  # an emulated processor, and others beside it
CLONE_NEWNET = 0x40000000
ADDRESS = {"a": "198.51.100.1", "b": "198.51.100.2"}


def command(*words):
    subprocess.run([str(w) for w in words], check=True)


@contextlib.contextmanager
def put_back(*words):
    """Whatever happens, run that command in the end."""
    try:
        yield
    finally:
        command(*words)


def at(end):
    """For Run(before=...): the program runs at that end of `rxe-vm --two`."""
    namespace = os.open(f"/run/netns/{end}", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)

    def enter():
        if libc.setns(namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    return enter


def check_completed(report, memory=None):
    equal(report["result"], "completed", "result")
    equal(report["fence"]["sealed"], True, "fence.sealed")
    bad = [report["verify"][k] for k in ("missing", "stale", "torn")]
    equal(bad, [0, 0, 0], "missing, stale and torn pages")
    if memory:
        equal(report["verify"]["pages"], memory // 4096, "verify.pages")
