#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Measure what docs/benchmarks shows, and make its tables and pictures: one command for all of it.

    bench/report.py BUILD_DIR [--repeat 5] [--fabrics ofi:tcp,...] [--out docs/benchmarks]
                    [--parts REGEX] [--no-measure] [--peer HOST:PORT] [--psk FILE]

Takes the better part of an hour; --parts takes those that match only (their names come by as they
are measured), and keeps what is there of the others. --no-measure makes tables and pictures of what
is there. The machine should have nothing else to do. With --peer HOST:PORT, where
`viaduct bench --listen` serves, the other end is there, and what cannot be, is left out.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import result_files
from result_files import case_text

HERE = pathlib.Path(__file__).resolve().parent
FABRICS = "ofi:tcp,ucx:tcp,ofi:shm,ucx:shm"
SIZES = [4096, 16384, 65536, 262144, 1048576, 4194304]
PICTURED = "ofi:tcp"  # the fabric whose migrations are drawn over time, and grow to 8 GiB
SHORT = ["--seconds", "300ms"]

# name of the part: arguments of `viaduct bench` for each of its measurements
PARTS = {
    "bandwidth": [["bandwidth", "--only", f"size={size},channels=1", *SHORT] for size in SIZES] +
                 [["bandwidth", "--only", f"size=1048576,channels={n}", *SHORT] for n in (2, 4)],
    "busy": [["bandwidth", "--only", "size=1048576,channels=1", "--neighbour", "1", *SHORT]],
    "scatter": [["scatter", "--only", "channels=1", *SHORT]],
    "latency": [["latency"]],
    "fence": [["fence", "--only", "channels=1,full=0", *SHORT],
              ["fence", "--only", "channels=4,full=0", *SHORT],
              ["fence", "--only", "channels=4,full=1", *SHORT]],
    "setup": [["setup", "--only", "channels=1"], ["setup", "--only", "channels=4"]],
    "migrate": [["migrate", "--only", f"mib=2048,dirty_mib_s=0,channels={n},postcopy=0"]
                for n in (1, 2, 4)] + [["migrate", "--only", "mib=256,channels=16"]],
    "relay": [["relay"]],
}
ONE_FABRIC = {
    "growth": [["migrate", "--only", f"mib={mib},dirty_mib_s=0,channels=2,postcopy=0"]
               for mib in (64, 256, 1024, 4096, 8192)],
    "writing": [["migrate", "--only", f"mib=1024,dirty_mib_s={rate},postcopy={post}"]
                for rate in (50, 200, 800) for post in (0, 1)],
}
KEEP_SERIES = {"mib": 1024, "dirty_mib_s": 200, "channels": 2}


# -- measuring --------------------------------------------------------------------------------


def run_json(command):
    """The JSON that it prints; None, and why, when it cannot be had."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="utf-8", check=False)
    if done.returncode:
        print(f"left out: {' '.join(map(str, command))}\n{done.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def slim(report):
    """Without the series that no picture shows."""
    for row in report["rows"]:
        if row.get("series") and any(row["case"].get(k) != v for k, v in KEEP_SERIES.items()):
            del row["series"]
        row["ours"]["values"] = [round(v, 4) for v in row["ours"]["values"]]
    return report


def measure_part(options, fabric, measurements):
    """All of them as one report, or None."""
    whole = None
    for args in measurements:
        found = run_json([f"{options.build}/tools/viaduct", "bench", *args, "--fabric", fabric,
                          "--repeat", str(options.repeat), "--json",
                          *(["--peer", options.peer] if options.peer else []),
                          *(["--psk", options.psk] if options.psk else [])])
        if found and whole:
            whole["rows"] += found["rows"]
            whole["skipped"] += found["skipped"]
        whole = whole or found
    return whole


def save(options, name, report):
    if not report:
        return
    text = json.dumps(slim(report), separators=(",", ":"))
    text = text.replace('{"row":', '\n{"row":') + "\n"  # a line for each row
    (options.out / f"{name}.json").write_text(text, encoding="utf-8")


def measure(options):
    todo = [(part, fabric, what) for part, what in PARTS.items()
            for fabric in options.fabrics.split(",")]
    todo += [(part, PICTURED, what) for part, what in ONE_FABRIC.items()
             if PICTURED in options.fabrics.split(",")]
    for part, fabric, what in todo:
        if options.parts.search(part):
            print(f"{part}, {fabric}", file=sys.stderr)
            save(options, f"{part}-{fabric.replace(':', '-')}",
                 measure_part(options, fabric, what))
    if options.parts.search("engine") and not options.peer:
        print("engine, beside QEMU", file=sys.stderr)
        save(options, "engine", run_json([HERE / "engine_vs_qemu.py", options.build,
                                          str(options.repeat), "--fabrics", options.fabrics,
                                          "--json"]))


# -- tables -----------------------------------------------------------------------------------


def number(value):
    """Three digits that say something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(of):
    return f"{number(of['median'])} ({number(of['min'])} to {number(of['max'])})" if of else ""


def table(title, heads, lines):
    yield f"\n## {title}\n"
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for line in lines:
        yield f"| {' | '.join(line)} |"


def row_table(title, rows):
    heads = ["case", "fabric", f"ours, {rows[0]['unit']}", "bare", "ours to bare"]
    lines = [[case_text(r), f"`{r['fabric']}`", cell(r["ours"]), cell(r["bare"]), cell(r["ratio"])]
             for r in rows]
    yield from table(title, heads, lines)
    for words in dict.fromkeys(r["bare_is"] for r in rows if r["bare"]):
        yield f"\nBare: {words}."


def latency_table(rows):
    names = ["p50", "p90", "p99", "p999", "max"]
    lines = [[case_text(r), f"`{r['fabric']}`", way,
              *(f"{r['percentiles'][way][n]:.0f}" for n in names)]
             for r in rows for way in ("ours", "bare") if r["percentiles"].get(way)]
    yield from table("A page request and its answer, us",
                     ["case", "fabric", "", "p50", "p90", "p99", "p99.9", "max"], lines)


EXTRAS = {"total_ms": "total ms", "setup_ms": "set-up ms", "downtime_ms": "stood still ms",
          "rounds": "rounds", "cpu_s_per_gib_near": "CPU s/GiB, source",
          "cpu_s_per_gib_far": "destination", "near_memory_mib": "memory MiB, source",
          "far_memory_mib": "destination"}


def migrate_table(rows):
    lines = [[case_text(r), f"`{r['fabric']}`", cell(r["ours"]), cell(r["ratio"]),
              *(number(r["extra"][name]) for name in EXTRAS)] for r in rows]
    yield from table("Whole migrations", ["case", "fabric", "GiB/s", "to bare", *EXTRAS.values()],
                     lines)


TITLES = {"bandwidth": "Writes, by size and channels", "scatter": "Pages here and there",
          "fence": "The fence", "setup": "Before the first byte",
          "relay": "Through a relay on each side",
          "engine": "A whole migration of an idle guest, beside QEMU's own over tcp",
          "engine-cpu": "The CPU time of both sides in it"}


def pictures(folder):
    for path in sorted(folder.glob("*.png")):
        yield f"\n![{path.stem}]({path.name})"


def page(reports, folder):
    """The generated page, as lines."""
    first = next(iter(reports.values()))
    host = first["host"]
    yield "# Figures of one machine, over loopback\n"
    yield ("Made by `bench/report.py` from the JSON beside it; [how it is measured, and what to "
           "expect elsewhere](../benchmarks.md).")
    yield (f"Linux {host['kernel']}, {host['cpu']}, {host['cpus']} CPUs, "
           f"{host['memory_bytes'] >> 30} GiB, a virtual machine; "
           + ", ".join(f"{k} {v}" for k, v in first["libraries"].items())
           + f"; commit {first['commit']}, {first['date'][:10]}. Median, and lowest to highest of "
           "the repeats.")
    loads = [f["host"]["load"] for f in reports.values()]
    yield f"Load average before: {min(loads):.1f} to {max(loads):.1f}."
    yield from pictures(folder)
    quiet = [r for f in reports.values() if not f["host"]["neighbours"] for r in f["rows"]]
    for name, title in TITLES.items():
        rows = [r for r in quiet if r["row"] == name]
        if rows:
            yield from row_table(title, rows)
    busy = [r for f in reports.values() if f["host"]["neighbours"] for r in f["rows"]]
    if busy:
        yield from row_table("Writes of 1 MiB beside a busy process", busy)
    for name, make in (("latency", latency_table), ("migrate", migrate_table)):
        rows = [r for r in quiet if r["row"] == name]
        if rows:
            yield from make(rows)


def show(options):
    try:
        reports = {path.stem: result_files.load(path)
                   for path in sorted(options.out.glob("*.json"))}
    except result_files.Unusable as error:
        sys.exit(f"report.py: {error}")
    if not reports:
        sys.exit(f"report.py: nothing in {options.out}")
    # Those beside a busy process would be drawn over the others.
    paths = [options.out / f"{name}.json" for name, found in reports.items()
             if not found["host"]["neighbours"]]
    subprocess.run([HERE / "plot.py", *paths, "--out", options.out], check=True,
                   stdout=subprocess.DEVNULL)
    text = list(page(reports, options.out))
    judged = subprocess.run([HERE / "targets.py", *paths], stdout=subprocess.PIPE,
                            encoding="utf-8", check=False).stdout
    text += ["\n## Targets\n", "```", judged.rstrip(), "```"]
    (options.out / "loopback.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("build")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--fabrics", default=FABRICS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / "docs/benchmarks")
    parser.add_argument("--parts", type=re.compile, default=re.compile(""))
    parser.add_argument("--peer")
    parser.add_argument("--psk")
    parser.add_argument("--no-measure", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.no_measure:
        measure(options)
    show(options)


main()
