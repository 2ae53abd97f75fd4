#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Who may include whom.

A folder includes itself and the folders below it, never up and never sideways. A fabric
library's headers appear in that fabric's own folder only, and what lies above fabrics/
asks no fabric for its name.
"""

import re

import tree

# Folders of one row do not include each other; a row includes the rows after it.
ROWS = [["tests"], ["tools"], ["bench"], ["relay", "demo", "library"], ["migrate"], ["transport"], ["fabrics"],
        ["core"]]
LEVEL = {folder: len(ROWS) - i for i, row in enumerate(ROWS) for folder in row}

# The first match decides. libfabric and librdmacm share <rdma/...>.
LIBRARIES = [
    (r"infiniband/", "fabrics/verbs/"),
    (r"rdma/rdma_", "fabrics/verbs/"),
    (r"rdma/", "fabrics/ofi/"),
    (r"(ucp|uct|ucs)/", "fabrics/ucx/"),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
FABRICS = r"(?:verbs|ofi|ucx|sim|fault)"
BY_NAME = re.compile(
    r'\b(?:str\w*cmp|strstr|via_fabric_find)\s*\([^;{]*"' + FABRICS + r'[":,+]'
    r"|^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b[^\n]*\b\w*HAVE_(?:VERBS|OFI|UCX|SIM|FAULT)\b", re.M)


def quoted(path, name):
    """What is wrong with `#include "name"` in @path, or None."""
    if not (tree.ROOT / name).is_file():
        return "is not a file seen from the project's root"
    here, there = path.split("/"), name.split("/")
    if LEVEL[there[0]] > LEVEL[here[0]]:
        return f"{here[0]}/ lies below {there[0]}/"
    if LEVEL[there[0]] == LEVEL[here[0]] and there[0] != here[0]:
        return f"{here[0]}/ and {there[0]}/ lie side by side"
    if there[0] == "fabrics" and len(there) > 2:
        own = here[:2] == there[:2]
        lists_all = re.fullmatch(r"fabrics/[^/]+\.c", path)
        if not (own or lists_all or here[0] == "tests"):
            return "belongs to one fabric alone"
    return None


def library(path, name):
    """What is wrong with `#include <name>` in @path, or None."""
    for pattern, folder in LIBRARIES:
        if re.match(pattern, name):
            baseline = f"bench/bare_{folder.split('/')[1]}"
            if path.startswith(folder) or re.fullmatch(baseline + r"(_\w+)?\.c", path):
                return None
            return f"may be included in {folder} and {baseline}*.c only"
    return None


def main():
    problems = []
    for path in tree.files(".c", ".h"):
        if path.split("/")[0] not in LEVEL:
            continue
        text = tree.read(path)
        code = tree.without_comments(text)
        for m in INCLUDE.finditer(code):
            wrong = (quoted if m.group(1) == '"' else library)(path, m.group(2))
            if wrong:
                problems.append(f"{path}:{tree.line_of(code, m.start())}: {m.group(2)}: {wrong}")
        if path.split("/")[0] not in ("core", "fabrics", "tests"):
            for m in BY_NAME.finditer(code):
                problems.append(f"{path}:{tree.line_of(code, m.start())}: "
                                "a condition names a fabric")
    tree.finish(problems)


main()
