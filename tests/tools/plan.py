#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""viaduct plan against a receiver of another process, and what it says where there is none.

    plan.py VIADUCT FABRIC+FABRIC... [PART OF A CASE'S NAME]
"""

import os
import re
import signal
import sys

import harness
from harness import Run, check, equal, receive, send, test, test_each

FABRICS = sys.argv[2].split("+")
GIB = 1 << 30


def check_figures(plan, memory, fabric):
    """What was measured, and what follows from it."""
    equal(plan["result"], "planned", "result")
    equal(plan["fabric"], fabric, "fabric")
    equal([c["fabric"] for c in plan["candidates"] if c["verdict"] == "chosen"], [fabric],
          "the chosen candidate")
    equal(plan["memory"], {"bytes": memory, "slices": -(-memory // GIB), "registered_bytes": memory},
          "memory")
    measured = plan["measured"]
    for name, value in measured.items():
        check(value > 0, f"measured.{name} is {value}")
    check(1.5 <= measured["seconds"] <= 30, f"it measured for {measured['seconds']} s")
    least = memory / measured["bytes_per_s"] * 1e3
    for way in "precopy", "postcopy":
        check(plan[way]["total_ms"] >= least, f"{way} takes less than the memory once")
        check(plan[way]["bytes_sent"] >= memory, f"{way} sends less than the memory")
        check(0 < plan[way]["downtime_ms"] < plan[way]["total_ms"], f"{way}: {plan[way]}")


@test_each("two processes over {}, and then the guest comes", FABRICS)
def two_processes(fabric):
    destination, address = receive("--fabric", fabric)
    plan = Run("plan", "--peer", address, "--fabric", fabric, "--memory", "3G", "--dirty-rate",
               "1M/s", "--multifd", 3, "--json").ends(0).json()
    check_figures(plan, 3 * GIB, fabric)
    equal(plan["channels"], {"multifd": 3, "preempt": 2}, "channels")
    equal(plan["peer"], "viaduct 0.1.0", "peer")
    equal(plan["precopy"]["within_limit"], True, "precopy.within_limit")
    equal(plan["advice"], "precopy will do", "advice")
    destination.says("measured for `viaduct plan`\n.*still listening")
    send(address).ends(0)
    destination.ends(0)


@test("without --peer: one host, and a guest that writes too fast")
def one_host():
    run = Run("plan", "--memory", "64G", "--dirty-rate", "unlimited", "--fabric", FABRICS[0]).ends(0)
    for line in (rf"^  {FABRICS[0]} +chosen$", r"^measured +\S+ \wi?B/s over 2\.\d s; fence",
                 r"^memory +64\.0 GiB in 64 slices", r"^precopy .*\(limit missed\)$",
                 r"^postcopy ", r"^advice +precopy will not converge.*use --postcopy"):
        check(re.search(line, run.out.text, re.M), f"no line /{line}/")
    check("listening" not in run.err.text, "the second process is heard")


@test("a receiver that wants digests is measured")
def integrity():
    _, address = receive("--integrity", "--fabric", FABRICS[0])
    Run("plan", "--peer", address, "--fabric", FABRICS[0]).ends(0)


@test("a receiver is told to end while it is measured")
def ended():
    destination, address = receive("--fabric", FABRICS[0], "--verbose")
    plan = Run("plan", "--peer", address, "--fabric", FABRICS[0], "--json")
    destination.says(r"(?s)has connected.*has connected")
    destination.kill(signal.SIGTERM)
    destination.ends(1)
    plan.ends(1)
    equal(plan.json()["result"], "failed", "result")


@test("nobody there")
def nobody():
    run = Run("plan", "--peer", harness.closed_port(), "--json").ends(1)
    report = run.json()
    equal(report["error"]["code"], "ECONNREFUSED", "the error")
    equal((report["peer"], report["candidates"]), (None, []), "what is known of the peer")


@test("no fabric in common: the table shows why")
def nothing_in_common():
    _, address = receive("--fabric", FABRICS[-1])
    run = Run("plan", "--peer", address, "--fabric", "ofi:shm").ends(1)
    check(re.search(r"^  ofi:shm +no\n +there: not offered$", run.out.text, re.M), run.out.text)
    check(re.search(rf"^  {FABRICS[-1]} +no\n +here:  not offered$", run.out.text, re.M),
          run.out.text)
    what, remedy = run.error()
    check("agree on a fabric" in what and "--fabric" in remedy, what)


@test("a relay has no guest's memory to be measured with")
def relay():
    run = Run("relay", "--role", "destination", "--listen", "127.0.0.1:0", "--qemu",
              "unix:" + os.path.join(harness.case.folder(), "qemu.sock"))
    address = run.says(r"listening on (\S+)\n").group(1)
    what, _ = Run("plan", "--peer", address).ends(1).error()
    check("expects streams" in what, what)
    run.kill(signal.SIGTERM)
    run.wait()


if __name__ == "__main__":
    sys.exit(harness.main(sys.argv[1], *sys.argv[3:4]))
