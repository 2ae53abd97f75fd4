#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What a migration of stock QEMU costs, with nothing between, a plain proxy pair, and the relay.

    bench/qemu_migration.py BUILD_DIR [REPEATS] [--transport direct,proxy,relay] [--qemu 11.1]
                            [--socket unix] [--memory 1024] [--fabric SPEC] [--rows REGEX]

Each repeat runs one after the other, so that noise of the machine meets all of them; before them
comes one that is not counted. The guest is emulated, idle in precopy, and reads all of its memory
in postcopy. Prints the median over the repeats with the lowest and the highest:

  GiB/s             of guest memory, over the whole migration
  source, between,  CPU seconds for each GiB, of the source's QEMU, of both programs between, and
  destination       of the destination's QEMU
  away ms           from the guest's stop at the source until it runs at the destination
  fault us, max ms  of a read that had to wait for its page, as the guest has measured it

CPU seconds are what to compare. On few CPUs all of these programs take turns, and GiB/s
says more about the machine than about them.
"""
import argparse
import pathlib
import platform
import os
import re
import statistics
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "tools"), str(TESTS / "qemu")]

# pylint: disable=wrong-import-position
import guest
import harness
import peers
import transports
from migration import LONG_S, Migration, Setting, bandwidth, mode

UNLIMITED = 1 << 20  # MiB/s
IDLE = {"writes": 0, "checks": 0}
READING = {"writes": 0, "checks": 4000}
# name: mode, limits, load
ROWS = {
    "precopy": (mode(), bandwidth(UNLIMITED), IDLE),
    "multifd-2": (mode(2), bandwidth(UNLIMITED), IDLE),
    "multifd-4": (mode(4), bandwidth(UNLIMITED), IDLE),
    "postcopy": (mode(postcopy=True), bandwidth(100, 100), READING),
    "preempt": (mode(preempt=True), bandwidth(100, 100), READING),
    "preempt, unlimited": (mode(preempt=True), bandwidth(100, UNLIMITED), READING),
}
COLUMNS = {"GiB/s": ".2f", "source": ".2f", "between": ".2f", "destination": ".2f",
           "away ms": ".1f", "fault us": ".0f", "max ms": ".1f"}


def stock(version):
    peer = peers.find(version)
    if isinstance(peer, str):
        sys.exit(peer)  # why there is none
    return peer


def cpu_s(migrating):
    return [migrating.source.cpu_s(), sum(p.cpu_s() for p in migrating.way.programs()),
            migrating.destination.cpu_s()]


def faults(migrating):
    """Mean in microseconds and longest in milliseconds, of what the guest waited for."""
    ticks = guest.ticks(migrating.destination.out.text)
    count = sum(t.slow for t in ticks)
    return {"fault us": sum(t.slow_us for t in ticks) / max(count, 1),
            "max ms": max(t.slowest_us for t in ticks) / 1e3}


def migrate(setting, memory_mib, chosen, limits, load):
    """One migration, as {column: value}."""
    with Migration(setting, chosen, limits, memory_mib=memory_mib, **load) as migrating:
        uri = migrating.lay()
        before = cpu_s(migrating)
        migrating.begin(uri)
        if chosen.postcopy:
            migrating.switch()
        for qemu in (migrating.source, migrating.destination):
            migrating.until(qemu, "completed", seconds=2 * LONG_S)
        used = [now - then for now, then in zip(cpu_s(migrating), before)]
        found = faults(migrating) if chosen.postcopy else {}
        result = migrating.verify()
    gib = memory_mib / 1024
    per_gib = dict(zip(("source", "between", "destination"), (u / gib for u in used)))
    return {"GiB/s": gib / result["total_ms"] * 1e3, "away ms": result["away_ms"],
            **per_gib, **found}


def measure(name, *args):
    """migrate(), and everything that it has started is gone."""
    found = []
    harness.case = harness.Case(name, lambda: found.append(migrate(*args)))
    harness.case.run()
    return found[0]


def spread(values, form):
    return (f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
            if values else "")


def print_rows(results):
    print(f"{'':30}" + "".join(f"{c:>28}" for c in COLUMNS))
    for name, repeats in results.items():
        print(f"{name:30}" + "".join(f"{spread([r[c] for r in repeats if c in r], form):>28}"
                                     for c, form in COLUMNS.items()))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("build")
    parser.add_argument("repeats", nargs="?", type=int, default=5)
    parser.add_argument("--transport", default="direct,proxy,relay")
    parser.add_argument("--qemu", default="11.1")
    parser.add_argument("--socket", default="unix", choices=["unix", "tcp"])
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--fabric")
    parser.add_argument("--rows", type=re.compile, default=re.compile(""))
    options = parser.parse_args()
    harness.binary = f"{options.build}/tools/viaduct"
    transports.Between.can_be_cut = False
    peer = stock(options.qemu)
    print(f"QEMU {options.qemu}, emulated, {options.memory} MiB, {options.socket} sockets; Linux "
          f"{platform.release()}, {len(os.sched_getaffinity(0))} CPUs, load average "
          f"{os.getloadavg()[0]:.1f} before, {options.repeats} repeats")
    results = {}
    for i in range(options.repeats + 1):
        for row in filter(options.rows.search, ROWS):
            for transport in options.transport.split(","):
                setting = Setting(transports.ALL[transport], options.socket, peer, peer, "q35",
                                  options.fabric)
                found = measure(row, setting, options.memory, *ROWS[row])
                if i:
                    results.setdefault(f"{row}, {transport}", []).append(found)
        print(f"repeat {i} of {options.repeats}", file=sys.stderr)
    print_rows(results)


if __name__ == "__main__":
    main()
