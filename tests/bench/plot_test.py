#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""bench/plot.py: that each picture is made, is one, and says what it has to.

    plot_test.py VIADUCT     which is not run
"""
import importlib.util
import json
import pathlib
import sys
import xml.etree.ElementTree

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
import results
from harness import Skip, check, equal, test

PNG = b"\x89PNG\r\n\x1a\n"
MIGRATE = "migrate-ofi-shm-mib-64-dirty-mib-s-16-channels-2-postcopy-0"


def plot(*files):
    """The folder with the pictures of these results."""
    if not importlib.util.find_spec("matplotlib"):
        raise Skip("no matplotlib for /usr/bin/python3: scripts/setup (python3-matplotlib)")
    folder = pathlib.Path(harness.case.folder())
    paths = []
    for number, value in enumerate(files):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(json.dumps(value), encoding="utf-8")
    status, out, said = results.run("plot.py", *paths, "--out", folder / "out")
    equal((status, said), (0, ""), "status and stderr")
    made = sorted(str(p) for p in (folder / "out").iterdir())
    equal(sorted(out.split()), made, "what it says to have made")
    return folder / "out"


def words(path):
    """All text in a picture."""
    root = xml.etree.ElementTree.parse(path).getroot()
    return " ".join("".join(node.itertext()).strip() for node in root.iter()
                    if node.tag.endswith("}text"))


def rows(*names):
    return results.changed(lambda result: result.update(
        rows=[row for row in result["rows"] if row["row"] in names]))


@test("every picture, as SVG and as PNG")
def _():
    folder = plot(results.recorded())
    equal(sorted(p.name for p in folder.iterdir()),
          sorted(f"{name}.{kind}" for name in ("bandwidth", "latency", "engine", MIGRATE)
                 for kind in ("svg", "png")), "the files")
    for path in folder.glob("*.png"):
        check(path.read_bytes().startswith(PNG), f"{path.name} is no PNG")


@test("bandwidth names its fabrics, sizes and unit")
def _():
    text = words(plot(rows("bandwidth")) / "bandwidth.svg")
    for word in ("ofi:tcp", "ucx:shm", "bare loop", "4 KiB", "1 MiB", "GiB/s"):
        check(word in text, f"{word} is not in: {text}")


@test("results of several files are drawn together")
def _():
    def only(fabric):
        return results.changed(lambda result: result.update(
            rows=[r for r in result["rows"] if (r["row"], r["fabric"]) == ("bandwidth", fabric)]))
    text = words(plot(only("ofi:tcp"), only("ucx:shm")) / "bandwidth.svg")
    check("ofi:tcp" in text and "ucx:shm" in text, text)


@test("latency goes to the maximum")
def _():
    text = words(plot(rows("latency")) / "latency.svg")
    for word in ("p50", "p99.9", "max", "ofi:tcp", "us"):
        check(word in text, f"{word} is not in: {text}")


@test("a migration names its phases")
def _():
    text = words(plot(rows("migrate")) / f"{MIGRATE}.svg")
    for word in ("set-up", "precopy", "switch-over", "GiB still to come", "sent", "ofi:shm"):
        check(word in text, f"{word} is not in: {text}")


@test("equal results make equal files")
def _():
    one, other = plot(results.recorded()), plot(results.recorded())
    for path in one.glob("*.svg"):
        equal(path.read_bytes() == (other / path.name).read_bytes(), True, path.name)


@test("results with nothing to draw make no picture")
def _():
    equal(list(plot(rows("setup")).iterdir()), [], "the files")


@test("a file that is no result")
def _():
    plot(rows())  # or this is skipped
    for content in ("", "[]", '{"rows": 1}'):
        path = pathlib.Path(harness.case.folder()) / "wrong.json"
        path.write_text(content, encoding="utf-8")
        status, _, said = results.run("plot.py", path, "--out", path.parent)
        equal(status, 1, "the status")
        check("wrong.json" in said and "Traceback" not in said, said)


sys.exit(harness.main(*sys.argv[1:]))
