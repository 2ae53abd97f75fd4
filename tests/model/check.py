#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The model of a migration, exhaustively: what is right is proven, what is broken is found.

    check.py CC...

Prints what was found and the number of states. A search that was cut short counts as failed, and
so does a broken variant of which anything but the claim that it breaks is found.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).resolve().parents[2] / "docs" / "model" / "migration.pml"
DEPTH = 100000   # far more than any run is long
SECONDS = 240    # for one command

STALE = ("no page is seen stale", "no page is stale at the end")
LANDS = ("no write of precopy lands after RUN",)
SENT = ("nothing is sent that is there",)

# Name, macros, and the claims of which one must be found broken; or formulas to prove. Losses that
# are left would hide that all wait for ever, so each number of them has a search of its own.
RUNS = [
    ("right, 2 losses: ends, and every fault is answered", "LOSSES=2", None, ("ends", "answered")),
    ("right, lying fabric: nothing lands after RUN", "LYING_FABRIC LOSSES=1", None, ()),
    ("right, 2 losses", "LOSSES=2", None, ()),
    ("right, 1 loss", "LOSSES=1", None, ()),
    ("right, no loss", "LOSSES=0", None, ()),
    ("no seal, honest fabric: the drain is enough", "NO_SEAL LOSSES=0", None, ()),
    ("lying fabric: what no seal can mend", "LYING_FABRIC STRICT LOSSES=0", STALE, ()),
    ("broken: no wait for DRAINED", "NO_DRAIN_WAIT LOSSES=0", STALE, ()),
    ("broken: no seal, lying fabric", "NO_SEAL LYING_FABRIC LOSSES=0", LANDS, ()),
    ("broken: early bitmap", "EARLY_BITMAP LOSSES=1", SENT, ()),
]


class Wrong(Exception):
    """Something is not as it is demanded, in words."""


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace", timeout=SECONDS, check=False)
    return done.returncode, done.stdout


def must(folder, *command):
    status, output = run(folder, *command)
    if status:
        raise Wrong(f"{' '.join(map(str, command))}: status {status}\n{output}")
    return output


def search(folder, *options):
    """The output of a search, and its number of states."""
    output = must(folder, "./pan", f"-m{DEPTH}", *options)
    states = re.search(r"^ *([\d.e+]+) states, stored", output, re.M)
    if not states or not re.search(r"errors: \d", output):
        raise Wrong(f"not the output of a search:\n{output}")
    return output, int(float(states.group(1)))


def prove(folder, *options):
    output, states = search(folder, *options)
    if "errors: 0" not in output:
        raise Wrong(f"{output}\n{must(folder, 'spin', '-t', '-c', 'model.pml')}")
    if "too small" in output or "not completed" in output or "interrupted" in output:
        raise Wrong(f"the search was cut short:\n{output}")
    return states


def find(folder, claims, defines):
    """@claims names its lines in the model: the one that failed must be among them."""
    output, states = search(folder, "-E")
    if "errors: 0" in output:
        raise Wrong(f"nothing was found, but it is broken:\n{output}")
    trail = must(folder, "spin", *defines, "-t", "model.pml")
    at = re.search(r"model\.pml:(\d+), Error: assertion violated", trail)
    line = MODEL.read_text(encoding="utf-8").split("\n")[int(at.group(1)) - 1] if at else ""
    claim = re.search(r"/\* claim: (.*?) \*/", line)
    if not claim or claim.group(1) not in claims:
        raise Wrong(f"something else was found, {line.strip()!r}:\n{output}\n{trail}")
    return f'found: not "{claim.group(1)}", after {states} states'


def check(compiler, macros, broken, formulas):
    """What was found, in words."""
    defines = [f"-D{macro}" for macro in macros.split()]
    for_safety = [] if formulas else ["-DSAFETY", "-DNOCLAIM"]
    with tempfile.TemporaryDirectory(prefix="viaduct-model-") as folder:
        shutil.copy(MODEL, os.path.join(folder, "model.pml"))
        must(folder, "spin", *defines, "-a", "model.pml")
        must(folder, *compiler, "-w", "-O1", "-DCOLLAPSE", *for_safety, "-o", "pan", "pan.c")
        if broken:
            return find(folder, broken, defines)
        if formulas:
            return ", ".join(f"{formula}: {prove(folder, '-a', '-N', formula)} states"
                             for formula in formulas)
        return f"{prove(folder)} states"


def main():
    compiler = sys.argv[1:] or ["cc"]
    print("TAP version 13")
    for tool, remedy in (("spin", "apt-get install spin"), (compiler[0], "scripts/setup")):
        if not shutil.which(tool):
            print(f"1..1\nok 1 - model # SKIP needs {tool}: {remedy}")
            return 0
    print(f"1..{len(RUNS)}")
    failed = False
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(check, compiler, *rest) for _, *rest in RUNS]
        for number, (job, (name, *_)) in enumerate(zip(jobs, RUNS), 1):
            try:
                print(f"# {job.result()}\nok {number} - {name}", flush=True)
            except (Wrong, OSError, subprocess.TimeoutExpired) as wrong:
                failed = True
                print("\n".join(f"# {line}" for line in str(wrong).split("\n")))
                print(f"not ok {number} - {name}", flush=True)
    return 1 if failed else 0


sys.exit(main())
