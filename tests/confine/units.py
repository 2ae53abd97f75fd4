#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The relay's unit for systemd: systemd takes it, it exposes no more than it did, and what the
sample of its configuration says is there.

    units.py VIADUCT UNIT CONFIGURATION
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
from harness import Run, Skip, check, equal, test

EXPOSURE = 18  # tenths, as systemd 252 counts; docs/threat-model.md has it
UNIT, CONFIGURATION = sys.argv[2:4]


def analyze(*args):
    """systemd-analyze, of an instance of the unit that starts the program as it was built."""
    if not shutil.which("systemd-analyze"):
        raise Skip("needs systemd-analyze: apt-get install systemd")
    with open(UNIT, encoding="utf-8") as f:
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={harness.binary}", f.read(), flags=re.M)
    path = os.path.join(harness.case.folder(), "viaduct-relay@test.service")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return subprocess.run(["systemd-analyze", "--no-pager", *args, path], check=False,
                          capture_output=True, text=True)


@test("systemd takes the unit without a word")
def _():
    run = analyze("--man=no", "verify")
    equal((run.returncode, run.stdout + run.stderr), (0, ""), "what systemd-analyze verify says")


@test("the unit exposes no more than it did")
def _():
    run = analyze("--offline=yes", f"--threshold={EXPOSURE}", "security")
    if "offline" in run.stderr:
        raise Skip("needs systemd-analyze of systemd 250 or later")
    level = re.search(r"Overall exposure level.*?: ([\d.]+)", run.stdout)
    check(level, run.stdout + run.stderr)
    print(f"# exposure {level.group(1)}")
    equal(run.returncode, 0, f"the status, with an exposure of {level.group(1)}")


@test("what the sample configuration passes is in the help")
def _():
    with open(CONFIGURATION, encoding="utf-8") as f:
        text = re.sub(r"\\\n#?", "", f.read())
    lines = re.findall(r"^#?OPTIONS=(.*)", text, re.M)
    equal(len(lines), 2, "the number of samples")
    known = Run("relay", "--help").ends(0).out.text
    for option in re.findall(r"--[a-z-]+", " ".join(lines)):
        check(f"  {option} " in known, f"no {option} in the help of relay")


sys.exit(harness.main(sys.argv[1]))
