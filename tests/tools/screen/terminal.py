#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The live view on a terminal of 80 columns and 24 rows, as the terminal shows it.

    terminal.py VIADUCT [PART OF A CASE'S NAME]
"""

import fcntl
import os
import re
import signal
import struct
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

# pylint: disable=wrong-import-position
import harness
from harness import Run, check, equal, test, test_each
from relay_ends import ADVISE, HEADER, RelayEnds

# Half a second: ten frames, more or less.
SHORT = ["--memory", "6M", "--vcpus", 0, "--max-bandwidth", "8M/s"]
# Until it is ended.
LONG = ["--memory", "64M", "--max-bandwidth", "4M/s"]

SEQUENCE = re.compile(r"\033\[(\??)([0-9;]*)([A-Za-z])")


class Terminal:
    """What a terminal shows when it is sent a text; fails at what it would not survive."""

    def __init__(self, columns=80, rows=24):
        self.columns, self.rows = columns, rows
        self.lines = [""]  # with all that has scrolled away
        self.row = self.column = 0
        self.cursor_shown, self.dressed = True, False
        self.drawn = False  # this line is one of a screen; a message may be longer
        self.widest = self.frames = 0

    def feed(self, text):
        while text:
            if text[0] == "\033":
                match = SEQUENCE.match(text)
                if not match:
                    check(len(text) < 16, f"an unknown sequence: {text[:16]!r}")
                    return text  # cut off in the middle
                self.sequence(*match.groups())
                text = text[match.end():]
            else:
                self.character(text[0])
                text = text[1:]
        return ""

    def character(self, c):
        if c == "\r":
            self.column = 0
        elif c == "\n":
            self.new_line()
            self.drawn = False
        else:
            check(c.isprintable(), f"a character that does not print: {c!r}")
            if self.column == self.columns:
                check(not self.drawn, f"a line that is too long: {self.lines[self.row]!r}")
                self.new_line()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[:self.column] + c + line[self.column + 1:]
            self.column += 1
            if self.drawn:
                self.widest = max(self.widest, self.column)

    def new_line(self):
        self.row += 1
        self.column = 0
        if self.row == len(self.lines):
            self.lines.append("")

    def sequence(self, private, numbers, final):
        if private:
            equal((numbers, final in "hl"), ("25", True), "the private mode that is set")
            self.cursor_shown = final == "h"
        elif final == "m":
            self.dressed = numbers not in ("", "0")
        elif final == "A":
            self.frames += 1
            self.row -= int(numbers or 1)
            check(self.row >= max(0, len(self.lines) - self.rows), "it goes above the window")
        elif final == "K":
            equal(numbers, "2", "what of a line is cleared")
            self.lines[self.row] = ""
            self.drawn = True
        elif final == "J":
            equal(numbers, "", "what of the window is cleared")
            del self.lines[self.row + 1:]
            self.lines[self.row] = self.lines[self.row][:self.column]
        else:
            check(False, f"an unknown sequence: {numbers}{final}")

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines)


def resize(fd, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Screen:
    """A run on a terminal, and what it has written there."""

    def __init__(self, *args, columns=80, rows=24, **env):
        self.master, slave = os.openpty()
        resize(slave, columns, rows)
        self.before = termios.tcgetattr(slave)
        self.size = columns, rows
        self.run = Run(*args, terminal=slave, env={"TERM": "xterm", "NO_COLOR": "", **env})
        self.slave = slave
        self.output = harness.Output(os.dup(self.master))

    def says(self, pattern, seconds=20):
        return self.output.wait(pattern, seconds)

    def ends(self, status):
        """It ends so, and leaves the terminal as it was. What stands there, as a Terminal."""
        self.run.ends(status)
        equal(termios.tcgetattr(self.slave), self.before, "the terminal's settings")
        os.close(self.slave)
        self.output.thread.join(10)
        return self.shown()

    def shown(self):
        terminal = Terminal(*self.size)
        terminal.feed(self.output.text)
        check(terminal.cursor_shown, "the cursor is hidden")
        check(not terminal.dressed, "a colour is left")
        equal(terminal.column, 0, "the column in which the cursor was left")
        return terminal


def count(terminal, text):
    return terminal.text().count(text)


# -- what is shown -------------------------------------------------------------------------


def check_screen(terminal):
    check(terminal.frames >= 3, f"drawn {terminal.frames} times only")
    check(terminal.widest <= 79, f"a line of {terminal.widest} columns")
    equal(count(terminal, "viaduct: source, to 127.0.0.1:"), 1, "the screens that are left")
    for word in ("remaining", "rate", "fence", "main ", "multifd 1", "ofi:tcp"):
        equal(len(re.findall(rf"\b{word}", terminal.text())), 1, f"how often it says {word}")
    check("done" in terminal.text(), "the last frame is not that of the end")
    check(len(terminal.lines) <= 22, f"{len(terminal.lines)} lines are left")


@test("a screen of 80 columns that is drawn in place, and is left as it was")
def _():
    screen = Screen("demo", *SHORT, "--json")
    terminal = screen.ends(0)
    check_screen(terminal)
    check("\033[32m" in screen.output.text, "no colour")
    screen.run.json()


@test("NO_COLOR: the same without colour")
def _():
    screen = Screen("demo", *SHORT, "--json", NO_COLOR="1")
    check_screen(screen.ends(0))
    check(not re.search(r"\033\[[1-9][0-9;]*m", screen.output.text), "a colour")


@test_each("a window of {} columns and {} rows: one line", [(79, 24), (80, 20), (40, 10)])
def _(columns, rows):
    screen = Screen("demo", *SHORT, "--json", columns=columns, rows=rows)
    screen.run.ends(0)
    os.close(screen.slave)
    screen.output.thread.join(10)
    text = screen.output.text
    check("\033[2K" not in text and "\033[?25l" not in text, "a screen")
    equal(text.replace("\r\n", "\n").count("\n"), 1, "the line breaks")
    check(text.count("\r") >= 3, "it is not written over")
    widest = max(len(SEQUENCE.sub("", line)) for line in re.split(r"[\r\n]+", text))
    check(widest < columns, f"a line of {widest} columns")


@test_each("{}: plain lines", ["TERM=dumb", "--verbose"])
def _(how):
    args, env = (["--verbose"], {}) if how[0] == "-" else ([], {"TERM": "dumb"})
    screen = Screen("demo", *SHORT, *args, "--json", **env)
    terminal = screen.ends(0)
    check("\033" not in screen.output.text, "an escape sequence")
    check(count(terminal, "precopy round 1:") >= 1, "no line")


@test("a window that becomes smaller, and larger again")
def _():
    screen = Screen("demo", *LONG, "--json")
    screen.says(r"remaining")
    at = len(screen.output.text)
    resize(screen.slave, 60, 24)
    screen.output.wait(r"\r(\033\[1m)?precopy(\033\[0m)? round", 20, after=at)
    at = len(screen.output.text)
    resize(screen.slave, 100, 40)
    screen.output.wait(r"remaining", 20, after=at)
    screen.run.kill(signal.SIGINT)
    screen.ends(1)


@test("messages stand above the screen")
def _():
    screen = Screen("demo", "--memory", "32M", "--dirty-rate", "unlimited", "--downtime-limit", "1us",
                    "--postcopy", "--pull-link", 2, "--json")
    text = screen.ends(0).text()
    equal(text.count("viaduct: the migration is paused:"), 2, "how often it says so")
    equal(len(re.findall(r"^  try: .*resumed as soon as that works", text, re.M)), 2, "the remedies")
    equal(text.count("viaduct: source, to"), 1, "the screens that are left")
    check(text.index("the migration is paused") < text.index("viaduct: source, to"), "it is below")


@test("both sides of a migration")
def _():
    destination = Screen("receive", "--listen", "127.0.0.1:0", "--json")
    address = destination.says(r"listening on (\S+)\r?\n").group(1)
    source = Run("send", "--peer", address, "--fabric", "ofi:tcp", *SHORT, "--json")
    text = destination.ends(0).text()
    source.ends(0)
    equal(text.count("viaduct: destination, at 127.0.0.1:0"), 1, "the screens that are left")
    check("done" in text, "the last frame is not that of the end")


@test("the relay's screen, and what it says above it")
def _():
    folder = harness.case.folder()
    screen = Screen("relay", "--role", "source", "--listen", f"unix:{folder}/s", "--peer",
                    harness.closed_port())
    screen.says("waits for QEMU")
    screen.run.kill(signal.SIGINT)
    text = screen.ends(1).text()
    equal(text.count("viaduct: relay, source, to"), 0, "the screens that are left")
    equal(text.count("listening on unix:"), 1, "how often it says where it listens")
    check("viaduct: wait for QEMU: ended by request" in text, "it does not say why it ends")


@test("the screen of a relay that carries something")
def _():
    ends = RelayEnds()
    screen = Screen(*ends.args)
    screen.says("listening on")
    ends.begin(HEADER + ADVISE)
    screen.says("carries a migration")
    screen.says("QEMU may switch to postcopy")
    screen.run.kill(signal.SIGINT)
    at = screen.says("SIGINT: QEMU may have switched to postcopy").end()
    screen.output.wait("carries a migration", 20, after=at)  # it comes again, below
    screen.run.kill(signal.SIGINT)
    text = screen.ends(1).text()
    equal(text.count("carries a migration"), 0, "the screens that are left")
    equal(text.count("SIGINT: QEMU may have switched to postcopy"), 1, "how often it says so")
    check("connections over ofi:tcp, control plain text" in screen.run.out.text, "no summary")


# -- signals --------------------------------------------------------------------------------


@test_each("{} leaves the terminal as it was", ["SIGINT", "SIGTERM"])
def _(name):
    screen = Screen("demo", *LONG, "--json")
    screen.says("remaining")
    screen.run.kill(getattr(signal, name))
    text = screen.ends(1).text()
    check("aborted by request" in text, "it does not say why")
    equal(screen.run.json()["result"], "aborted", "result")


@test_each("{}, which ends it at once, leaves the terminal as it was", ["SIGHUP", "SIGQUIT"])
def _(name):
    screen = Screen("demo", *LONG)
    screen.says("remaining")
    number = getattr(signal, name)
    screen.run.kill(number)
    equal(screen.run.wait(), -number, "what ended it")
    equal(termios.tcgetattr(screen.slave), screen.before, "the terminal's settings")
    os.close(screen.slave)
    screen.output.thread.join(10)
    screen.shown()


@test("SIGTSTP shows the cursor, and what comes then does not write over what is there")
def _():
    screen = Screen("demo", *LONG, "--json")
    screen.says("remaining")
    screen.run.kill(signal.SIGTSTP)  # no shell waits for it here: the system does not stop it
    at = screen.says(r"\033\[0m\033\[\?25h").end()
    screen.run.kill(signal.SIGCONT)
    screen.output.wait(r"\033\[\?25l\r\033\[2K", 20, after=at)  # from the column, not from above
    screen.run.kill(signal.SIGINT)
    screen.ends(1)


@test("a SIGHUP that was ignored stays so")
def _():
    master, slave = os.openpty()
    resize(slave, 80, 24)
    run = Run("demo", *LONG, "--json", terminal=slave, env={"TERM": "xterm"},
              before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.close(slave)
    output = harness.Output(master)
    output.wait("remaining", 20)
    run.kill(signal.SIGHUP)
    run.kill(signal.SIGINT)
    equal(run.ends(1).json()["result"], "aborted", "result")


sys.exit(harness.main(*sys.argv[1:]))
