# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the program share: cases as TAP, runs with a deadline, ends that are checked.

Nothing here waits without a deadline, and nothing sleeps: output is waited for by what it
says, a process by its descriptor. Whatever a case has started is gone when it is over.
"""

import ctypes
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SLOW = os.environ.get("VIA_TEST_SLOW") == "1"
SCALE = 4 if SLOW else 1  # of every deadline
CASE_S = 60

PR_SET_CHILD_SUBREAPER = 36

# What no run may say, however it ends.
CRASHES = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:"
                     r"|terminated with signal|Assertion .* failed|corrupted|stack smashing")

binary = None


class Failure(Exception):
    """A case went wrong; the text says how."""


class Skip(Exception):
    """A case cannot be run here; the text says why."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def equal(seen, wanted, what):
    check(seen == wanted, f"{what} is {seen!r}, not {wanted!r}")


def is_sanitized():
    with open(binary, "rb") as f:
        return b"__asan_init" in f.read()


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds * SCALE

    def left(self):
        return max(0.0, self.end - time.monotonic())


# -- runs -------------------------------------------------------------------------------


class Output:
    """A pipe or terminal, read by a thread as it comes."""

    def __init__(self, fd):
        self.fd, self.text, self.ended = fd, "", False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # a terminal whose other end is closed
                data = b""
            with self.changed:
                self.text += data.decode("utf-8", "replace")
                self.ended = not data
                self.changed.notify_all()
            if not data:
                os.close(self.fd)
                return

    def wait(self, pattern, seconds, after=0):
        """The match of @pattern, as soon as it is there."""
        deadline = Deadline(seconds)
        with self.changed:
            while True:
                match = re.compile(pattern).search(self.text, after)
                if match:
                    return match
                check(not self.ended, f"it ended and never said /{pattern}/")
                check(self.changed.wait(deadline.left()) or deadline.left(),
                      f"it did not say /{pattern}/ within {seconds * SCALE} s")


def fresh_signals():
    """What a shell in the background or nohup(1) has children ignore is not of the test."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Run:
    """One run of the program, or of another, in a process group of its own."""

    def __init__(self, *args, program=None, env=None, terminal=None, before=None, shared=False):
        self.program = str(program or binary)
        self.args = [str(a) for a in args]
        self.before = set(os.listdir("/dev/shm"))  # of killed ones whose number is used again
        stderr = terminal if terminal is not None else subprocess.PIPE

        def prepare():
            fresh_signals()
            if before:
                before()
        self.popen = subprocess.Popen(
            [self.program, *self.args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stderr, env={**os.environ, **(env or {})}, preexec_fn=prepare,
            start_new_session=True)
        self.pid = self.popen.pid
        self.pids = {self.pid}
        self.status = None
        self.out = Output(os.dup(self.popen.stdout.fileno()))
        self.popen.stdout.close()
        self.err = None
        if terminal is None:
            self.err = Output(os.dup(self.popen.stderr.fileno()))
            self.popen.stderr.close()
        (_shared if shared else case.runs).append(self)

    def says(self, pattern, seconds=20, after=0):
        """The match of @pattern in its stderr, from byte @after on."""
        return self.err.wait(pattern, seconds, after)

    def kill(self, number):
        os.kill(self.pid, number)

    def child(self):
        """The second process of demo, as soon as it is there."""
        deadline, pids = Deadline(10), []
        while not pids:
            check(deadline.left(), "it has no child")
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as f:
                pids = [int(p) for p in f.read().split()]
        equal(len(pids), 1, "the number of children")
        self.pids.update(pids)
        return pids[0]

    def has_ended(self, seconds):
        """Within that time?"""
        fd = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = poll.poll(int(seconds * SCALE * 1000))
        os.close(fd)
        return bool(ended)

    def wait(self, seconds=30):
        """Its exit status, negative when a signal ended it; its output is complete then."""
        if self.status is None:
            deadline = Deadline(seconds)
            check(self.has_ended(seconds), f"still running after {seconds * SCALE} s")
            self.status = self.popen.wait()
            for output in filter(None, (self.out, self.err)):
                output.thread.join(deadline.left() + 1)
                check(output.ended, "its output is still open: somebody else holds it")
            self._reap_group()
        return self.status

    def _reap_group(self):
        """Orphans of the group come to this process, see main(): none may stay."""
        while True:
            try:
                os.waitid(os.P_PGID, self.pid, os.WEXITED)
            except ChildProcessError:
                return

    def ends(self, status, seconds=30):
        """It ends with @status, by itself and in good order. Returns itself."""
        equal(self.wait(seconds), status, "the exit status")
        self.check_sane()
        return self

    def check_sane(self):
        text = self.out.text + (self.err.text if self.err else "")
        crash = CRASHES.search(text)
        check(not crash, f"it says: {crash and crash.group()}")
        check(not self.leftovers(), f"left in /dev/shm: {self.leftovers()}")

    def leftovers(self):
        """Its names in /dev/shm: libfabric's begin with the process's number."""
        return sorted(name for name in set(os.listdir("/dev/shm")) - self.before
                      if any(re.match(rf"\D*{pid}:", name) for pid in self.pids))

    def json(self):
        """The one JSON object that stdout must be."""
        try:
            value = json.loads(self.out.text)
        except ValueError as error:
            raise Failure(f"stdout is not one JSON value: {error}") from error
        check(isinstance(value, dict), "stdout is not a JSON object")
        return value

    def error(self):
        """(what, remedy) of the last message, of the form in which every one is printed."""
        found = re.findall(r"^viaduct: (.+)\n  try: (.+)$", self.err.text, re.M)
        check(found, "no message of the form `viaduct: WHAT: SEEN` and `  try: REMEDY`")
        return found[-1]

    def cleanup(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.wait()
        self._reap_group()
        for name in self.leftovers():  # of one that a case has killed
            os.unlink(f"/dev/shm/{name}")

    def describe(self):
        name = os.path.basename(self.program)
        lines = [f"{name} {' '.join(self.args)}", f"  status {self.status}"]
        for name, output in (("stdout", self.out), ("stderr", self.err)):
            if output:
                lines += [f"  {name}: {line}" for line in output.text.split("\n")[-40:] if line]
        return lines


def receive(*args, listen="127.0.0.1:0", **kwargs):
    """(a receiver that listens, its address)"""
    run = Run("receive", "--listen", listen, *args, **kwargs)
    return run, run.says(r"listening on (\S+)\n").group(1)


def send(address, *args, memory="4K", **kwargs):
    return Run("send", "--peer", address, "--memory", memory, *args, **kwargs)


def closed_port():
    """An address where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return "%s:%d" % s.getsockname()


# -- cases --------------------------------------------------------------------------------


class Case:
    def __init__(self, name, function):
        self.name, self.function, self.files = name, function, []
        self.runs, self.watched = [], []  # its own, and others that it looks at

    def folder(self):
        """An empty folder, gone after the case."""
        self.files.append(tempfile.TemporaryDirectory())
        return self.files[-1].name

    def run(self):
        try:
            self.function()
        finally:
            signal.alarm(0)
            self.description = [line for run in self.runs + self.watched for line in run.describe()]
            for run in self.runs:
                run.cleanup()
            for file in self.files:
                file.cleanup()


case = None
_cases = []
_shared = []  # runs that outlive their case


def add(name, function):
    _cases.append(Case(name, function))


def test(name):
    """Decorator: a case called @name."""
    def decorate(function):
        add(name, function)
        return function
    return decorate


def test_each(name, values):
    """Decorator: a case for each of @values, which the function is called with."""
    def decorate(function):
        for value in values:
            values_ = value if isinstance(value, tuple) else (value,)
            add(name.format(*values_), lambda v=values_: function(*v))
        return function
    return decorate


def _expired(number, frame):
    raise Failure(f"the case took more than {CASE_S * SCALE} s")


def _run_one(number):
    signal.alarm(CASE_S * SCALE)
    try:
        case.run()
    except Skip as reason:
        print(f"ok {number} - {case.name} # SKIP {reason}")
    except Exception as error:  # pylint: disable=broad-except
        text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        print(f"not ok {number} - {case.name}")
        for line in [text, *case.description]:
            print("# " + line.replace("\r", "\\r").replace("\033", "\\033"))
        return False
    else:
        print(f"ok {number} - {case.name}")
    return True


def main(path, only="", note=None, choose=None):
    """Run every case whose name contains @only with the program at @path. The exit status.

    @choose, when given, is asked for each name as well.
    """
    global binary, case  # pylint: disable=global-statement
    binary = os.path.abspath(path)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, _expired)
    sys.stdout.reconfigure(line_buffering=True)
    chosen = [c for c in _cases if only in c.name and (not choose or choose(c.name))]
    print(f"TAP version 13\n1..{len(chosen)}")
    if note:
        print(f"# {note}")
    good = True
    for number, case in enumerate(chosen, 1):
        good = _run_one(number) and good
    for run in _shared:
        run.cleanup()
    return 0 if good else 1
