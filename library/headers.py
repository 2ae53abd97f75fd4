#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The public headers as they are installed.

    headers.py DIRECTORY ROOT HEADER...

DIRECTORY, which is called viaduct, is made anew. A HEADER of ROOT/library goes to its top, any
other keeps its folder. Inside the tree headers include each other as "core/error.h"; once installed
that could be anybody's, so it becomes <viaduct/core/error.h>.
"""

import pathlib
import re
import shutil
import sys

OURS = re.compile(r'^#include "((?:core|transport|migrate)/[\w.]+)"', re.M)


def main():
    out, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    shutil.rmtree(out, ignore_errors=True)
    for header in sys.argv[3:]:
        path = pathlib.Path(header).resolve().relative_to(root)
        installed = out / (path.name if path.parts[0] == "library" else path)
        installed.parent.mkdir(parents=True, exist_ok=True)
        text = (root / path).read_text(encoding="utf-8")
        installed.write_text(OURS.sub(r"#include <viaduct/\1>", text), encoding="utf-8")


main()
