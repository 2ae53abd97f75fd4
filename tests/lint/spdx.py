#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Every source and script names its licence at the top."""

import tree

SUFFIXES = (".c", ".h", ".py", ".sh", ".pml", "meson.build", "meson_options.txt", ".clang-format")


def is_source(path, head):
    return path.endswith(SUFFIXES) or head.startswith("#!")


problems = []
for path in tree.files():
    with open(tree.ROOT / path, "rb") as f:
        head = f.read(200).decode(errors="replace")
    if is_source(path, head) and not any(
            "SPDX-License-Identifier: BSD-2-Clause" in line for line in head.split("\n")[:2]):
        problems.append(f"{path}: no SPDX-License-Identifier in the first two lines")
tree.finish(problems)
