#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What changed from one result of `viaduct bench --json` to another, beyond the spread of both.

    bench/compare.py A.json B.json [--all]

A figure has changed when the lowest and the highest of A's repeats and those of B's do not overlap.
Where both have a bare loop beside ours, the ratio to it is judged and not the value: what
another load or another machine does to both is no change of ours. --all also prints what has not
changed.

Exit status: 0 nothing is worse, 1 something is, 2 the files cannot be compared.
"""
import argparse
import sys

import result_files

HOST = ["kernel", "cpu", "cpus", "neighbours"]


def key(row):
    """What makes it the same measurement, whatever it has found."""
    case = ",".join(f"{name}={value}" for name, value in sorted(row["case"].items()))
    return row["row"], row["fabric"], row["device"], case


def judged(row):
    """("ratio" or the unit, median, lowest, highest)"""
    name, of = ("ratio", row["ratio"]) if row["ratio"] else (row["unit"], row["ours"])
    return name, of["median"], of["min"], of["max"]


def verdict(row, before, now):
    """"better", "worse", or "": the spreads overlap."""
    if before[2] <= now[3] and now[2] <= before[3]:
        return ""
    return "better" if (now[1] > before[1]) == (row["better"] == "higher") else "worse"


def compare(a, b):
    """[(key, A's figure, B's figure, verdict)]; a figure is None where it was not measured."""
    rows_a, rows_b = ({key(row): row for row in f["rows"]} for f in (a, b))
    for which in list(rows_a) + [k for k in rows_b if k not in rows_a]:
        before, now = rows_a.get(which), rows_b.get(which)
        if not before or not now:
            yield which, before and judged(before), now and judged(now), "missing"
            continue
        if bool(before["ratio"]) != bool(now["ratio"]):  # one without its bare loop
            before, now = ({**row, "ratio": None} for row in (before, now))
        yield which, judged(before), judged(now), verdict(now, judged(before), judged(now))


def differences(a, b):
    """In what the two runs are not alike, as lines."""
    for name in HOST:
        if a["host"][name] != b["host"][name]:
            yield f"{name}: {a['host'][name]} -> {b['host'][name]}"
    for name in sorted(a["libraries"].keys() | b["libraries"].keys()):
        versions = [f["libraries"].get(name, "none") for f in (a, b)]
        if versions[0] != versions[1]:
            yield f"{name}: {versions[0]} -> {versions[1]}"


def cell(figure):
    if not figure:
        return "not measured"
    _, median, low, high = figure
    return f"{median:.4g} ({low:.4g} to {high:.4g})"


def line(which, before, now, said):
    change = f"{100 * (now[1] / before[1] - 1):+.1f} %" if before and now and before[1] else ""
    unit = (before or now)[0]
    return [said, " ".join(part for part in which if part), unit, cell(before), cell(now), change]


def show(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("a", metavar="A.json")
    parser.add_argument("b", metavar="B.json")
    parser.add_argument("--all", action="store_true", help="also what has not changed")
    options = parser.parse_args()
    try:
        a, b = result_files.load(options.a), result_files.load(options.b)
    except result_files.Unusable as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    found = list(compare(a, b))
    for difference in differences(a, b):
        print(difference)
    shown = [line(*one) for one in found if one[3] or options.all]
    if shown:
        show([["", "row", "unit", "A", "B", "change"], *shown])
    count = {said: sum(1 for one in found if one[3] == said) for said in ("better", "worse", "")}
    print(f"{count['better']} better, {count['worse']} worse, {count['']} within the spread of "
          "both")
    return 1 if count["worse"] else 0


sys.exit(main())
