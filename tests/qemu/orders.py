#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""In which orders can a source's connections arrive? Through a plain proxy, and through the relay.

    orders.py [OPTION...] VIADUCT

Prints the table of docs/qemu.md: how many of the orders of a line complete, with a guest
that is whole. What does not complete either fails, and the source goes on with its guest, or hangs.
"""

import argparse
import collections
import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
from harness import Failure, Skip
from matrix import SAME, setting, words
from migration import Migration, mode
from scenarios import early_preempt, verdict

LATE_S = 0.5  # what is late, and so are those behind it
MULTIFD, PREEMPT, BOTH = mode(2), mode(preempt=True), mode(2, preempt=True)
THREE = [{"order": order} for order in itertools.permutations(range(3))]


def bytes_of(shuffles):
    return [{**shuffle, "what": "bytes"} for shuffle in shuffles]


def slow(shuffles):
    return [{**shuffle, "gap_s": LATE_S} for shuffle in shuffles]


# What arrives: a mode, and every way to shuffle it.
LINES = {
    "main and 2 multifd: connections, every order": (MULTIFD, THREE),
    f"the same, {LATE_S} s between two": (MULTIFD, slow(THREE)),
    "the same, first bytes, every order": (MULTIFD, bytes_of(THREE)),
    "main and 4 multifd: main last, all reversed": (
        mode(4), [{"order": (1, 2, 3, 4, 0)}, {"order": (4, 3, 2, 1, 0)}]),
    "main, preempt: main late, its bytes late": (
        PREEMPT, [{"late": {0: LATE_S}}, {"late": {0: LATE_S}, "what": "bytes"}]),
    "main, preempt: preempt late, its bytes late": (
        PREEMPT, [{"late": {1: LATE_S}}, {"late": {1: LATE_S}, "what": "bytes"}]),
    "main, preempt: preempt first": (PREEMPT, [{"order": (1, 0)}]),
    "main, 2 multifd and preempt: every order, preempt late": (
        BOTH, [{**shuffle, "late": {3: LATE_S}} for shuffle in THREE]),
}


def attempt(at, chosen, shuffle):
    """How a migration ends whose connections are shuffled so."""
    try:
        with Migration(at, chosen, shuffle=shuffle) as migrating:
            migrating.go()
            migrating.complete()
    except Failure as failure:
        return "fail" if ": failed, not" in str(failure) else "hang"
    return "complete"


def applies(at, chosen, shuffles):
    """Can this QEMU do it, and do its connections come before any of them is answered?"""
    try:
        if verdict(at, chosen):
            return False
    except Skip:
        return False
    return shuffles != [{"order": (1, 0)}] or early_preempt(at)


def cell(at, line):
    chosen, shuffles = LINES[line]
    if not applies(at, chosen, shuffles):
        return "–"
    counts = collections.Counter()
    for shuffle in shuffles:
        harness.case = harness.Case(line, lambda s=shuffle: counts.update([attempt(at, chosen, s)]))
        harness.case.run()
    rest = ", ".join(f"{counts[what]} {what}" for what in ("fail", "hang") if counts[what])
    return f"{counts['complete']} of {len(shuffles)}" + (f": {rest}" if rest else "")


def main():
    parser = argparse.ArgumentParser(usage="orders.py [OPTION...] VIADUCT")
    parser.add_argument("viaduct")
    parser.add_argument("--qemu", type=words(SAME), default=SAME[::-1],
                        help=f"(default: {','.join(SAME[::-1])})")
    parser.add_argument("--transport", type=words(["proxy", "relay"]), default=["proxy", "relay"],
                        help="(default: proxy,relay)")
    parser.add_argument("--fabric", help="of the relay, as for viaduct send")
    options = parser.parse_args()
    harness.binary = options.viaduct
    harness.SCALE = 0.5 * harness.SCALE  # of patience: who hangs, hangs for ever
    names = list(itertools.product(options.qemu, options.transport))
    try:
        columns = [setting(transport, "unix", qemu, options.fabric) for qemu, transport in names]
    except Skip as reason:
        print(f"orders.py: {reason}", file=sys.stderr)
        return 77
    print("| |" + "".join(f" {qemu} {transport} |" for qemu, transport in names))
    print("|---" * (1 + len(names)) + "|")
    for line in LINES:
        cells = [cell(column, line) for column in columns]
        print(f"| {line} |" + "".join(f" {text} |" for text in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
