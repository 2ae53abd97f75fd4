#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""clang-format leaves every C file as it is. Other versions than 14 format differently."""

import re
import shutil
import subprocess
import sys

import tree

VERSION = 14


def find():
    """A clang-format of the right version, or None."""
    for name in (f"clang-format-{VERSION}", "clang-format"):
        if shutil.which(name):
            said = subprocess.run([name, "--version"], stdout=subprocess.PIPE, encoding="utf-8",
                                  check=True).stdout
            if re.search(rf"version {VERSION}\.", said):
                return name
    return None


clang_format = find()
if not clang_format:
    print(f"needs clang-format {VERSION}: apt-get install clang-format-{VERSION}")
    sys.exit(77)
sys.exit(subprocess.run([clang_format, "--dry-run", "-Werror", *tree.files(".c", ".h")],
                        cwd=tree.ROOT, check=False).returncode)
