#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Every public function and type is documented, and has its manual page.

    man.py ROOT DIRECTORY HEADER...

The comments: a summary of one sentence; what is returned; each error with its cause, where there is
a struct via_error; no parameter that there is not. The pages: what the comment says is in them, and
mandoc and groff, as far as they are here, find nothing wrong.
"""

import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "library"))
import api  # pylint: disable=wrong-import-position

SUMMARY_MAX = 100
FUNCTION_SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "RETURN VALUE", "THREADS", "SEE ALSO"]


def comment_problems(item, known):
    comment = item.comment
    if not comment:
        yield "has no comment"
        return
    if not re.fullmatch(r".{8,%u}[.?]" % SUMMARY_MAX, comment.summary):
        yield f"its summary is no sentence of at most {SUMMARY_MAX} characters: {comment.summary}"
    if item.kind != "function":
        return
    unknown = set(re.findall(r"@(\w+)", comment.text())) - known
    if unknown:
        yield f"names {', '.join(sorted(unknown))}, which is no parameter"
    if not (item.returns_nothing() or comment.returns or
            (item.returns_code() and comment.errors)):
        yield "does not say what it returns"
    if ("struct via_error *err)" in item.code and item.name != "via_session_failure" and
            not comment.errors):
        yield "does not say which errors there are"
    for tag, text in comment.errors:
        codes = re.split(r", ", tag)
        if not text or not (tag == "else" or all(re.fullmatch(r"-E[A-Z]+", c) for c in codes)):
            yield f"an error is not `-CODE  cause`: {tag}"


def parameters(items):
    """Of all functions that share a comment: the identifiers in their prototypes."""
    found = {}
    for item in items:
        found.setdefault(id(item.comment), set()).update(re.findall(r"\w+", item.code))
    return found


def rendered(page):
    """The page as a reader sees it, without its fonts."""
    text = re.sub(r"\\f.|\\&", "", page).replace("\\-", "-").replace("\\e", "\\")
    return text.replace("\\(ha", "^").replace("\\(ti", "~")


def page_problems(item, folder):
    path = folder / f"{item.name}.3"
    if not path.is_file():
        yield "has no page"
        return
    page = path.read_text(encoding="utf-8")
    link = re.fullmatch(r"\.so man3/(\w+)\.3\n", page)
    if link:
        page = (folder / f"{link.group(1)}.3").read_text(encoding="utf-8")
    text = rendered(page)
    wanted = [f"#include <viaduct/{item.header}>", item.code.expandtabs(8)]
    if item.kind == "function":
        wanted += [f"\n.SH {section}\n" for section in FUNCTION_SECTIONS]
        wanted += ["\n.SH ERRORS\n"] if item.comment.errors else []
    wanted += [tag for tag, _ in item.comment.errors if tag != "else"]
    wanted += [re.sub(r"[@`]", "", s) for s in [item.comment.summary, *item.comment.returns]]
    for part in wanted:
        if part not in text:
            yield f"its page lacks: {part.strip()}"
    if item.name not in re.search(r"\.SH NAME\n(.*) \\- ", page).group(1).split(", "):
        yield "is not in its page's NAME"


def formatter_problems(folder):
    pages = [p for p in sorted(folder.glob("*.3"))
             if not p.read_text(encoding="utf-8").startswith(".so ")]
    commands = [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-ww", "-z", "-man", "-Tutf8"]]
    for command in commands:
        if not shutil.which(command[0]):
            print(f"{command[0]} is not here: not asked")
            continue
        run = subprocess.run(command + pages, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             encoding="utf-8", check=False)
        yield from run.stdout.split("\n")[:-1]


def main():
    root, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    headers = api.read(root, sys.argv[3:])
    items = [i for h in headers for i in h.items if i.kind != "constant"]
    known = parameters(items)
    problems = [f"{h.path}: no paragraph that begins with Threads:" for h in headers
                if not h.threads]
    for item in items:
        wrong = list(comment_problems(item, known[id(item.comment)]))
        wrong += page_problems(item, folder) if item.comment else []
        problems += [f"{item.header}: {item.name} {text}" for text in wrong]
    if not (folder / "libviaduct.3").is_file():
        problems.append("there is no libviaduct(3)")
    problems += formatter_problems(folder)
    for problem in problems:
        print(problem)
    print(f"{len(items)} functions and types")
    sys.exit(1 if problems else 0)


main()
