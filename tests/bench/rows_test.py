#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The rows of `viaduct bench` that measure a fabric: each over each fabric, in a moment; and what
is said when that cannot be.

    rows_test.py VIADUCT
"""
import json
import os
import pathlib
import signal
import socket
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
from harness import Run, Skip, check, equal, test, test_each

FABRICS = ["ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm"]
SHORT = ["--repeat", "1", "--seconds", "20ms", "--memory", "16M"]

# name: row, cases, unit, and what its members must be
ROWS = {
    "bandwidth of one channel": ("bandwidth", "size=65536,channels=1", "GiB/s"),
    "bandwidth of four channels": ("bandwidth", "size=1048576,channels=4", "GiB/s"),
    "scattered pages": ("scatter", "size=4096,channels=2", "GiB/s"),
    "requests, idle": ("latency", "load=0,bare_sleeps=1", "us"),
    "requests beside bulk": ("latency", "load=1", "us"),
    "a fence with nothing in flight": ("fence", "channels=2,full=0", "us"),
    "a fence with full queues": ("fence", "channels=1,full=1", "us"),
    "four channels, from nothing": ("setup", "channels=4", "ms"),
    "memory registered": ("setup", "mib=1024,slice_mib=64", "ms"),
}


def is_there(fabric):
    listed = json.loads(Run("fabrics", "--json").ends(0).out.text)
    return any(f["usable"] and f["fabric"] == fabric for f in listed)


def check_spread(spread, what):
    check(0 < spread["min"] <= spread["median"] <= spread["max"], f"{what} is {spread}")


def check_percentiles(p, what):
    check(0 < p["p50"] <= p["p90"] <= p["p99"] <= p["p999"] <= p["max"], f"{what} are {p}")


@test_each("{} over {}", [(row, fabric) for row in ROWS for fabric in FABRICS])
def _(name, fabric):
    row, only, unit = ROWS[name]
    if not is_there(fabric):
        raise Skip(f"no {fabric} here")
    # Bulk may have moved all of a small memory before the first request.
    longer = ["--seconds", "200ms", "--memory", "256M"] if name == "requests beside bulk" else []
    found = Run("bench", row, "--fabric", fabric, "--only", only, "--json", *SHORT,
                *longer).ends(0).json()
    cell, = found["rows"]
    equal((cell["row"], cell["fabric"], cell["unit"]), (row, fabric, unit), "the row")
    for pair in only.split(","):
        key, value = pair.split("=")
        equal(cell["case"][key], int(value), f"{key} of the case")
    for way in ("ours", "bare"):
        check_spread(cell[way], way)
        equal(len(cell[way]["values"]), 1, f"the number of {way}'s values")
    check_spread(cell["ratio"], "ratio")
    check(cell["bare_is"], "nothing says what the bare loop is")
    if unit == "us":
        check_percentiles(cell["percentiles"]["ours"], "our percentiles")
        check_percentiles(cell["percentiles"]["bare"], "the bare loop's percentiles")
    if unit == "GiB/s":
        check(cell["extra"]["cpu_s_per_gib"] > 0, "it took no CPU time")


@test("each repeat has its value")
def _():
    cell, = Run("bench", "fence", "--only", "channels=1,full=0,bare_sleeps=1", "--fabric",
                "ucx:tcp", "--json", *SHORT, "--repeat", "3").ends(0).json()["rows"]
    for way in ("ours", "bare"):
        values = cell[way]["values"]
        equal(len(values), 3, f"the number of {way}'s values")
        equal(cell[way]["median"], sorted(values)[1], f"{way}'s median")


@test("a table for people, of at most 100 columns")
def _():
    said = Run("bench", "fence", "--only", "channels=1", "--fabric", "ofi:tcp", *SHORT).ends(0)
    lines = said.out.text.split("\n")
    check(lines[0].startswith("fence: us, ofi:tcp"), f"it begins with {lines[0]!r}")
    check(max(map(len, lines)) <= 100, f"a line of {max(map(len, lines))} columns")


@test("auto is named as what it was")
def _():
    found = Run("bench", "fence", "--only", "channels=1,full=0,bare_sleeps=1", "--json",
                *SHORT).ends(0).json()
    check(found["rows"][0]["fabric"] != "auto", "the report says auto")


@test("list names every row and its cases")
def _():
    text = Run("bench", "list").ends(0).out.text
    for row, only, _ in ROWS.values():
        check(f"\n{row} (" in "\n" + text, f"no {row}")
        check(only.split(",", maxsplit=1)[0] in text, f"no case with {only}")


WRONG = {
    "no row": ([], r"no row"),
    "an unknown row": (["speed"], "no such row"),
    "a case that no row has": (["fence", "--only", "channels=3"], "no case with channels=3"),
    "a case that is none": (["fence", "--only", "channels"], "no case with channels"),
    "a second row": (["fence", "setup"], "unexpected argument setup"),
    "no repeat": (["fence", "--repeat", "0"], "from 1 to 100"),
    "no time": (["fence", "--seconds", "0"], "write 300ms"),
    "too many neighbours": (["fence", "--neighbour", "5000"], "from 0 to 1024"),
    "a row to be served": (["fence", "--listen", "127.0.0.1:0"], "--listen serves"),
    "an unknown fabric": (["fence", "--fabric", "carrier-pigeon"], "no such fabric"),
}


@test_each("refused: {}", WRONG)
def _(name):
    args, words = WRONG[name]
    run = Run("bench", *args).ends(2)
    check(words in " ".join(run.error()), f"it does not say {words!r}")


# -- two hosts ------------------------------------------------------------------------------


def served(*args):
    run = Run("bench", "--listen", "127.0.0.1:0", *args)
    return run, run.says(r"listening on (\S+)\n").group(1)


FENCE = ["bench", "fence", "--only", "channels=1,full=0,bare_sleeps=0", "--fabric", "ofi:tcp",
         *SHORT]


@test("a far end that is served, again and again")
def _():
    far, address = served()
    for _ in range(2):
        found = Run(*FENCE, "--peer", address, "--json").ends(0).json()
        equal(found["rows"][0]["peer"], address, "the peer")
    far.kill(signal.SIGTERM)
    equal(far.wait(), -signal.SIGTERM, "the exit status")


@test("two ends with a key, and one without")
def _():
    keys = pathlib.Path(harness.case.folder()) / "keys.psk"
    keys.write_text("bench:" + "5a" * 32 + "\n", encoding="ascii")
    keys.chmod(0o600)
    far, address = served("--psk", keys)
    Run(*FENCE, "--peer", address, "--psk", keys).ends(0)
    Run(*FENCE, "--peer", address).ends(1).error()
    far.kill(signal.SIGTERM)
    far.wait()


@test("a far end with a fabric of its own")
def _():
    far, address = served("--fabric", "ofi:tcp,tx-depth=64")
    found = Run(*FENCE, "--peer", address, "--json").ends(0).json()
    equal(found["rows"][0]["fabric"], "ofi:tcp", "the fabric")
    far.kill(signal.SIGTERM)
    far.wait()


@test("a stranger does no harm to a far end")
def _():
    far, address = served()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    Run(*FENCE, "--peer", address).ends(0)
    far.kill(signal.SIGTERM)
    far.wait()


@test("nobody at the far end")
def _():
    run = Run(*FENCE, "--peer", harness.closed_port()).ends(1)
    check("refused" in " ".join(run.error()), "it does not say so")


@test("a far end that dies in the middle")
def _():
    far, address = served()
    run = Run("bench", "bandwidth", "--only", "size=65536,channels=1", "--fabric", "ofi:tcp",
              "--peer", address, "--memory", "16M", "--repeat", "100", "--seconds", "10")
    children = pathlib.Path(f"/proc/{far.pid}/task/{far.pid}/children")
    deadline = harness.Deadline(10)
    while not children.read_text(encoding="ascii").split() and deadline.left():
        os.sched_yield()
    far.kill(signal.SIGKILL)  # its children end with it
    what, _ = run.ends(1, seconds=45).error()
    check("bandwidth" in what, f"it says {what!r}")
    far.wait()


@test("a near end that dies leaves a far end that serves the next")
def _():
    far, address = served()
    run = Run("bench", "bandwidth", "--only", "size=65536,channels=1", "--fabric", "ofi:tcp",
              "--peer", address, "--memory", "16M", "--seconds", "10")
    children = pathlib.Path(f"/proc/{far.pid}/task/{far.pid}/children")
    deadline = harness.Deadline(10)
    while not children.read_text(encoding="ascii").split() and deadline.left():
        os.sched_yield()
    run.kill(signal.SIGKILL)
    run.wait()
    Run(*FENCE, "--peer", address).ends(0, seconds=45)
    far.kill(signal.SIGTERM)
    far.wait()


sys.exit(harness.main(*sys.argv[1:]))
