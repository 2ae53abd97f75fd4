# SPDX-License-Identifier: BSD-2-Clause
"""What every lint script needs: the files of the project, and C text without its comments."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _all_files():
    """Relative paths of all files that belong to the project, build directories left out."""
    if (ROOT / ".git").exists():
        git = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if git.returncode == 0:
            return git.stdout.decode().split("\0")[:-1]
    found = []
    for folder, folders, names in os.walk(ROOT):
        here = pathlib.Path(folder)
        folders[:] = [f for f in folders if f not in (".git", ".cache")
                      and not (here / f / "meson-private").exists()]
        found += [str((here / name).relative_to(ROOT)) for name in names]
    return found


def files(*suffixes):
    """Relative paths of the project's files, those with one of @suffixes if any is given."""
    return sorted(f for f in set(_all_files())
                  if (not suffixes or f.endswith(suffixes)) and (ROOT / f).is_file())


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.S)


def tokens(text):
    """Strings and comments of C text, as (offset, text)."""
    return [(m.start(), m.group()) for m in _TOKEN.finditer(text)]


def without_comments(text, strings=True):
    """C text with its comments (and the strings, if not wanted) blank; lines stay in place."""
    def blank(match):
        token = match.group()
        if token[0] in "\"'":
            return token if strings else token[0] + " " * (len(token) - 2) + token[0]
        return re.sub(r"[^\n]", " ", token)
    return _TOKEN.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def finish(problems):
    """Print what is wrong, one line each, and end with the status that says so."""
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)
