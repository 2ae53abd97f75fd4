#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Migrations between two hosts whose network fails: a link that goes down and comes back, packets
lost in one direction alone, an address that changes, a rate that drops.

    network.py VIADUCT FABRIC+FABRIC... [PART OF A CASE'S NAME]

Before the guest has moved a failure is an abort, and the guest runs on at the source; behind that
both sides pause, and go on when the network is mended. What passes before somebody has to give up
is nobody's business: the migration completes.
"""

import sys
import time

import hosts
from hosts import ADDRESS, NAMES, at, harness, link_down, link_up
from harness import Skip, check, equal, receive, send

PAUSED = r"viaduct: the migration is paused: (.*)\n  try: (.*)\n"
BUSY = ["--dirty-rate", "unlimited", "--downtime-limit", "1us", "--postcopy",
        "--max-postcopy-bandwidth", "4M/s", "--retry"]
DEAD_S = 2


def pair(fabric, *args, memory="32M", dead=f"{DEAD_S}s"):
    """(source at a, destination at b)"""
    common = ["--fabric", fabric, "--insecure", "--dead-after", dead, "--json"]
    destination, address = receive(*common, listen=f"{ADDRESS['b']}:0", before=at("b"))
    return send(address, *common, *args, memory=memory, before=at("a")), destination


def in_precopy(fabric, *args, **kwargs):
    source, destination = pair(fabric, "--max-bandwidth", "8M/s", *args, **kwargs)
    source.says("precopy round 1")
    return source, destination


def in_postcopy(fabric):
    source, destination = pair(fabric, *BUSY)
    source.says("postcopy: ")
    return source, destination


def check_completed(source, destination, recoveries=0):
    for run in (source, destination):
        report = run.ends(0, 50).json()
        equal(report["result"], "completed", "result")
        bad = [report["verify"][k] for k in ("missing", "stale", "torn")]
        equal(bad, [0, 0, 0], "missing, stale and torn pages")
        check(report["postcopy"]["recoveries"] >= recoveries if recoveries else True,
              "no recovery was needed")


def check_aborted(source, destination, started):
    """In time, and for a reason that is given."""
    report = source.ends(1, 20).json()
    equal(report["result"], "aborted", "result of the source")
    what, seen = report["error"]["what"], report["error"]["seen"]
    print(f"# after {time.monotonic() - started:.2f} s: {what}: {seen}")
    report = destination.ends(1, 20).json()
    equal(report["result"], "aborted", "result of the destination")
    equal(report["verify"], None, "verify of the destination")


def check_both_pause(source, destination, started):
    for run in (source, destination):
        print(f"# after {time.monotonic() - started:.2f} s: {run.says(PAUSED, 20).group(1)}")


# -- the link ------------------------------------------------------------------------------------


def short_outage(fabric):
    source, destination = in_precopy(fabric, "--dirty-rate", "0", dead="8s")
    link_down("b")
    time.sleep(1)  # an outage is its length
    link_up("b")
    check_completed(source, destination)


def down_before(fabric):
    source, destination = in_precopy(fabric)
    started = time.monotonic()
    link_down("b")
    check_aborted(source, destination, started)


def down_after(fabric):
    source, destination = in_postcopy(fabric)
    started = time.monotonic()
    link_down("b")
    check_both_pause(source, destination, started)
    link_up("b")
    check_completed(source, destination, 1)


# -- one direction -------------------------------------------------------------------------------


def one_way_before(fabric, towards):
    source, destination = in_precopy(fabric)
    started = time.monotonic()
    hosts.drop_towards(towards)
    check_aborted(source, destination, started)


def one_way_after(fabric, towards):
    source, destination = in_postcopy(fabric)
    started = time.monotonic()
    hosts.drop_towards(towards)
    check_both_pause(source, destination, started)
    hosts.mend()
    check_completed(source, destination, 1)


# -- addresses and rates -------------------------------------------------------------------------


def address_before(fabric):
    source, destination = in_precopy(fabric)
    started = time.monotonic()
    hosts.change_address("b", 77)
    check_aborted(source, destination, started)


def address_after(fabric):
    source, destination = in_postcopy(fabric)
    started = time.monotonic()
    hosts.change_address("b", 77)
    check_both_pause(source, destination, started)
    hosts.mend()
    check_completed(source, destination, 1)


def rate_drops(fabric):
    source, destination = pair(fabric, "--max-rounds", 3, memory="24M")
    source.says("precopy round 1")
    hosts.limit_rate("b", "40mbit")
    check_completed(source, destination)


def rate_drops_after(fabric):
    source, destination = in_postcopy(fabric)
    hosts.limit_rate("b", "40mbit")
    check_completed(source, destination)


CASES = {
    "a link down for a second in precopy: completes": short_outage,
    "a link down in precopy: aborted": down_before,
    "a link down and up in postcopy: recovers": down_after,
    "packets to the destination lost in precopy: aborted": lambda f: one_way_before(f, "b"),
    "packets to the source lost in precopy: aborted": lambda f: one_way_before(f, "a"),
    "packets to the destination lost in postcopy: recovers": lambda f: one_way_after(f, "b"),
    "packets to the source lost in postcopy: recovers": lambda f: one_way_after(f, "a"),
    "another address in precopy: aborted": address_before,
    "another address and back in postcopy: recovers": address_after,
    "the rate drops in precopy: completes": rate_drops,
    "the rate drops in postcopy: completes": rate_drops_after,
}


def main(binary, fabrics, only=""):
    reason = hosts.why_not()

    def case(function, fabric):
        if reason:
            raise Skip(reason)
        try:
            function(fabric)
        finally:
            hosts.mend()

    for fabric in fabrics.split("+"):
        for name, function in CASES.items():
            harness.add(f"{fabric}: {name}", lambda f=function, a=fabric: case(f, a))
    return harness.main(binary, only, note=f"namespaces {', '.join(NAMES.values())}")


sys.exit(main(*sys.argv[1:]))
