#!/usr/bin/python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""bench/report.py: the page and the pictures that it makes of results that are there.

    report_test.py VIADUCT     which is not run
"""
import importlib.util
import pathlib
import re
import shutil
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
import results
from harness import Skip, check, equal, test


def report():
    """The folder of a report of what was recorded, and the text of its page."""
    if not importlib.util.find_spec("matplotlib"):
        raise Skip("no matplotlib for /usr/bin/python3: scripts/setup (python3-matplotlib)")
    folder = pathlib.Path(harness.case.folder())
    shutil.copy(results.RECORDED, folder / "recorded.json")
    status, _, said = results.run("report.py", "nowhere", "--no-measure", "--out", folder)
    equal((status, said), (0, ""), "status and stderr")
    return folder, (folder / "loopback.md").read_text(encoding="utf-8")


@test("a table for each row, the machine, and what the bare loops are")
def _():
    _, text = report()
    for words in ("| size 1048576, channels 1 | `ofi:tcp` | 3.1 (3.01 to 3.2) |", "Linux 6.1.0",
                  "libfabric 1.17.0", "fi_write, 64 in flight", "## Whole migrations",
                  "## The CPU time of both sides in it", "## Targets", "met     ofi:tcp"):
        check(words in text, f"{words} is not in: {text}")


@test("every picture that the page shows is there")
def _():
    folder, text = report()
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    equal(len(shown), 4, "the number of pictures")
    for name in shown:
        check((folder / name).is_file(), f"{name} is not there")


@test("nothing there, nothing made")
def _():
    status, _, said = results.run("report.py", "nowhere", "--no-measure", "--out",
                                  harness.case.folder())
    check(status and "nothing in" in said and "Traceback" not in said, said)


sys.exit(harness.main(*sys.argv[1:]))
