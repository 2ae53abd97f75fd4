#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What a shell completes: commands, options, and values of each kind that the options take.

    completion.py VIADUCT
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
from harness import Failure, Skip, check, equal, test  # pylint: disable=wrong-import-position

SCRIPTS = HERE.parents[2] / "dist" / "completion"
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"

# Values that nothing can be offered for, in any shell.
FREE = {"N", "R", "S", "SIZE", "RATE", "TIME", "ROUNDS", "NAME", "PATTERN", "CASE",
        "[HOST:]PORT"}

# readline hands over words divided at these, too.
BASH = """
. {library} && . {script}/viaduct.bash || exit
complete -p viaduct >&2
compopt() {{ :; }}
words=("$@") line=$LINE
COMP_WORDS=("${{words[@]}}") COMP_CWORD=$(($# - 1)) COMP_LINE=$line COMP_POINT=${{#line}}
COMP_TYPE=9 COMP_KEY=9
_viaduct viaduct "${{words[-1]}}" "${{words[-2]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def environment(**more):
    path = f"{os.path.dirname(harness.binary)}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **more}


def bash(line):
    """What bash offers at the end of @line."""
    if not os.path.exists(BASH_COMPLETION):
        raise Skip("no bash-completion. Try: apt-get install bash-completion")
    words = re.findall(r"[=:]+|[^\s=:]+", line)
    if line.endswith((" ", "=", ":")):
        words.append("")
    run = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(library=BASH_COMPLETION, script=SCRIPTS), "bash", *words],
        env=environment(LINE=line), cwd=harness.case.folder(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False)
    equal(run.stderr, "complete -F _viaduct viaduct\n", "what bash says")
    return [word.strip() for word in run.stdout.split("\n") if word]


def offers(line, *wanted):
    equal(sorted(bash(line)), sorted(wanted), f"what `{line}` is completed with")


@functools.lru_cache(maxsize=None)
def said(*args):
    return subprocess.run([harness.binary, *args], stdout=subprocess.PIPE, check=True,
                          encoding="utf-8", timeout=60).stdout


def commands():
    return re.findall(r"^  ([\w-]+) ", said("help").split("\n\n")[2], re.M)


def fabrics():
    return re.findall(r"^(\S+) +yes ", said("fabrics"), re.M)


@test("bash: commands and topics")
def _():
    offers("viaduct ", *commands(), "help", "--help", "--version")
    offers("viaduct mig", "migrate-qemu")
    check({"relay", "errors", "qemu"} <= set(bash("viaduct help ")), "no topics")


@test("bash: the options of each command are those of its help")
def _():
    for command in commands():
        offers(f"viaduct {command} --", *re.findall(r"^  (--[\w-]+)", said(command, "--help"), re.M))


@test("bash: each kind of value is known, or nothing can be offered for it")
def _():
    known = set(re.findall(r"[A-Z]{2}[A-Z:]*", re.search(
        r"^_viaduct_value.*?^}", (SCRIPTS / "viaduct.bash").read_text(encoding="utf-8"),
        re.M | re.S)[0]))
    for command in commands():
        for name, value in re.findall(r"^  --([\w-]+) (\S+)", said(command, "--help"), re.M):
            check(value in known | FREE or "|" in value, f"{command} --{name} {value}: what kind is that?")


@test("bash: fabrics and their keys")
def _():
    offers("viaduct demo --fabric ", "auto", *fabrics())
    offers("viaduct demo --fabric ofi:t", "tcp")
    offers("viaduct demo --fabric=ofi:t", "tcp")
    offers("viaduct demo --fabric ofi:tcp,", "tcp,tx-depth=", "tcp,rx-depth=")


@test("bash: roles, rows, files, folders and sockets")
def _():
    offers("viaduct relay --role ", "source", "destination")
    check({"bandwidth", "all", "list"} <= set(bash("viaduct bench ")), "no rows")
    offers("viaduct send --psk /etc/passw", *(f"/etc/{n}" for n in os.listdir("/etc")
                                              if n.startswith("passw")))
    offers("viaduct send --tls-creds /et", "/etc")
    offers("viaduct relay --listen u", "unix:")
    offers("viaduct relay --qemu unix:/et", "/etc")
    offers("viaduct relay --sandbox ", "on", "off")
    offers("viaduct demo --memory ")


class Zsh:
    """An interactive zsh whose line can be seen."""

    def __init__(self):
        if not shutil.which("zsh"):
            raise Skip("no zsh. Try: apt-get install zsh")
        master, slave = os.openpty()
        self.popen = subprocess.Popen(
            ["zsh", "-f", "-i"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            cwd=harness.case.folder(), env=environment(TERM="dumb", HOME=harness.case.folder()))
        os.close(slave)
        self.keys = os.dup(master)
        self.screen = harness.Output(master)
        self.seen = 0
        self.type(f"fpath=({SCRIPTS} $fpath); autoload -Uz compinit; compinit -D -u; "
                  "show() { print -r -- \"<$BUFFER>\"; BUFFER= }; zle -N show; bindkey '^P' show; "
                  "print ready-$((1 + 1))\n", r"ready-2")

    def type(self, keys, answer):
        os.write(self.keys, keys.encode())
        match = self.screen.wait(answer, 20, self.seen)
        self.seen = match.end()
        return match

    def completes(self, line, wanted):
        equal(self.type(line + "\t\x10", r"<(.*)>")[1].rstrip(), wanted, f"`{line}`, completed,")

    def close(self):
        self.popen.kill()
        self.popen.wait()
        os.close(self.keys)


@test("zsh: commands, options, values")
def _():
    shell = Zsh()
    try:
        for line, wanted in [
                ("viaduct mig", "viaduct migrate-qemu"),
                ("viaduct help er", "viaduct help errors"),
                ("viaduct demo --postcopy-w", "viaduct demo --postcopy-when-stuck="),
                ("viaduct relay --tu", "viaduct relay --tune"),
                ("viaduct relay --role s", "viaduct relay --role source"),
                ("viaduct relay --sandbox of", "viaduct relay --sandbox off"),
                ("viaduct demo --fabric au", "viaduct demo --fabric auto"),
                ("viaduct demo --fabric=ofi:t", "viaduct demo --fabric=ofi:tcp"),
                ("viaduct demo --fabric ofi:tcp,t", "viaduct demo --fabric ofi:tcp,tx-depth="),
                ("viaduct bench ban", "viaduct bench bandwidth"),
                ("viaduct send --psk /etc/ld.so.con", "viaduct send --psk /etc/ld.so.conf"),
                ("viaduct relay --qemu unix:/et", "viaduct relay --qemu unix:/etc/")]:
            shell.completes(line, wanted)
    except Failure as error:
        raise Failure(f"{error}; the screen: {shell.screen.text[-500:]!r}") from error
    finally:
        shell.close()


sys.exit(harness.main(*sys.argv[1:]))
