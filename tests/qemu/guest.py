# SPDX-License-Identifier: BSD-2-Clause
"""The test guest: building it, and reading what it says."""

import collections
import functools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from harness import Skip, check

FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-pic", "-mno-red-zone",
         "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
         "-fno-asynchronous-unwind-tables", "-nostdlib", "-static",
         "-Wl,--build-id=none,-z,max-page-size=4096,-Ttext=0x100000,-N,-e,start"]
TICK = re.compile(r"^tick (\d+) (ok|BAD) written=(\d+) checked=(\d+) slow=(\d+)/(\d+)/(\d+)$", re.M)

Tick = collections.namedtuple("Tick", "number ok written checked slow slow_us slowest_us")

_folder = tempfile.TemporaryDirectory()


@functools.lru_cache(maxsize=None)
def program():
    """The path of the guest, built if need be."""
    compiler = next(filter(shutil.which, (os.environ.get("CC", "cc").split()[0], "gcc", "clang")),
                    None)
    if not compiler:
        raise Skip("needs a C compiler: scripts/setup")
    source = pathlib.Path(__file__).parent / "guest"
    path = f"{_folder.name}/guest.elf"
    made = subprocess.run([compiler, *FLAGS, "-o", path, source / "boot.S", source / "guest.c"],
                          stderr=subprocess.PIPE, encoding="utf-8", check=False)
    check(made.returncode == 0, "the guest cannot be built: " + made.stderr.replace("\n", "; "))
    return path


def ticks(console):
    return [Tick(int(m[1]), m[2] == "ok", *map(int, m.groups()[2:]))
            for m in TICK.finditer(console)]


def check_story(*consoles):
    """One life, told by one console after the other: no tick missing, none twice, nothing lost.

    A line may be cut: its head at the source, its tail at the destination. Returns the ticks.
    """
    text = "".join(consoles).replace("\r", "")
    corrupt = re.search(r"^CORRUPT .*$", text, re.M)
    check(not corrupt, f"the guest's memory: {corrupt and corrupt.group()}")
    found = ticks(text)
    for i, tick in enumerate(found, 1):
        check(tick.number == i, f"tick {tick.number} comes where {i} was to come")
        check(tick.ok, f"at tick {i} the guest's memory is not what it wrote")
    strange = [line for line in text.split("\n")[:-1]
               if line and not TICK.match(line) and not line.startswith("ready ")]
    check(not strange, f"the guest said: {strange[:1]}")
    return found
