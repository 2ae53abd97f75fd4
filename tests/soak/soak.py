#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Random demos in a row, for as long as wanted: each completes with every page right, needs no more
memory than its settings explain, and leaves nothing behind (a process, a name in /dev/shm).

    soak.py VIADUCT [NUMBER [SEED]]

The settings are those of tests/tools/random_demos.py. One case; a line every minute says how far it
is, and the last line sums up. A failure names the demo, to be run again by hand.
"""

import collections
import os
import pathlib
import random
import resource
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
import random_demos  # pylint: disable=wrong-import-position
from harness import Failure, Run, check, equal  # pylint: disable=wrong-import-position

REPORT_S = 60
DEMO_S = 200  # a large guest that never rests, on a machine with other work
KIB = 1024


class Tally:
    def __init__(self, number):
        self.number, self.start = number, time.monotonic()
        self.done, self.recoveries, self.pages = collections.Counter(), 0, 0
        self.most_beyond = 0  # KiB of a process, beside its guest
        self.shm = set(os.listdir("/dev/shm"))
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.reported = self.start

    def add(self, args, report, beyond):
        self.done[f"{args['fabric']} {report['mode']}"] += 1
        self.pages += report["verify"]["pages"]
        self.recoveries += (report["postcopy"] or {}).get("recoveries", 0)
        self.most_beyond = max(self.most_beyond, beyond)
        if time.monotonic() - self.reported > REPORT_S:
            self.reported = time.monotonic()
            print(f"# {self}")

    def __str__(self):
        done = ", ".join(f"{n} {what}" for what, n in sorted(self.done.items()))
        return (f"{sum(self.done.values())} of {self.number} migrations ({done}); "
                f"{self.recoveries} recoveries; {self.pages} pages checked; "
                f"at most {self.most_beyond // KIB} MiB beside the guest; "
                f"{time.monotonic() - self.start:.0f} s")

    def check_left(self):
        left = {name for name in set(os.listdir("/dev/shm")) - self.shm}
        check(not left, f"left in /dev/shm: {sorted(left)}")
        equal(len(os.listdir("/proc/self/fd")), self.descriptors, "descriptors of this process")


def allowed_beyond(args):
    """KiB of a process beside its guest: libraries, and buffers and staging of each channel."""
    channels = 2 + args["multifd"] + args.get("preempt", 0)
    return (160 << 10) + channels * (24 << 10)


def largest_child():
    """KiB that any process had so far that this one has waited for, and its children."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def one(args):
    """Its report, and the KiB beside the guest of the larger of its two processes, where that was
    more than any had before; else 0."""
    before = largest_child()
    report = random_demos.demo(args, DEMO_S)
    peak = largest_child()
    return report, max(0, peak - args["memory"] // KIB) if peak > before else 0


def soak(number, seed):
    signal.alarm(0)  # its own limit is each demo's
    tally = Tally(number)
    for i in range(number):
        args = random_demos.arguments(random.Random(f"{seed} {i}"))
        words = " ".join(f"--{k} {v}" for k, v in args.items())
        try:
            report, beyond = one(args)
            check(harness.is_sanitized() or beyond < allowed_beyond(args),
                  f"a process had {beyond} KiB beside its guest")
        except Failure as failure:
            raise Failure(f"demo {i}: viaduct demo {words}: {failure}") from failure
        tally.add(args, report, beyond)
        for run in harness.case.runs:
            run.cleanup()
        harness.case.runs.clear()
    tally.check_left()
    print(f"# {tally}")


def main(binary, number=12, seed=None):
    seed = int(seed) if seed is not None else random.SystemRandom().getrandbits(32)
    harness.add(f"{number} random demos in a row", lambda: soak(int(number), seed))
    return harness.main(binary, note=f"soak.py VIADUCT {number} {seed}")


sys.exit(main(*sys.argv[1:]))
