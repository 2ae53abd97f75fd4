#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""bench/schema.json against what was recorded, what the program prints, and what is wrong.

    schema_test.py VIADUCT
"""
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
import results
from harness import Run, Skip, check, test, test_each

try:
    import jsonschema
except ModuleNotFoundError:
    jsonschema = None


def problem(value):
    """What the schema finds wrong with it, or None."""
    if not jsonschema:
        raise Skip("no jsonschema for /usr/bin/python3: scripts/setup (python3-jsonschema)")
    schema = json.loads((results.BENCH / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    error = next(jsonschema.Draft7Validator(schema).iter_errors(value), None)
    return error and f"{'/'.join(map(str, error.absolute_path))}: {error.message}"


def check_good(value):
    found = problem(value)
    check(not found, f"it is not as the schema has it: {found}")


@test("a recorded result")
def _():
    check_good(results.recorded())


@test("all pictures' JSON in docs/benchmarks")
def _():
    for path in (results.ROOT / "docs/benchmarks").glob("*.json"):
        check_good(json.loads(path.read_text(encoding="utf-8")))


def drop(name):
    def change(result):
        del result["rows"][0][name]
    return change


def put(name, value):
    def change(result):
        result["rows"][0][name] = value
    return change


def put_top(name, value):
    def change(result):
        result[name] = value
    return change


def without_values(result):
    del result["rows"][0]["ours"]["values"]


def without_kernel(result):
    del result["host"]["kernel"]


def without_tail(result):
    del result["rows"][3]["percentiles"]["ours"]["max"]


WRONG = {
    "of another schema": put_top("schema", "viaduct-bench-2"),
    "without a commit that is one": put_top("commit", "HEAD"),
    "with a date of no zone": put_top("date", "2026-11-23 19:00"),
    "with a member that nobody knows": put_top("remark", "fast"),
    "without the kernel": without_kernel,
    "without the command": put_top("command", ""),
    "with a path of one machine": put_top("command", "/opt/viaduct bench fence"),
    "without a row's unit": drop("unit"),
    "without what the bare loop is": drop("bare_is"),
    "without the values of the repeats": without_values,
    "where faster is better": put("better", "faster"),
    "with a ratio as a number": put("ratio", 0.97),
    "whose percentiles leave out the tail": without_tail,
}


@test_each("a result {}", WRONG)
def _(name):
    check(problem(results.changed(WRONG[name])), "the schema takes it")


def bench(*args):
    """What the program measures, as the schema has it. One repeat."""
    listed = Run("bench", "list")
    if listed.wait() or args[0] not in listed.out.text:
        raise Skip(f"this viaduct has no bench {args[0]}")
    found = Run("bench", *args, "--repeat", "1", "--json").ends(0).json()
    check_good(found)
    check(found["rows"], "it has measured nothing")
    return found["rows"]


@test("what the program prints of a fence")
def _():
    row, = bench("fence", "--fabric", "ofi:tcp", "--only", "channels=1,full=0,bare_sleeps=0",
                 "--seconds", "50ms")
    check(row["ratio"]["median"] > 0, "there is no ratio")


@test("what the program prints of a migration")
def _():
    row, = bench("migrate", "--fabric", "ofi:tcp", "--only",
                 "mib=64,dirty_mib_s=0,channels=2,postcopy=0")
    series = row["series"]
    check(series and series[-1]["phase"] == 6, "the series does not go to the end")
    check(row["extra"]["total_ms"] >= row["extra"]["downtime_ms"] > 0, "times that cannot be")
    check(row["extra"]["bytes_sent"] >= 48 << 20, "it has not sent what the guest has written")


@test_each("what the program prints of bytes through relays over {}", ["ofi:tcp", "ucx:shm"])
def _(fabric):
    for row in bench("relay", "--fabric", fabric, "--memory", "16M"):
        channels = row["case"]["channels"]
        check(row["ours"]["median"] > 0 and row["bare"]["median"] > 0, f"{channels}: no figure")


sys.exit(harness.main(*sys.argv[1:]))
