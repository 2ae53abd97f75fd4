#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What the documents name is there: links, headings, files, scripts and the program's options.

    docs.py [VIADUCT]     without the program its commands and options are not looked at
"""

import functools
import os
import re
import subprocess
import sys

import tree

FENCE = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
CODE = re.compile(FENCE.pattern + r"|(?<!`)`[^`\n]+(?:\n[^`\n]+)*`(?!`)", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.M)
PATH = re.compile(r"(?<![\w./-])([\w.]+/[\w./-]*\w)")
SCRIPT = re.compile(r"(?<![\w/-])(?:scripts|\.ci)/[\w-]+")
# A command and what follows it, up to what ends it in a shell or in a sentence.
COMMAND = re.compile(r"(?:^|[\s`/])(viaduct [a-z-]+|scripts/[\w-]+)((?:\\\n|[^\n`|;&#])*)", re.M)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Whose home it was, or where it was mounted, nobody else knows.
ABSOLUTE = re.compile(r"(?:^|[\s`'\"(=])(/[\w.-]+)/", re.M)
SYSTEM = {"/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr", "/var"}


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


@functools.lru_cache(maxsize=None)
def anchors(path):
    """The anchors that a forge makes of the headings of @path."""
    found = set()
    for heading in HEADING.findall(FENCE.sub(blank, tree.read(path))):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        same = sum(1 for a in found if re.fullmatch(re.escape(name) + r"(-\d+)?", a))
        found.add(f"{name}-{same}" if same else name)
    return found


def check_links(path, text):
    for m in LINK.finditer(CODE.sub(blank, text)):
        target, _, anchor = m.group(1).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        if not (tree.ROOT / file).exists():
            yield m.start(), f"{m.group(1)}: no such file"
        elif anchor and anchor not in anchors(file):
            yield m.start(), f"{m.group(1)}: no such heading"


def check_files(_path, text):
    """Paths below the project's folders; a name in capitals stands for any."""
    folders = {f.split("/")[0] for f in tree.files() if "/" in f}
    for code in CODE.finditer(text):
        for m in PATH.finditer(code.group()):
            parts = m.group(1).split("/")
            if parts[0] in folders and not any(p.isupper() for p in parts) and not (
                    tree.ROOT / m.group(1)).exists():
                yield code.start() + m.start(), f"{m.group(1)}: no such file"


def check_scripts(_path, text):
    for m in SCRIPT.finditer(text):
        if not os.access(tree.ROOT / m.group(), os.X_OK):
            yield m.start(), f"{m.group()}: no such script"


def check_paths(_path, text):
    for m in ABSOLUTE.finditer(text):
        if m.group(1) not in SYSTEM:
            yield m.start(), f"{m.group(1)}/: a path of one machine"


@functools.lru_cache(maxsize=None)
def options_of(viaduct, command):
    """The options of "viaduct send" or "scripts/test"; none when there is no such command."""
    first, *rest = command.replace("scripts/demo", "viaduct demo").split()
    if first != "viaduct":
        return OPTION.findall(tree.read(first)) if (tree.ROOT / first).is_file() else []
    run = subprocess.run([viaduct, *rest, "--help"], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, encoding="utf-8", check=False)
    return OPTION.findall(run.stdout) if run.returncode == 0 else []


def check_commands(viaduct, _path, text):
    for code in CODE.finditer(text):
        for m in COMMAND.finditer(code.group()):
            command, rest = m.groups()
            known = options_of(viaduct, command)
            if command.startswith("viaduct") and not known:
                yield code.start() + m.start(1), f"{command}: no such command"
                continue
            for option in OPTION.findall(rest.partition(" -- ")[0]):
                if option not in known:
                    yield code.start() + m.start(1), f"{command} {option}: no such option"


def main():
    checks = [check_links, check_files, check_scripts, check_paths]
    if len(sys.argv) > 1:
        checks.append(functools.partial(check_commands, sys.argv[1]))
    problems = []
    for path in tree.files(".md"):
        text = tree.read(path)
        problems += [f"{path}:{tree.line_of(text, offset)}: {wrong}"
                     for check in checks for offset, wrong in check(path, text)]
    tree.finish(problems)


main()
