#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""bench/targets.py: what it judges, and how.

    targets_test.py VIADUCT     of which it is asked what auto takes
"""
import json
import pathlib
import re
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
import results
from harness import Run, check, equal, test, test_each


def judge(result):
    """(status, {"target, fabric": "met" or "MISSED"})"""
    path = pathlib.Path(harness.case.folder()) / "result.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    status, out, _ = results.run("targets.py", path)
    lines = [re.match(r"(met|MISSED) +(\S+) +(.*?) {2,}", line) for line in out.split("\n")]
    return status, {f"{m[3]}, {m[2]}": m[1] for m in lines if m}


@test("what was recorded meets all that it has")
def _():
    status, found = judge(results.recorded())
    equal((status, set(found.values())), (0, {"met"}), "status and verdicts")
    for wanted in ("bandwidth to the bare loop, ofi:tcp", "latency p99, us, bare spinning, ofi:tcp",
                   "GiB/s to QEMU over tcp, ofi:tcp", "CPU s/GiB to QEMU over tcp, ofi:tcp",
                   "dirty scan, % of the rounds, 16 MiB/s written, ofi:shm"):
        check(wanted in found, f"{wanted} was not judged: {found}")


def put(row, ours, bare=None):
    return lambda result: results.set_row(result["rows"][row], ours, bare)


def slow_tail(result):
    result["rows"][3]["percentiles"]["ours"]["p99"] = 77


def long_scan(result):
    result["rows"][4]["extra"]["dirty_fetch_percent"] = 1.1


MISSES = {
    "bandwidth to the bare loop, ofi:tcp": put(1, [2.9, 2.9, 2.9], [3.0, 3.0, 3.0]),
    "latency p99, us, bare spinning, ofi:tcp": slow_tail,
    "GiB/s to QEMU over tcp, ofi:tcp": put(7, [1.2, 1.2, 1.2], [1.3, 1.3, 1.3]),
    "CPU s/GiB to QEMU over tcp, ofi:tcp": put(8, [0.9, 0.9, 0.9], [0.8, 0.8, 0.8]),
    "dirty scan, % of the rounds, 16 MiB/s written, ofi:shm": long_scan,
}


@test_each("missed: {}", MISSES)
def _(target):
    status, found = judge(results.changed(MISSES[target]))
    equal(status, 1, "the status")
    equal([name for name, said in found.items() if said == "MISSED"], [target], "what is missed")


@test("what was not measured is not judged")
def _():
    equal(judge(results.changed(lambda result: result["rows"].clear())), (0, {}), "the verdict")


@test("a file that is no result")
def _():
    equal(results.run("targets.py", "/nowhere/at/all.json")[0], 2, "the status")


@test("what auto takes within one host is what targets.py says")
def _():
    taken = Run("demo", "--fabric", "auto", "--memory", "4M", "--json").ends(0).json()["fabric"]
    text = (results.BENCH / "targets.py").read_text(encoding="utf-8")
    equal(taken, re.search(r'"same host": \("([^"]+)"', text).group(1), "the fabric")


sys.exit(harness.main(*sys.argv[1:]))
