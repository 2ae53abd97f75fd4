#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Faults of postcopy beside what their parts take alone, in one run.

    bench/faults_vs_bare.py BUILD_DIR [REPEATS] [--fabric ofi:tcp] [--awake]

Each repeat runs one after the other, so that noise of the machine meets all of them:

  bare request  bare_ofi_request: a small message up and one with a page down, straight on
                libfabric, both ends spinning or asleep, and asleep beside a bulk flow
  userfaultfd   uffd_cost: from the touch of an absent page until it is there, with the page at hand
  Viaduct       `viaduct demo --postcopy`, idle (one vCPU, and hardly any bulk beside its faults)
                and loaded (eight vCPUs that touch as fast as they can, and bulk without a limit)

"request" is the time from the request sent to the page received, "trap to wake" what the touching
thread saw. Loaded, the vCPUs also want more CPU than small machines have: then both count
the wait for a CPU in. Prints the median over the repeats with the lowest and the highest, in
microseconds; differences and ratios are taken within each repeat. Figures are loopback's: they say
nothing about a NIC.

A sleeper is woken in a few microseconds on a CPU that is busy, and on one that idles it can take
ten times as long, most of all in a virtual machine. So "loaded" can come out faster than "idle",
and whatever else runs on the machine moves both. With --awake a loop of idle priority
keeps each CPU from idling, for the bare runs and ours alike: what is left are the programs.
"""
import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys

PROVIDERS = {"ofi:tcp": ["tcp;ofi_rxm", "tcp"], "ofi:shm": ["shm"]}
SLEEPS = ["ofi:tcp"]  # whose queues have a descriptor
DEMOS = {
    "idle": ["--memory", "256M", "--vcpus", "1", "--dirty-rate", "100M/s",
             "--max-postcopy-bandwidth", "20M/s"],
    "loaded": ["--memory", "512M", "--vcpus", "8", "--dirty-rate", "unlimited"],
}
OURS = {"request": "request_us", "install": "install_us", "trap to wake": "latency_us"}
PERCENTILES = ["p50", "p99"]
FEW = 2000  # samples: below, the slowest hundredth is a handful


def run(command):
    """The JSON object that @command prints, or None and what it said."""
    r = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    return (json.loads(r.stdout), "") if r.returncode == 0 else (None, r.stderr.strip())


def must(command):
    found, said = run(command)
    return found or sys.exit(f"{' '.join(command)}: {said}")


def bare(build, providers, *options):
    """The request over the first of @providers that this libfabric has."""
    for provider in providers:
        found, said = run([f"{build}/bench/bare_ofi_request", *options, provider])
        if found:
            return found
    sys.exit(f"bare_ofi_request {providers}: {said}")


def demo_command(build, fabric, setting):
    return [f"{build}/tools/viaduct", "demo", "--fabric", fabric, "--postcopy", "--json",
            *DEMOS[setting]]


def stay_awake(cpu, parent):
    """Keep @cpu from idling, and get out of everybody's way, while @parent lives."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while os.getppid() == parent:
        for _ in range(100000):
            pass


def measure(build, fabric):
    """One repeat: {row: {"p50":, "p99":, ...}}, and {note: what went on beside}."""
    rows, notes = {}, {}
    rows["bare request, spinning"] = bare(build, PROVIDERS[fabric])
    if fabric in SLEEPS:
        rows["bare request, asleep"] = bare(build, PROVIDERS[fabric], "--sleep")
        loaded = bare(build, PROVIDERS[fabric], "--sleep", "--load")
        rows["bare request, asleep, loaded"] = loaded
        notes["bulk beside the bare request, GiB/s"] = loaded["load_gib_per_s"]
    rows["userfaultfd, spinning"] = must([f"{build}/bench/uffd_cost", "--spin"])
    rows["userfaultfd, asleep"] = must([f"{build}/bench/uffd_cost"])
    ours = {s: must(demo_command(build, fabric, s))["postcopy"] for s in DEMOS}
    for what, member in OURS.items():
        for setting in DEMOS:
            rows[f"Viaduct, {what}, {setting}"] = ours[setting][member]
    for setting in DEMOS:
        for count in ("requests", "faults", "bulk_pages", "duplicate_pages"):
            notes[f"{setting}: {count.replace('_', ' ')}"] = ours[setting][count]
    return rows, notes


def spread(values, form):
    return (f"{statistics.median(values):{form}} "
            f"({min(values):{form}} to {max(values):{form}})")


def print_rows(repeats):
    print(f"{'us':34}" + "".join(f"{p:>30}" for p in PERCENTILES))
    for row in repeats[0][0]:
        print(f"{row:34}" + "".join(
            f"{spread([rows[row][p] for rows, _ in repeats], '.1f'):>30}" for p in PERCENTILES))


def print_comparisons(repeats, base):
    def compare(text, form, function):
        print(f"  {text:58} {spread([function(rows) for rows, _ in repeats], form)}")

    def p(rows, row, percentile):
        return rows[row][percentile]

    for setting in DEMOS:
        ours = f"Viaduct, request, {setting}"
        compare(f"request p50, {setting}, above the {base}, us", "+.1f",
                lambda rows, ours=ours: p(rows, ours, "p50") - p(rows, base, "p50"))
    for what in ("request", "trap to wake"):
        compare(f"{what} p99, loaded / idle", ".2f",
                lambda rows, what=what: p(rows, f"Viaduct, {what}, loaded", "p99")
                / p(rows, f"Viaduct, {what}, idle", "p99"))
    if "bare request, asleep, loaded" in repeats[0][0]:
        compare("bare request p99, loaded / idle", ".2f",
                lambda rows: p(rows, "bare request, asleep, loaded", "p99")
                / p(rows, "bare request, asleep", "p99"))
    # Medians alone: the slowest of two parts do not fall together, so no sum of theirs means much.
    compare("trap to wake p50, idle, above request + userfaultfd, us", "+.1f",
            lambda rows: p(rows, "Viaduct, trap to wake, idle", "p50")
            - p(rows, "Viaduct, request, idle", "p50") - p(rows, "userfaultfd, asleep", "p50"))


def print_notes(repeats):
    for note in repeats[0][1]:
        values = [notes[note] for _, notes in repeats]
        form = ".2f" if any(isinstance(v, float) for v in values) else ".0f"
        few = note.endswith("requests") and min(values) < FEW
        print(f"  {note:58} {spread(values, form)}{'  (few: p99 says little)' if few else ''}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2].strip())
    parser.add_argument("build")
    parser.add_argument("repeats", nargs="?", type=int, default=5)
    parser.add_argument("--fabric", default="ofi:tcp", choices=PROVIDERS)
    parser.add_argument("--awake", action="store_true")
    options = parser.parse_args()
    base = f"bare request, {'asleep' if options.fabric in SLEEPS else 'spinning'}"
    cpus = sorted(os.sched_getaffinity(0))
    print(f"Linux {platform.release()}, {len(cpus)} CPUs{' kept awake' if options.awake else ''}, "
          f"load average {os.getloadavg()[0]:.1f} before, {options.repeats} repeats")
    for cpu in cpus if options.awake else []:
        multiprocessing.Process(target=stay_awake, args=(cpu, os.getpid()), daemon=True).start()
    for setting in DEMOS:
        print(f"{setting}: {' '.join(demo_command(options.build, options.fabric, setting))}")
    repeats = []
    for i in range(options.repeats):
        repeats.append(measure(options.build, options.fabric))
        rows = repeats[-1][0]
        print(f"repeat {i + 1}: p50 of {base} {rows[base]['p50']:.1f}, of our request idle "
              f"{rows['Viaduct, request, idle']['p50']:.1f} and loaded "
              f"{rows['Viaduct, request, loaded']['p50']:.1f} us", flush=True)
    print()
    print_rows(repeats)
    print()
    print_comparisons(repeats, base)
    print()
    print_notes(repeats)


main()
