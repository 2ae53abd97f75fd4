#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What we want of the figures, and whether results have it.

    bench/targets.py RESULT.json...    of `viaduct bench --json` and bench/engine_vs_qemu.py --json

Prints a line for each target and fabric: met or missed, what was seen, and what is wanted. What was
not measured is not judged. Medians are judged: look at the spread before you believe one.

Exit status: 0 all that was measured is met, 1 something is missed, 2 no results.
"""
import argparse
import sys

import result_files

SOFTWARE = ["ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm"]
SAME_HOST = ["ofi:shm", "ucx:shm"]
OVER_TCP = ["ofi:tcp", "ucx:tcp"]
# What auto takes of those (their ranks are in fabrics/*/*_probe.c).
AUTO = {"same host": ("ucx:shm", SAME_HOST), "tcp": ("ofi:tcp", OVER_TCP)}
NEAR = 0.95  # of the best: as good as it

MIB = 1 << 20
MEMORY_MIB = 64
LINEAR = 1.25  # the most expensive byte to the cheapest, from a size on that is no mere set-up
LINEAR_FROM_MIB = 1024
SCAN_PERCENT = 1


class Results:
    def __init__(self, rows):
        self.rows = rows

    def find(self, name, fabric=None, **case):
        """Its rows whose case has these."""
        return [r for r in self.rows if r["row"] == name
                and (fabric is None or r["fabric"].split(",")[0] == fabric)
                and all(r["case"].get(k) == v for k, v in case.items())]


def at_least(value, limit):
    return value >= limit, f"{value:.3g}", f"at least {limit:g}"


def at_most(value, limit):
    return value <= limit, f"{value:.3g}", f"at most {limit:.3g}"


def ratios(results):
    """To the bare loop, where bytes are moved."""
    for name, limit, case in (
            ("bandwidth", 0.97, {"size": MIB, "channels": 1}),
            ("scatter", 0.90, {"size": 4096, "channels": 1}),
            ("migrate", 0.95, {"mib": 2048, "dirty_mib_s": 0, "channels": 2, "postcopy": 0})):
        for fabric in SOFTWARE:
            for row in results.find(name, fabric, **case):
                if row["ratio"]:
                    yield (f"{name} to the bare loop", fabric,
                           at_least(row["ratio"]["median"], limit))


def latency(results):
    for row in results.find("latency", load=0):
        ours, bare = row["percentiles"]["ours"], row["percentiles"].get("bare")
        kind = "asleep" if row["case"].get("bare_sleeps") else "spinning"
        if bare:
            yield (f"latency p50, us, bare {kind}", row["fabric"],
                   at_most(ours["p50"], bare["p50"] + 2))
            yield (f"latency p99, us, bare {kind}", row["fabric"],
                   at_most(ours["p99"], 2 * bare["p99"]))
    for row in results.find("latency", load=1):
        idle = results.find("latency", row["fabric"], load=0)
        if idle:
            yield ("latency p99 under bulk, us", row["fabric"],
                   at_most(row["percentiles"]["ours"]["p99"],
                           3 * max(r["percentiles"]["ours"]["p99"] for r in idle)))


def fence(results):
    for row in results.find("fence", full=0, channels=1):
        kind = "asleep" if row["case"].get("bare_sleeps") else "spinning"
        if row["bare"]:
            yield (f"fence, us, bare {kind}", row["fabric"],
                   at_most(row["ours"]["median"], row["bare"]["median"] + 5))


def best(rows, key):
    return max(rows, key=key) if rows else None


def qemu(results):
    """The better fabric over tcp, at its own CPU time; and the best within one host."""
    rate = {f: best(results.find("engine", f), lambda r: r["ours"]["median"]) for f in SOFTWARE}
    tcp = best([rate[f] for f in OVER_TCP if rate[f]], lambda r: r["ratio"]["median"])
    local = best([rate[f] for f in SAME_HOST if rate[f]], lambda r: r["ratio"]["median"])
    if tcp:
        yield "GiB/s to QEMU over tcp", tcp["fabric"], at_least(tcp["ratio"]["median"], 1)
        for row in results.find("engine-cpu", tcp["fabric"], **tcp["case"]):
            yield "CPU s/GiB to QEMU over tcp", row["fabric"], at_most(row["ratio"]["median"], 1)
    if local:
        yield "GiB/s to QEMU, same host", local["fabric"], at_least(local["ratio"]["median"], 1.5)


def choice(results):
    for place, (chosen, others) in AUTO.items():
        rates = {f: best(results.find("engine", f), lambda r: r["ours"]["median"]) for f in others}
        if all(rates.values()):
            value = rates[chosen]["ours"]["median"]
            top = max(r["ours"]["median"] for r in rates.values())
            yield f"what auto takes, {place}, GiB/s", chosen, at_least(value, NEAR * top)


def memory(results):
    for row in results.find("migrate", channels=16):
        used = max(row["extra"]["near_memory_mib"], row["extra"]["far_memory_mib"])
        yield "memory with 16 channels, MiB", row["fabric"], at_most(used, MEMORY_MIB)


def growth(results):
    for fabric in SOFTWARE:
        rows = [r for r in results.find("migrate", fabric, dirty_mib_s=0, channels=2, postcopy=0)
                if r["case"]["mib"] >= LINEAR_FROM_MIB]
        cost = [r["extra"]["total_ms"] / r["case"]["mib"] for r in rows]
        if len(cost) > 1:
            yield ("most ms for a MiB to least, from 1 GiB on", fabric,
                   at_most(max(cost) / min(cost), LINEAR))
    for row in results.find("migrate", postcopy=0):
        if row["case"]["dirty_mib_s"]:
            yield (f"dirty scan, % of the rounds, {row['case']['dirty_mib_s']} MiB/s written",
                   row["fabric"], at_most(row["extra"]["dirty_fetch_percent"], SCAN_PERCENT))


JUDGES = [ratios, latency, fence, qemu, choice, memory, growth]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", metavar="RESULT.json", nargs="+")
    try:
        files = [result_files.load(path) for path in parser.parse_args().results]
    except result_files.Unusable as error:
        print(f"targets.py: {error}", file=sys.stderr)
        return 2
    results = Results([row for file in files for row in file["rows"]])
    found = [(what, fabric, *judged) for judge in JUDGES
             for what, fabric, judged in judge(results)]
    for what, fabric, met, seen, wanted in found:
        print(f"{'met' if met else 'MISSED':8}{fabric:10}{what:45}{seen:>9}   {wanted}")
    missed = sum(1 for one in found if not one[2])
    print(f"{len(found) - missed} met, {missed} missed")
    return 1 if missed else 0


sys.exit(main())
