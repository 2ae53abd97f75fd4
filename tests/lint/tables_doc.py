#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The tables of a document are those that the generator writes.

    tables_doc.py [--write] GENERATOR {NAME FILE}...

The table NAME stands in FILE between the lines `<!-- NAME: generated... -->` and `<!-- end -->`.
"""

import difflib
import pathlib
import re
import subprocess
import sys


def main():
    args = sys.argv[1:]
    write = args[0] == "--write"
    generator, *pairs = args[write:]
    wrong = 0
    for name, file in zip(pairs[::2], pairs[1::2]):
        path = pathlib.Path(file)
        text = path.read_text(encoding="utf-8")
        found = re.search(rf"(<!-- {name}: generated[^\n]*-->\n)(.*?)(<!-- end -->)", text, re.S)
        if not found:
            sys.exit(f"{file}: no place for the table {name}")
        table = subprocess.run([generator, name], stdout=subprocess.PIPE, encoding="utf-8",
                               check=True).stdout
        if write:
            path.write_text(text[:found.start(2)] + table + text[found.end(2):], encoding="utf-8")
        elif table != found.group(2):
            wrong = 1
            sys.stdout.writelines(difflib.unified_diff(
                found.group(2).splitlines(True), table.splitlines(True), file, "the program"))
            print(f"{file}: not what the program has: meson compile -C build-test tables-doc")
    return wrong


sys.exit(main())
