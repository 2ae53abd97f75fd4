#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The probes are in the program, and the scripts of docs/trace show something.

    trace_scripts.py VIADUCT
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import harness
from harness import Run, Skip, check, equal, test

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRACE = ROOT / "docs" / "trace"


def documented():
    text = (TRACE / "README.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- probes: .*?<!-- end -->", text, re.S).group()
    return set(re.findall(r"^\| `(\w+)` \|", table, re.M))


@test("each probe is in the program")
def _():
    for tool in ("readelf",):
        if not shutil.which(tool):
            raise Skip(f"needs {tool}: apt-get install binutils")
    notes = subprocess.run(["readelf", "-n", harness.binary], stdout=subprocess.PIPE,
                           encoding="utf-8", check=True).stdout
    found = re.findall(r"Provider: viaduct\n\s+Name: (\w+)\n.*\n\s+Arguments: (.*)\n", notes)
    if not found:
        raise Skip("this build has no probes: install systemtap-sdt-dev")
    equal({name for name, _ in found}, documented(), "the probes")
    for name, arguments in found:
        equal(len(arguments.split(" ")), 5, f"the number of arguments of {name}")
        check(all(a.startswith("8@") for a in arguments.split(" ")), f"{name}: {arguments}")


def bpftrace(script, program):
    """It, attached to the program, and what it prints at its end."""
    if not shutil.which("bpftrace"):
        raise Skip("needs bpftrace: apt-get install bpftrace")
    if os.geteuid():
        raise Skip("needs root")
    folder = harness.case.folder()
    os.symlink(program, f"{folder}/viaduct")
    out = open(f"{folder}/out", "w+", encoding="utf-8")  # pylint: disable=consider-using-with
    process = subprocess.Popen(["bpftrace", TRACE / script], cwd=folder, stdout=out,
                               stderr=subprocess.STDOUT)
    return process, out


def attached(process, out):
    """Once it is; a kernel that does not let it is a reason to skip."""
    deadline = harness.Deadline(40)
    while deadline.left():
        out.seek(0)
        text = out.read()
        if "Attaching" in text and maps_a_probe(process.pid):
            return
        if process.poll() is not None:
            raise Skip(f"bpftrace does not run here: {text.strip().splitlines()[-1]}")
        select_a_while()
    raise Skip("bpftrace did not attach in time")


def maps_a_probe(pid):
    """Its perf events are there once all are attached."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any("perf_event" in link for link in links)


def select_a_while():
    """Nothing tells when it has attached."""
    signal.sigtimedwait([], 0.2)


def shows(script, *args):
    process, out = bpftrace(script, harness.binary)
    try:
        attached(process, out)
        for _ in range(3): # attaching takes a moment longer
            Run("demo", "--memory", "32M", "--fabric", "ofi:tcp", *args).ends(0)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        out.seek(0)
        return out.read()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        out.close()


@test("phases.bt shows the steps of both sides, in order")
def _():
    text = shows("phases.bt")
    last = text[text.rfind("phase set-up"):]
    places = [last.find(words) for words in
              ("phase precopy", "epoch 1 drained", "the guest stands still", "sealed after epoch",
               "destination the guest runs", "phase done")]
    check(-1 not in places and places == sorted(places), text)


@test("writes.bt shows latencies by channel")
def _():
    text = shows("writes.bt")
    check(re.search(r"@latency_us\[0\]: *\n\[", text) and re.search(r"@bytes: *\n\[", text), text)


@test("faults.bt shows latencies of faults and answers")
def _():
    text = shows("faults.bt", "--postcopy")
    check(re.search(r"@fault_us: *\n[\[(]", text) and re.search(r"@answer_us: *\n[\[(]", text), text)


sys.exit(harness.main(*sys.argv[1:]))
