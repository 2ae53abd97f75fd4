#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Migration of an idle guest by our engine, beside stock QEMU's own over tcp, in one run.

    bench/engine_vs_qemu.py BUILD_DIR [REPEATS] [--fabrics ofi:tcp,ucx:tcp,ofi:shm,ucx:shm]
                            [--channels 1,2] [--qemu 11.1] [--qemu-channels 2,4]
                            [--memory 2048] [--json]

Each repeat runs one after the other, so that noise of the machine meets all of them; before them
comes one that is not counted. QEMU's guest is emulated and idle; ours is that of `viaduct demo`,
without vCPUs. All memory, of both sides of both, is there before the migration begins.

  GiB/s      of pages with content, over the whole migration: set-up of the channels, the rounds,
             and the time in which the guest stands still
  CPU s/GiB  of both sides together; with ours what the guest itself uses is left out

Two things favour QEMU: its GiB count the whole guest, ours only what was sent, while the zero
pages are looked at all the same; and its guest's device state is smaller.

The ratio is taken within each repeat, to the better of QEMU's own, in GiB/s and in CPU seconds on
their own. Prints medians with the lowest and the highest, or JSON as bench/schema.json says.
Figures are loopback's: they say nothing about a NIC.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/tools"), str(ROOT / "tests/qemu")]

# pylint: disable=wrong-import-position
import harness
import peers
import transports
from migration import LONG_S, Migration, Setting, bandwidth, mode

GIB = 1 << 30
UNLIMITED = 1 << 20  # MiB/s
RATE, CPU = "GiB/s", "CPU s/GiB"
BETTER = {RATE: max, CPU: min}
BARE_IS = "QEMU {} over tcp, the better of {} multifd channels"


def qemu_migrates(peer, channels, memory_mib):
    """{unit: value} of QEMU's own migration."""
    setting = Setting(transports.Direct, "tcp", peer, peer, "q35", None)
    with Migration(setting, mode(channels), bandwidth(UNLIMITED), memory_mib=memory_mib,
                   writes=0, checks=0) as migrating:
        uri = migrating.lay()
        both = (migrating.source, migrating.destination)
        before = sum(qemu.cpu_s() for qemu in both)
        migrating.begin(uri)
        for qemu in both:
            migrating.until(qemu, "completed", seconds=2 * LONG_S)
        used = sum(qemu.cpu_s() for qemu in both) - before
        result = migrating.verify()
    gib = memory_mib / 1024
    return {RATE: gib / result["total_ms"] * 1e3, CPU: used / gib}


def measure_qemu(*args):
    """qemu_migrates(), and everything that it has started is gone."""
    found = []
    harness.case = harness.Case("qemu", lambda: found.append(qemu_migrates(*args)))
    harness.case.run()
    return found[0]


def engine_migrates(build, fabric, channels, memory_mib):
    """{unit: value} of ours, whose every page was checked afterwards."""
    run = subprocess.run(
        [f"{build}/tools/viaduct", "demo", "--fabric", fabric, "--memory", f"{memory_mib}M",
         "--vcpus", "0", "--dirty-rate", "0", "--multifd", str(channels), "--json"],
        capture_output=True, text=True, timeout=300, check=False)
    try:
        found = json.loads(run.stdout)
    except ValueError:
        sys.exit(f"viaduct demo --fabric {fabric}: {run.stderr.strip()}")
    if run.returncode:
        sys.exit(f"viaduct demo --fabric {fabric}: {run.stderr.strip() or found['verify']}")
    gib = found["bytes_sent"] / GIB
    return {RATE: gib / found["total_ms"] * 1e3, CPU: sum(found["cpu_s"].values()) / gib}


# -- results ----------------------------------------------------------------------------------


def values(of):
    return {"median": statistics.median(of), "min": min(of), "max": max(of), "values": of}


def rows_of(found, qemu, bare_is):
    """As bench/schema.json says. @found: {(fabric, channels): [{unit: value}, ...]}"""
    for (fabric, channels), repeats in found.items():
        for unit, better in BETTER.items():
            ours = [r[unit] for r in repeats]
            is_qemu = (fabric, channels) in qemu
            bare = None if is_qemu else [
                better(found[q][i][unit] for q in qemu) for i in range(len(repeats))]
            ratio = bare and values([o / b for o, b in zip(ours, bare)])
            yield {"row": "engine" if unit == RATE else "engine-cpu", "fabric": fabric,
                   "device": "lo" if "tcp" in fabric or is_qemu else "", "peer": "this host",
                   "case": {"channels": channels}, "unit": unit,
                   "better": "higher" if better is max else "lower", "ours": values(ours),
                   "bare": bare and values(bare), "bare_is": None if is_qemu else bare_is,
                   "ratio": ratio and {k: v for k, v in ratio.items() if k != "values"}}


def first_match(path, pattern):
    with open(path, encoding="utf-8") as f:
        found = re.search(pattern, f.read(), re.M)
    return found.group(1) if found else "unknown"


def libraries(build):
    """What `viaduct bench` says of them."""
    run = subprocess.run([f"{build}/tools/viaduct", "bench", "fence", "--fabric", "ofi:tcp",
                          "--only", "channels=1,full=0,bare_sleeps=0", "--repeat", "1",
                          "--seconds", "10ms", "--json"],
                         capture_output=True, text=True, timeout=120, check=False)
    try:
        return json.loads(run.stdout)["libraries"]
    except (ValueError, KeyError):
        return {}


def head(build, load):
    version = subprocess.run([f"{build}/tools/viaduct", "--version"], capture_output=True,
                             text=True, check=False).stdout.split()
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                            capture_output=True, text=True, check=False).stdout.strip()
    now = datetime.datetime.now(datetime.timezone.utc)
    # Where they are on this machine nobody else has to know.
    command = ["bench/engine_vs_qemu.py", *("BUILD" if a == build else a for a in sys.argv[1:])]
    return {"schema": "viaduct-bench-1", "command": " ".join(command),
            "version": version[-1] if version else "unknown", "commit": commit or "unknown",
            "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "host": {"kernel": platform.release(),
                     "cpu": first_match("/proc/cpuinfo", r"^model name\s*: (.*)$"),
                     "cpus": len(os.sched_getaffinity(0)),
                     "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
                     "load": load, "neighbours": 0},
            "libraries": libraries(build)}


def cell(of, form=".2f"):
    return f"{of['median']:{form}} ({of['min']:{form}} to {of['max']:{form}})" if of else ""


def show(report):
    host = report["host"]
    print(f"idle guest, both ends on this host; Linux {host['kernel']}, {host['cpus']} CPUs, load "
          f"average {host['load']:.1f} before")
    print(f"{'':24}{RATE:>24}{'to QEMU':>24}{CPU:>24}{'to QEMU':>24}")
    rows = report["rows"]
    for rate, cpu in zip(rows[::2], rows[1::2]):
        name = f"{rate['fabric']}, {rate['case']['channels']} channels"
        print(f"{name:24}" + "".join(f"{cell(of):>24}" for of in (
            rate["ours"], rate["ratio"], cpu["ours"], cpu["ratio"])))


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("build")
    parser.add_argument("repeats", nargs="?", type=int, default=5)
    parser.add_argument("--fabrics", default="ofi:tcp,ucx:tcp,ofi:shm,ucx:shm")
    parser.add_argument("--channels", type=numbers, default=[1, 2])
    parser.add_argument("--qemu", default="11.1")
    parser.add_argument("--qemu-channels", type=numbers, default=[2, 4])
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = head(options.build, os.getloadavg()[0])
    harness.binary = f"{options.build}/tools/viaduct"
    peer = peers.get(options.qemu)
    qemu = [(f"qemu:{options.qemu}", n) for n in options.qemu_channels]
    ours = [(f, n) for f in options.fabrics.split(",") for n in options.channels]
    found = {}
    for i in range(options.repeats + 1):
        for name, channels in qemu + ours:
            once = (measure_qemu(peer, channels, options.memory) if (name, channels) in qemu else
                    engine_migrates(options.build, name, channels, options.memory))
            if i:
                found.setdefault((name, channels), []).append(once)
        print(f"repeat {i} of {options.repeats}", file=sys.stderr)
    report["rows"] = list(rows_of(found, qemu, BARE_IS.format(
        options.qemu, " and ".join(map(str, options.qemu_channels)))))
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        show(report)


main()
