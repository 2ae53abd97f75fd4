#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Every installed header compiles alone, as C and as C++.

    headers.py DIRECTORY COMPILER... -- C++-COMPILER...

DIRECTORY is the installed `viaduct`. Nothing but the system's headers is in reach, and no macro is
set: what a header takes from elsewhere in the tree shows. Compilers that are not here are left out.
"""

import pathlib
import shutil
import subprocess
import sys

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
C = ["-std=c11", "-Wstrict-prototypes", "-Wmissing-prototypes", "-x", "c"]
CXX = ["-std=c++11", "-x", "c++"]


def main():
    split = sys.argv.index("--")
    folder = pathlib.Path(sys.argv[1]).resolve()
    compilers = [(c, C) for c in sys.argv[2:split]] + [(c, CXX) for c in sys.argv[split + 1:]]
    compilers = [(c, flags) for c, flags in compilers if shutil.which(c)]
    if not compilers:
        print("no compiler is here: scripts/setup")
        sys.exit(77)
    headers = sorted(folder.rglob("*.h"))
    failed = not headers
    for header in headers:
        name = header.relative_to(folder.parent)
        for compiler, flags in compilers:
            run = subprocess.run(
                [compiler, *flags, *WARNINGS, "-I", folder.parent, "-"],
                input=f"#include <{name}>\n" * 2, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, encoding="utf-8", check=False)
            if run.returncode:
                print(f"{name}: does not compile alone with {compiler}:\n{run.stderr}")
                failed = True
    print(f"{len(headers)} headers, {' '.join(c for c, _ in compilers)}")
    sys.exit(failed)


main()
