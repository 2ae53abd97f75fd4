#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""bench/compare.py: what it calls better, worse, and neither.

    compare_test.py VIADUCT     which is not run
"""
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
import results
from harness import check, equal, test


def compare(b, *options, a=None):
    """(status, stdout, stderr) of comparing @b with @a, or with what was recorded."""
    paths = []
    for name, value in (("a", a or results.recorded()), ("b", b)):
        paths.append(pathlib.Path(harness.case.folder()) / f"{name}.json")
        paths[-1].write_text(json.dumps(value), encoding="utf-8")
    return results.run("compare.py", *paths, *options)


def last(text):
    return text.strip().split("\n")[-1]


def measured(index, ours, bare=None):
    """What was recorded, but row @index, which has seen these."""
    return results.changed(lambda result: results.set_row(result["rows"][index], ours, bare))


@test("a result and itself: nothing has changed")
def _():
    status, out, _ = compare(results.recorded())
    equal(status, 0, "the status")
    equal(out.strip(), f"0 better, 0 worse, {len(results.recorded()['rows'])} within the spread "
          "of both", "what it says")


@test("within the spread is no change, however far the median has moved")
def _():
    status, out, _ = compare(measured(5, [1.21, 1.99, 1.98]))
    equal((status, out.count("\n")), (0, 1), "status and lines")


@test("more GiB/s without a bare loop is better")
def _():
    status, out, _ = compare(measured(5, [1.9, 1.95, 1.92]))
    equal(status, 0, "the status")
    check(last(out).startswith("1 better, 0 worse"), out)
    check("engine qemu:11.1 lo channels=2" in out and "+47.7 %" in out, out)


@test("fewer GiB/s is worse, and the status says so")
def _():
    status, out, _ = compare(measured(5, [0.9, 0.95, 0.92]))
    equal(status, 1, "the status")
    check(last(out).startswith("0 better, 1 worse"), out)


@test("more microseconds is worse")
def _():
    status, out, _ = compare(measured(3, [31.5, 32.0, 31.0], [20.5, 21.0, 20.0]))
    equal(status, 1, "the status")
    check("worse" in out and "latency" in out and "ratio" in out, out)


@test("twice the speed of both is another machine, not a change of ours")
def _():
    status, out, _ = compare(measured(1, [6.02, 6.4, 6.2], [6.1, 6.5, 6.24]))
    equal((status, last(out)[:18]), (0, "0 better, 0 worse,"), "the verdict")


@test("the same speed beside a bare loop that became faster is worse")
def _():
    status, out, _ = compare(measured(1, [3.01, 3.2, 3.1], [6.1, 6.5, 6.24]))
    equal(status, 1, "the status")
    check("ratio" in out, out)


@test("a bare loop on one side only: the values are compared")
def _():
    status, out, _ = compare(measured(1, [1.01, 1.2, 1.1]))
    equal(status, 1, "the status")
    check("GiB/s" in out, out)


@test("what one of them has not measured is named and is no failure")
def _():
    status, out, _ = compare(results.changed(lambda result: result["rows"].pop(0)))
    equal(status, 0, "the status")
    check("missing" in out and "not measured" in out, out)


@test("--all shows what has not changed")
def _():
    _, out, _ = compare(results.recorded(), "--all")
    check(all(row["row"] in out for row in results.recorded()["rows"]), out)


@test("other libraries and another host are named")
def _():
    def change(result):
        result["libraries"] = {"libfabric": "1.18.0"}
        result["host"]["kernel"] = "6.7.0"
    _, out, _ = compare(results.changed(change))
    for line in ("libfabric: 1.17.0 -> 1.18.0", "ucx: 1.13.1 -> none", "kernel: 6.1.0 -> 6.7.0"):
        check(line in out, f"{line} is not in: {out}")


@test("a file that is no result")
def _():
    for wrong in ({"schema": "other"}, [], None):
        status, _, said = compare(wrong)
        equal(status, 2, "the status")
        check("b.json: no JSON of" in said, said)


@test("a file that is not there")
def _():
    status, _, said = results.run("compare.py", results.RECORDED, "/nowhere/at/all.json")
    equal(status, 2, "the status")
    check("/nowhere/at/all.json" in said and "Traceback" not in said, said)


sys.exit(harness.main(*sys.argv[1:]))
