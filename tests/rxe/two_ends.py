#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Two hosts with an RDMA device each, and a link that fails at the moments that matter.

    two_ends.py VIADUCT FABRIC+FABRIC... [PART OF A CASE'S NAME]

Inside `scripts/rxe-vm --two`. The source is at end a, the destination at end b. All that the two
have goes over the link, the control connection too.
"""

import sys
import time

import rxe
from rxe import ADDRESS, at, command, harness, put_back
from harness import check, equal, receive, send

PAUSED = r"viaduct: the migration is paused: (.*)\n  try: (.*)\n"
BUSY = ["--dirty-rate", "unlimited", "--downtime-limit", "1us"]


def pair(fabric, *args, memory="8M", vcpus=1):
    """(source, destination): a migration from a to b."""
    common = ["--fabric", fabric, "--insecure", "--dead-after", "4s", "--json"]
    destination, address = receive(*common, listen=f"{ADDRESS['b']}:0", before=at("b"))
    source = send(address, *common, "--vcpus", vcpus, *args, memory=memory, before=at("a"))
    return source, destination


def completes(runs):
    for run in runs:
        rxe.check_completed(run.ends(0, 50).json())


def goes(fabric):
    completes(pair(fabric))


def goes_in_postcopy(fabric):
    completes(pair(fabric, *BUSY, "--postcopy"))


def goes_over_a_bad_link(fabric):
    with put_back("rxe-link", "mend"):
        command("rxe-link", "loss", 1)
        completes(pair(fabric, memory="2M"))


def note_time(run, pattern, what):
    """How long it took from now on until it said so."""
    started = time.monotonic()
    match = run.says(pattern, 30)
    print(f"# {what} after {time.monotonic() - started:.2f} s")
    return match


def cut_before_run(fabric):
    source, destination = pair(fabric, "--max-bandwidth", "2M/s", memory="64M")
    source.says("precopy round 1")
    with put_back("rxe-link", "mend"):
        command("rxe-link", "cut")
        note_time(source, r"viaduct: ", "the source noticed")
        report = source.ends(1).json()
    equal(report["result"], "aborted", "result of the source")
    check("error" in report, "it does not say why")
    print(f"# {report['error']['what']}: {report['error']['seen']}")
    destination.ends(1)


def cut_after_run(fabric):
    source, destination = pair(fabric, *BUSY, "--postcopy", "--max-postcopy-bandwidth", "2M/s",
                               "--retry", memory="16M")
    source.says("postcopy: ")
    with put_back("rxe-link", "mend"):
        command("rxe-link", "cut")
        paused = note_time(source, PAUSED, "paused")
        print(f"# {paused.group(1)}")
        destination.says(PAUSED, 30)
    for run in (source, destination):
        report = run.ends(0, 50).json()
        rxe.check_completed(report)
        check(report["postcopy"]["recoveries"] >= 1, "no recovery was needed")


CASES = {
    "from a to b": goes,
    "from a to b in postcopy": goes_in_postcopy,
    "over a link that loses 1 %": goes_over_a_bad_link,
    "the link is cut before the switch: aborted": cut_before_run,
    "the link is cut in postcopy and mended: recovered": cut_after_run,
}


def main(binary, fabrics, only=""):
    for fabric in fabrics.split("+"):
        for name, function in CASES.items():
            harness.add(f"{fabric}: {name}", lambda f=function, a=fabric: f(a))
    return harness.main(binary, only)


sys.exit(main(*sys.argv[1:]))
