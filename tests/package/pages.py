#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The manual pages as they were built, and `viaduct help`: they say what the program has, all of
it and nothing else.

    pages.py VIADUCT FOLDER-WITH-PAGES
"""

import functools
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
from harness import Run, Skip, check, equal, test  # pylint: disable=wrong-import-position

SOURCES = HERE.parents[2] / "docs" / "man"
FOLDER = pathlib.Path(sys.argv[2])
PAGES = {page.name: page for page in FOLDER.glob("viaduct*.[17]")}
OPTION = re.compile(r"^  --([\w-]+)(?: (\S+))?(?: |$)", re.M)


@functools.lru_cache(maxsize=None)
def said(*args):
    return subprocess.run([harness.binary, *args], stdout=subprocess.PIPE, check=True,
                          encoding="utf-8", timeout=60).stdout


def commands():
    return re.findall(r"^  ([\w-]+) ", said("help").split("\n\n")[2], re.M)


def topics():
    return re.findall(r"^  ([\w-]+) ", said("help").split("\n\n")[4], re.M)


def options(command):
    """[(name, value)] of the command's help."""
    return OPTION.findall(said(command, "--help"))


def text(page):
    """The page's text without roff: one line for each that it has there."""
    plain = re.sub(r"\\f[BIRP]", "", page.read_text(encoding="utf-8"))
    return plain.replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "").replace("\\e", "\\")


def section(page, name):
    match = re.search(rf"^\.SH {name}\n(.*?)(?=^\.SH |\Z)", text(page), re.M | re.S)
    check(match, f"{page.name} has no {name}")
    return match[1]


@test("each command has a page, each page of section 1 a command")
def _():
    equal(sorted(name for name in PAGES if name.endswith(".1")),
          sorted(["viaduct.1"] + [f"viaduct-{command}.1" for command in commands()]), "the pages")


@test("each topic has a page of section 7, each such page a topic")
def _():
    equal(sorted(name for name in PAGES if name.endswith(".7")),
          sorted(f"viaduct-{topic}.7" for topic in topics()), "the pages")


@test("a page has the options of --help, with their values, and no other")
def _():
    for command in commands():
        page = PAGES[f"viaduct-{command}.1"]
        found = re.findall(r"^--([\w-]+)(?: (\S+))?$", section(page, "OPTIONS"), re.M)
        equal(found, options(command), f"OPTIONS of {page.name}")


@test("options.txt tells more of options that there are")
def _():
    known = {command: {name for name, _ in options(command)} for command in commands()}
    more = (SOURCES / "options.txt").read_text(encoding="utf-8")
    for name, of in re.findall(r"^--([\w-]+)(?: \((.*)\))?$", more, re.M):
        for command in of.split(", ") if of else [None]:
            check(command is None or command in known, f"--{name} of {command}: no such command")
            check(any(name in known[c] for c in known if command in (None, c)),
                  f"--{name} of {command or 'any command'}: no such option")


@test("what pages refer to, and the commands that they show, are there")
def _():
    known = {command: {name for name, _ in options(command)} for command in commands()}
    for page in PAGES.values():
        for name, number in re.findall(r"(viaduct[\w-]*)\((\d)\)", text(page)):
            check(f"{name}.{number}" in PAGES, f"{page.name}: {name}({number}) is not there")
        for before in re.findall(r"(.)\n +--", text(page)):
            equal(before, "\\", f"{page.name}: what ends a line that goes on")
        for command, rest in re.findall(r"^viaduct ([a-z][a-z-]*) ((?:.*\\\n)*.*)$", text(page), re.M):
            if command == "help":
                continue
            check(command in known, f"{page.name}: viaduct {command}: no such command")
            for option in re.findall(r"(?<!\S)--([\w-]+)", rest):
                check(option in known[command], f"{page.name}: viaduct {command} --{option}")


@test("each key of `viaduct help fabrics` is in viaduct-fabrics(7)")
def _():
    page = section(PAGES["viaduct-fabrics.7"], "KEYS")
    for key in re.findall(r"^  ([\w-]+=\S+)$", said("help", "fabrics"), re.M):
        check(f"\n{key}\n" in page, f"no {key}")


@test("man(1) has nothing to say against the pages")
def _():
    if not shutil.which("man"):
        raise Skip("no man. Try: apt-get install man-db")
    for page in PAGES.values():
        run = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
        equal((run.returncode, run.stderr), (0, ""), f"what man says of {page.name}")


def help_on_terminal(topic, man):
    """What `viaduct help @topic` writes to a terminal, with @man in the place of man(1)."""
    folder = harness.case.folder()
    path = pathlib.Path(folder, "man")
    path.write_text("#!/bin/sh\n" + man, encoding="utf-8")
    path.chmod(0o755)
    master, slave = pty.openpty()
    run = subprocess.Popen([harness.binary, "help", topic], stdin=subprocess.DEVNULL, stdout=slave,
                           stderr=slave, env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"})
    os.close(slave)
    output = harness.Output(master)
    equal(run.wait(20), 0, "the exit status")
    output.thread.join(5)
    return output.text.replace("\r\n", "\n")


@test("help on a terminal shows the page, where it is installed")
def _():
    equal(help_on_terminal("relay", 'echo "man $*"'), "man 1 viaduct-relay\n", "what is shown")
    equal(help_on_terminal("fabrics", 'echo "man $*"'), "man 7 viaduct-fabrics\n", "what is shown")


@test("help on a terminal without the page, and elsewhere, is text")
def _():
    for name in ["relay", "errors"]:
        equal(help_on_terminal(name, "echo nothing >&2; exit 16"), said("help", name), "what is shown")
    equal(said("help", "relay"), said("relay", "--help"), "help of a command")


@test("help of what is not there")
def _():
    run = Run("help", "nosuch").ends(2)
    equal(run.error(), ("help nosuch: no such topic", "see `viaduct help`"), "the error")


@test("texts of topics fit 80 columns")
def _():
    for topic in topics():
        for line in said("help", topic).split("\n"):
            check(len(line) <= 80, f"{len(line)} columns: {line}")


sys.exit(harness.main(sys.argv[1], *sys.argv[3:]))
