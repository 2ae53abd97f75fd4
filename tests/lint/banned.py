#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""No // comments, and no call of a function that is wrong or unsafe however it is used."""

import re

import tree

BANNED = {
    "strcpy": "snprintf", "strcat": "snprintf", "stpcpy": "snprintf", "strncpy": "snprintf",
    "strncat": "snprintf", "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "getline",
    "atoi": "strtol", "atol": "strtol", "atoll": "strtoll", "atof": "strtod",
    "strtok": "strchr or strspn", "alloca": "malloc or an array of fixed size",
}
CALL = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")

problems = []
for path in tree.files(".c", ".h"):
    text = tree.read(path)
    for offset, token in tree.tokens(text):
        if token.startswith("//"):
            problems.append(f"{path}:{tree.line_of(text, offset)}: a // comment")
    code = tree.without_comments(text, strings=False)
    for m in CALL.finditer(code):
        problems.append(f"{path}:{tree.line_of(code, m.start())}: "
                        f"{m.group(1)}() is banned, use {BANNED[m.group(1)]}")
tree.finish(problems)
