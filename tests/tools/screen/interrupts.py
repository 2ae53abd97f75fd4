#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""SIGINT: before the guest has moved it aborts; behind that the first one only says what would be lost.

    interrupts.py VIADUCT [PART OF A CASE'S NAME]
"""

import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

# pylint: disable=wrong-import-position
import harness
from harness import Run, check, equal, receive, send, test, test_each
from relay_ends import ADVISE, HEADER, RelayEnds

# Guests that have moved, and lack pages for a while.
MOVED = ["--dirty-rate", "unlimited", "--downtime-limit", "1us", "--postcopy", "--max-postcopy-bandwidth",
         "8M/s", "--fabric", "ofi:tcp", "--json"]
WARNING = (r"viaduct: SIGINT: too late to abort, the guest has moved: [0-9.]+ [KM]iB of its memory are "
           r"at the source alone\n"
           r"  try: let it go on\. A second SIGINT within 10 s ends it, and the guest\n")


def pair(memory):
    destination, address = receive("--json", "--fabric", "ofi:tcp")
    source = send(address, *MOVED, memory=memory)
    source.says("postcopy: ")
    destination.says("postcopy")
    return source, destination


def check_lost(run, error):
    report = run.ends(1, 15).json()
    equal(report["result"], "paused", "result")
    equal(report["error"]["code"], "ECANCELED", "error.code")
    check(re.search(error, report["error"]["seen"]), f"it says: {report['error']['seen']}")
    return report


@test_each("one SIGINT to the {} in postcopy: it says what would be lost, and the migration completes",
           ["source", "destination"])
def _(who):
    runs = dict(zip(("source", "destination"), pair("12M")))
    run = runs[who]
    run.kill(signal.SIGINT)
    run.says(WARNING)
    for side in runs.values():
        report = side.ends(0).json()
        equal(report["result"], "completed", "result")
        equal(report["mode"], "postcopy", "mode")
        equal([report["verify"][key] for key in ("missing", "stale", "torn")], [0, 0, 0], "wrong pages")
    equal(len(re.findall(WARNING, run.err.text)), 1, "how often it says so")


@test_each("two SIGINTs to the {} in postcopy: both sides say that the guest was given up",
           ["source", "destination"])
def _(who):
    source, destination = pair("64M")
    run, other = (source, destination) if who == "source" else (destination, source)
    run.kill(signal.SIGINT)
    run.says(WARNING)
    run.kill(signal.SIGINT)
    check_lost(run, r"^aborted by request after the guest had moved: [0-9.]+ MiB of its memory are ")
    report = check_lost(other, r"^aborted by request after the guest had moved: ")
    check(report["error"]["what"].startswith("at the peer:"), "it does not say whose wish it was")


@test_each("SIGTERM to the {} in postcopy is meant at once", ["source", "destination"])
def _(who):
    source, destination = pair("64M")
    run, other = (source, destination) if who == "source" else (destination, source)
    run.kill(signal.SIGTERM)
    check_lost(run, "^aborted by request after the guest had moved: ")
    check("SIGINT:" not in run.err.text, "it warns")
    check_lost(other, "")


@test_each("SIGINT to a paused {}: the second one gives it up", ["source", "destination"])
def _(who):
    source, destination = pair("64M")
    run, other = (source, destination) if who == "source" else (destination, source)
    other.kill(signal.SIGKILL)
    run.says(r"viaduct: the migration is paused: .*\n  try: .*\n")
    run.kill(signal.SIGINT)
    run.says(WARNING)
    run.kill(signal.SIGINT)
    check_lost(run, "given up by request")


@test("SIGINT to demo in postcopy, as a terminal sends it: to both processes, twice")
def _():
    run = Run("demo", "--memory", "64M", *MOVED)
    run.says("postcopy: ")
    run.child()
    os.killpg(run.pid, signal.SIGINT)
    run.says(WARNING)
    os.killpg(run.pid, signal.SIGINT)
    check_lost(run, "after the guest had moved")


@test("SIGINT between the guest's stop and its start: aborted, or completed, and never in between")
def _():
    for _ in range(3):
        destination, address = receive("--json", "--fabric", "ofi:tcp")
        source = send(address, "--max-bandwidth", "32M/s", "--fabric", "ofi:tcp", "--json", memory="8M")
        source.says("round 2|done")  # it is about to switch, or has done so
        source.kill(signal.SIGINT)
        status = source.wait(15)
        result = source.json()["result"]
        destination.wait(15)
        if result == "aborted":
            equal((status, destination.json()["result"]), (1, "aborted"), "the ends")
        else:
            equal((result, destination.json()["result"]), ("completed", "completed"), "the results")


# -- a relay -----------------------------------------------------------------------------------

def relay_that_carries(stream):
    ends = RelayEnds()
    relay = Run(*ends.args, "--json")
    relay.says("listening on")
    ends.begin(stream)
    return relay, ends


@test("SIGINT to a relay in precopy ends it")
def _():
    relay, _ends = relay_that_carries(HEADER)
    relay.kill(signal.SIGINT)
    equal(relay.ends(1).json()["result"], "broken", "result")
    check("SIGINT:" not in relay.err.text, "it warns")


@test("SIGINT to a relay whose QEMU may be in postcopy: the second one ends it")
def _():
    relay, _ends = relay_that_carries(HEADER + ADVISE)
    relay.kill(signal.SIGINT)
    relay.says(r"viaduct: SIGINT: QEMU may have switched to postcopy: .*\n  try: .* within 10 s ends the relay\n")
    relay.kill(signal.SIGINT)
    report = relay.ends(1).json()
    equal((report["result"], report["postcopy"]), ("broken", True), "the end")


sys.exit(harness.main(*sys.argv[1:]))
