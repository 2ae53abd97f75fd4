# SPDX-License-Identifier: BSD-2-Clause
"""Results of `viaduct bench --json`, recorded and made, for the tests of what reads them."""

import copy
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"

# An earlier run of two rows, and of one that has no bare loop.
RECORDED = pathlib.Path(__file__).with_name("recorded.json")


def recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def values(*of):
    return {"median": statistics.median(of), "min": min(of), "max": max(of), "values": list(of)}


def set_row(row, ours, bare=None):
    """Have it say that these were measured."""
    row["ours"] = values(*ours)
    row["bare"] = values(*bare) if bare else None
    ratios = [o / b for o, b in zip(ours, bare)] if bare else None
    row["ratio"] = ratios and {k: v for k, v in values(*ratios).items() if k != "values"}


def changed(change):
    """A copy of what was recorded, and what @change makes of it."""
    result = copy.deepcopy(recorded())
    change(result)
    return result


def run(script, *args):
    """(status, stdout, stderr) of a script of bench/, by the interpreter that runs this."""
    done = subprocess.run([sys.executable, "-B", BENCH / script, *args], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr
