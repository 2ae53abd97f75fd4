#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of what `viaduct bench --json` has measured, as SVG and PNG.

    bench/plot.py RESULT.json... [--out FOLDER]

  bandwidth      by the size of a write, over one channel: ours, and the bare loop dashed
  latency        of a request and its page, by percentile: likewise
  engine         of bench/engine_vs_qemu.py: ours beside QEMU's own, and the CPU time of both
  migrate-...    a migration over time, one picture for each case with a series

Several files, of one fabric each say, are drawn together. A picture that the results have nothing
for is not made; those that were are named on stdout. The bars and bands are the lowest and the
highest of the repeats.
"""
import argparse
import pathlib
import re
import sys

try:
    import matplotlib
except ModuleNotFoundError:  # Debian's is for /usr/bin/python3 alone
    sys.exit("plot.py: no matplotlib for this interpreter\n"
             "  try: scripts/setup, and run it as bench/plot.py (python3-matplotlib of Debian)")
matplotlib.use("agg")
# pylint: disable=wrong-import-position
import matplotlib.pyplot as plt
from matplotlib import ticker

import result_files
from result_files import case_text

# One colour for one fabric in every picture; told apart without red and green as well.
COLORS = {"ofi:tcp": "#0072b2", "ucx:tcp": "#d55e00", "ofi:shm": "#009e73", "ucx:shm": "#cc79a7",
          "verbs": "#e69f00"}
MORE_COLORS = ["#56b4e9", "#7f5539", "#555555"]
OURS, GUEST = "#0072b2", "#d55e00"
PHASES = {1: ("set-up", "#eeeeee"), 2: ("precopy", "#ffffff"), 3: ("switch-over", "#f6d9c6"),
          4: ("postcopy", "#e3eef6"), 5: ("paused", "#f6c6c6")}
PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "max": "max"}
STYLE = {
    "figure.figsize": (7.2, 4.2), "figure.dpi": 110, "savefig.bbox": "tight", "font.size": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "lines.linewidth": 1.8, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "viaduct",  # text stays text, equal data equal bytes
}


def color(fabric, known):
    """The same at each call with the same @known, also for what has none of its own."""
    name = next((name for name in COLORS if fabric.startswith(name)), None)
    strangers = [f for f in known if not any(f.startswith(name) for name in COLORS)]
    return COLORS[name] if name else MORE_COLORS[strangers.index(fabric) % len(MORE_COLORS)]


def fabrics_of(rows):
    return list(dict.fromkeys(row["fabric"] for row in rows))


def size_text(size, _=None):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size:g} B"


# -- bandwidth ----------------------------------------------------------------------------


def by_size(rows, way):
    """([sizes], [medians], [lowest], [highest]) of "ours" or "bare"."""
    points = sorted((row["case"]["size"], row[way]) for row in rows if row[way])
    return ([size for size, _ in points],
            *([v[name] for _, v in points] for name in ("median", "min", "max")))


def bandwidth(found):
    """One line for each fabric over the sizes of a write."""
    rows = [r for r in found if r["row"] == "bandwidth" and r["case"].get("channels", 1) == 1]
    known = fabrics_of(rows)
    if not rows:
        return {}
    figure, axes = plt.subplots()
    for fabric in known:
        mine = [row for row in rows if row["fabric"] == fabric]
        sizes, median, low, high = by_size(mine, "ours")
        axes.plot(sizes, median, "o-", markersize=3.5, color=color(fabric, known), label=fabric)
        axes.fill_between(sizes, low, high, color=color(fabric, known), alpha=0.15, linewidth=0)
        sizes, median, _, _ = by_size(mine, "bare")
        axes.plot(sizes, median, "--", linewidth=1.2, color=color(fabric, known))
    axes.plot([], [], "--", linewidth=1.2, color="#555555", label="bare loop")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(ticker.FixedLocator(sorted({r["case"]["size"] for r in rows})))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(size_text))
    axes.tick_params(axis="x", rotation=45)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="bytes of a write", ylabel=rows[0]["unit"],
             title="One-sided writes, one channel")
    axes.legend(ncol=2)
    return {"bandwidth": figure}


# -- latency ------------------------------------------------------------------------------


def latency(found):
    """A panel for each case, a line for each fabric over the percentiles."""
    rows = [row for row in found if row["row"] == "latency" and "percentiles" in row]
    known, cases = fabrics_of(rows), list(dict.fromkeys(map(case_text, rows)))
    if not rows:
        return {}
    figure, panels = plt.subplots(1, len(cases), sharey=True, squeeze=False,
                                  figsize=(1.2 + 3.2 * len(cases), 4.2))
    for axes, case in zip(panels[0], cases):
        for row in (row for row in rows if case_text(row) == case):
            for way, line in (("ours", "o-"), ("bare", "--")):
                values = row["percentiles"].get(way)
                if values:
                    axes.plot(list(PERCENTILES.values()), [values[p] for p in PERCENTILES], line,
                              markersize=3.5, linewidth=1.8 if way == "ours" else 1.2,
                              color=color(row["fabric"], known),
                              label=row["fabric"] if way == "ours" else None)
        axes.set_title(case)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda us, _: f"{us:g}"))
    panels[0][0].plot([], [], "--", linewidth=1.2, color="#555555", label="bare loop")
    panels[0][0].set_ylabel("us")
    panels[0][0].legend()
    return {"latency": figure}


# -- whole migrations -----------------------------------------------------------------------


def engine(found):
    """Bars: ours over each fabric beside QEMU's own migration."""
    rows = {name: [row for row in found if row["row"] == name] for name in ("engine", "engine-cpu")}
    if not rows["engine"]:
        return {}
    figure, panels = plt.subplots(1, 2, sharey=True,
                                  figsize=(7.2, 0.9 + 0.32 * len(rows["engine"])))
    for axes, of in zip(panels, rows.values()):
        names = [f"{row['fabric']}, {row['case']['channels']}" for row in of]
        fills = ["#999999" if row["fabric"].startswith("qemu") else
                 color(row["fabric"], fabrics_of(of)) for row in of]
        ends = [[row["ours"]["median"] - row["ours"]["min"] for row in of],
                [row["ours"]["max"] - row["ours"]["median"] for row in of]]
        axes.barh(names, [row["ours"]["median"] for row in of], color=fills, xerr=ends,
                  error_kw={"ecolor": "#333333", "elinewidth": 1})
        axes.set_xlabel(of[0]["unit"] if of else "")
        axes.grid(False, axis="y")
    panels[0].invert_yaxis()
    panels[0].set_ylabel("fabric, multifd channels")
    return {"engine": figure}


# -- a migration over time ------------------------------------------------------------------


def shade(axes, series):
    """The phases as the background, each named once at the top."""
    begun = 0
    for i, point in enumerate(series):
        if i + 1 < len(series) and series[i + 1]["phase"] == series[begun]["phase"]:
            continue
        name, fill = PHASES.get(int(series[begun]["phase"]), ("", "#ffffff"))
        end = series[i + 1]["ms"] if i + 1 < len(series) else point["ms"]
        for one in axes:
            one.axvspan(series[begun]["ms"], end, color=fill, linewidth=0, zorder=0)
        if end - series[begun]["ms"] > 0.04 * series[-1]["ms"]:
            axes[0].annotate(name, ((series[begun]["ms"] + end) / 2, 1), va="bottom", ha="center",
                             xycoords=("data", "axes fraction"), color="#555555", fontsize=8.5)
        begun = i + 1


def over_time(row):
    """What is left above, how fast it goes and how fast the guest writes below."""
    series = row["series"]
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(7.2, 4.8))
    times = [point["ms"] for point in series]
    shade(axes, series)
    axes[0].fill_between(times, [point["remaining_gib"] for point in series], step="post",
                         color=OURS, alpha=0.35, linewidth=0)
    axes[0].step(times, [point["remaining_gib"] for point in series], where="post", color=OURS)
    axes[1].step(times, [point["rate_gib_s"] for point in series], where="pre", color=OURS,
                 label="sent")
    axes[1].step(times, [point["dirty_gib_s"] for point in series], where="post", color=GUEST,
                 label="written by the guest, in the round before")
    axes[0].set_ylabel("GiB still to come")
    axes[1].set(ylabel="GiB/s", xlabel="ms")
    for one in axes:
        one.set_ylim(bottom=0)
    axes[1].set_xlim(0, times[-1])
    axes[1].legend()
    figure.suptitle(f"{row['fabric']}: {case_text(row)}", y=0.98, fontsize=10)
    return figure


def migrate(found):
    figures = {}
    for row in found:
        if row.get("series"):
            words = [row["row"], row["fabric"], *(f"{n}-{v}" for n, v in row["case"].items())]
            figures[re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower())] = over_time(row)
    return figures


# -- all --------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", metavar="RESULT.json", nargs="+")
    parser.add_argument("--out", metavar="FOLDER", default=".", type=pathlib.Path)
    options = parser.parse_args()
    try:
        rows = [row for path in options.results for row in result_files.load(path)["rows"]]
    except result_files.Unusable as error:
        sys.exit(f"plot.py: {error}")
    plt.rcParams.update(STYLE)
    options.out.mkdir(parents=True, exist_ok=True)
    for draw in (bandwidth, latency, engine, migrate):
        for name, figure in draw(rows).items():
            for kind, fixed in (("svg", {"Date": None}), ("png", {})):
                figure.savefig(options.out / f"{name}.{kind}", metadata=fixed)
                print(options.out / f"{name}.{kind}")
            plt.close(figure)


main()
