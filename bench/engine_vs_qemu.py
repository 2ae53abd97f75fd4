#!/usr/bin/env -S python3 -B
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
import json
import statistics
import subprocess
import sys

import qemu_migration
from qemu_migration import IDLE, UNLIMITED, Setting, bandwidth, mode, transports

GIB = 1 << 30
RATE, CPU = "GiB/s", "CPU s/GiB"
BETTER = {RATE: max, CPU: min}
BARE_IS = "QEMU {} over tcp, the better of {} multifd channels"


def qemu_migrates(peer, channels, memory_mib):
    """{unit: value} of QEMU's own migration."""
    setting = Setting(transports.Direct, "tcp", peer, peer, "q35", None)
    found = qemu_migration.measure("qemu", setting, memory_mib, mode(channels),
                                   bandwidth(UNLIMITED), IDLE)
    return {RATE: found["GiB/s"], CPU: found["source"] + found["destination"]}


def viaduct(build, *args):
    """The JSON that it prints; without it there is nothing to go on with."""
    run = subprocess.run([f"{build}/tools/viaduct", *args, "--json"], capture_output=True,
                         text=True, timeout=300, check=False)
    if run.returncode:
        sys.exit(f"viaduct {' '.join(args)}: {run.stderr.strip() or run.stdout.strip()}")
    return json.loads(run.stdout)


def engine_migrates(build, fabric, channels, memory_mib):
    """{unit: value} of ours, whose every page was checked afterwards."""
    found = viaduct(build, "demo", "--fabric", fabric, "--memory", f"{memory_mib}M", "--vcpus", "0",
                    "--dirty-rate", "0", "--multifd", str(channels))
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


def head(build, fabric):
    """What `viaduct bench` says of itself, the host and the libraries, and no row."""
    report = viaduct(build, "bench", "fence", "--fabric", fabric, "--only",
                     "channels=1,full=0,bare_sleeps=0", "--repeat", "1", "--seconds", "10ms")
    # Where they are on this machine nobody else has to know.
    command = ["bench/engine_vs_qemu.py", *("BUILD" if a == build else a for a in sys.argv[1:])]
    return {**report, "command": " ".join(command), "rows": [], "skipped": []}


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
    peer = qemu_migration.stock(options.qemu)
    fabrics = options.fabrics.split(",")
    report = head(options.build, fabrics[0])
    qemu = [(f"qemu:{options.qemu}", n) for n in options.qemu_channels]
    ours = [(f, n) for f in fabrics for n in options.channels]
    found = {}
    for i in range(options.repeats + 1):
        for name, channels in qemu + ours:
            once = (qemu_migrates(peer, channels, options.memory) if (name, channels) in qemu else
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
