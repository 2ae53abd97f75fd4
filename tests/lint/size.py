#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Functions fit on a screen and files hold one subject.

19 of 20 functions have at most 50 lines from brace to brace, for the project and for
its tests apart, and no file has more than 800 lines.
"""

import tree

FUNCTION_P95_MAX = 50
FILE_MAX = 800


def functions(path):
    """(lines, where) of each function: in our format its braces alone stand in column 0."""
    found, start = [], None
    for number, line in enumerate(tree.read(path).split("\n"), 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            found.append((number - start + 1, f"{path}:{start}"))
            start = None
    return found


def main():
    problems = []
    for path in tree.files(".c", ".h", ".py", ".sh", "scripts/test", "scripts/setup", ".ci/run"):
        lines = tree.read(path).count("\n")
        if lines > FILE_MAX:
            problems.append(f"{path}: {lines} lines, at most {FILE_MAX} are allowed")

    sources = tree.files(".c", ".h")
    for kind, paths in (("project", [p for p in sources if not p.startswith("tests/")]),
                        ("tests", [p for p in sources if p.startswith("tests/")])):
        sizes = sorted(f for path in paths for f in functions(path))
        if not sizes:
            continue
        p95 = sizes[(len(sizes) * 95 + 99) // 100 - 1][0]
        print(f"{kind}: {len(sizes)} functions, p95 {p95} lines, longest {sizes[-1][0]}")
        if p95 > FUNCTION_P95_MAX:
            problems.append(f"{kind}: p95 is {p95} lines, at most {FUNCTION_P95_MAX} are allowed;"
                            " the longest functions:")
            problems += [f"  {where}: {lines} lines"
                         for lines, where in reversed(sizes) if lines > FUNCTION_P95_MAX]
    tree.finish(problems)


main()
