#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Every header compiles alone, and twice, with every compiler that is here.

    headers_alone.py COMPILER...
"""

import re
import shutil
import subprocess
import sys

import tree

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
         "-fsyntax-only", "-x", "c", f"-I{tree.ROOT}"]


def missing_library(stderr):
    """A fabric's header needs its library; without it, the fabric is not built either."""
    return re.search(r"fatal error: '?((infiniband|rdma|ucp|uct|ucs)/\S+\.h)", stderr)


def main():
    problems, compilers = [], [cc for cc in sys.argv[1:] if shutil.which(cc)]
    if not compilers:
        print("no compiler of " + " ".join(sys.argv[1:]) + " is here: scripts/setup")
        sys.exit(77)
    for path in tree.files(".h"):
        for compiler in compilers:
            run = subprocess.run([compiler, *FLAGS, "-"], input=f'#include "{path}"\n' * 2,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 encoding="utf-8", check=False)
            if run.returncode and not (path.startswith("fabrics/") and
                                       missing_library(run.stderr)):
                problems.append(f"{path}: does not compile alone with {compiler}:\n{run.stderr}")
    tree.finish(problems)


main()
