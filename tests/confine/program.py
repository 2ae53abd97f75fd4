#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The program without the rights it has no use for: it completes over every fabric with its
sandbox, the kernel has nothing to refuse to it, and it needs no root.

    program.py VIADUCT [PART OF A CASE'S NAME]
"""

import errno
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
from harness import Run, Skip, check, equal, receive, send, test, test_each

CERTIFICATES = pathlib.Path(__file__).resolve().parents[1] / "transport" / "certificates"
FABRICS = ["ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm"]
KEPT = {1: "CAP_DAC_OVERRIDE", 14: "CAP_IPC_LOCK", 19: "CAP_SYS_PTRACE", 23: "CAP_SYS_NICE"}
NOBODY = 65534


class KernelLog:
    """What the kernel says about refused calls from now on; nothing where it may not be read."""

    def __init__(self):
        try:
            self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self.fd, 0, os.SEEK_END)
        except OSError:
            self.fd = None

    def refused(self):
        calls = set()
        while self.fd is not None:
            try:
                line = os.read(self.fd, 8192).decode("utf-8", "replace")
            except OSError as error:
                if error.errno != errno.EPIPE:  # that one is overwritten lines
                    return calls
                continue
            match = re.search(r'type=1326 .* comm="([^"]*)".* syscall=(\d+)', line)
            if match and harness.binary in line:
                calls.add(match.groups())
        return calls


@functools.lru_cache(maxsize=None)
def has_filter():
    probe = Run("demo", "--memory", "4K", "--vcpus", "0", "--sandbox", "on")
    return probe.wait() == 0 or "filter system calls" not in probe.err.text


def filtered(*args):
    """@args for a command that is to have its sandbox; skips where this build has none."""
    if not has_filter():
        raise Skip("built without libseccomp")
    return (*args, "--sandbox", "on")


def status(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return re.search(rf"^{name}:\s+(\S+)", f.read(), re.M).group(1)


def completes(run):
    if run.wait(60) and "no such provider" in run.err.text + run.out.text:
        raise Skip(run.error()[0])
    run.check_sane()
    report = run.json()
    equal(report["result"], "completed", "the result")
    for kind in ("missing", "stale", "torn"):
        equal(report["verify"][kind], 0, f"{kind} pages")


# -- with its sandbox ----------------------------------------------------------------------


@test_each("{}, {}: nothing that it needs is refused", [
    ("ofi:net", "integrity"),  # whose postcopy takes its time
    *((fabric, how) for fabric in FABRICS for how in ("postcopy, lost and resumed", "integrity"))])
def _(fabric, how):
    args = (("--integrity",) if how == "integrity" else
            ("--postcopy", "--pull-link", "1", "--dirty-rate", "20M"))
    log = KernelLog()
    completes(Run("demo", "--fabric", fabric, "--memory", "32M", "--json", *filtered(*args)))
    equal(log.refused(), set(), "what the kernel refused")


@test_each("with {}", ["a key", "certificates"])
def _(kind):
    folder = harness.case.folder()
    if kind == "a key":
        args = ("--psk", os.path.join(folder, "keys.psk"))
        with open(args[1], "w", encoding="ascii") as f:
            f.write(f"me:{os.urandom(32).hex()}\n")
        os.chmod(args[1], 0o600)
    else:
        made = subprocess.run([CERTIFICATES, folder], check=False, capture_output=True)
        if made.returncode == 77:
            raise Skip("needs certtool: apt-get install gnutls-bin")
        args = ("--tls-creds", os.path.join(folder, "good"))
    log = KernelLog()
    destination, address = receive(*filtered(*args))
    completes(send(address, "--json", *filtered(*args), memory="16M"))
    destination.ends(0)
    equal(log.refused(), set(), "what the kernel refused")


@test_each("{} that waits has given up what it does not need", ["receive", "relay"])
def _(command):
    filtered()
    if command == "receive":
        run, _ = receive()
    else:
        run = Run("relay", "--keep", "--role", "destination", "--listen", "127.0.0.1:0",
                  "--qemu", "unix:/nowhere")
        run.says("listening on")
    equal(status(run.pid, "NoNewPrivs"), "1", "NoNewPrivs")
    equal(status(run.pid, "Seccomp"), "2", "Seccomp")
    for kind in ("CapEff", "CapPrm"):
        rights = int(status(run.pid, kind), 16)
        more = [i for i in range(64) if rights >> i & 1 and i not in KEPT]
        check(not more, f"{kind} has these as well: {more}")
    if command == "relay":
        check(not int(status(run.pid, "CapPrm"), 16) >> 19 & 1, "a relay may trace others")


@test("--sandbox off leaves all of it")
def _():
    run, _ = receive("--sandbox", "off")
    equal(status(run.pid, "NoNewPrivs"), status("self", "NoNewPrivs"), "NoNewPrivs")
    equal(status(run.pid, "Seccomp"), status("self", "Seccomp"), "Seccomp")
    equal(status(run.pid, "CapPrm"), status("self", "CapPrm"), "CapPrm")


# -- without root --------------------------------------------------------------------------


def nobody(*args):
    """Run(...) as a user without rights; skips when that cannot be had."""
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            raise Skip("needs setpriv: apt-get install util-linux")
        words = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps",
                 "-all", "--bounding-set", "-all")
        can = subprocess.run([str(w) for w in (*words, "test", "-x", harness.binary)], check=False)
        if can.returncode:
            raise Skip(f"no other user may run {harness.binary}: build below /tmp, say")
        return Run(*words[1:], harness.binary, *args, program=shutil.which("setpriv"))
    return Run(*args)


@test_each("without root: {}, {}", [
    (fabric, how) for fabric in FABRICS for how in ("precopy", "postcopy")])
def _(fabric, how):
    args = ("--postcopy",) if how == "postcopy" else ()
    run = nobody("demo", "--fabric", fabric, "--memory", "32M", "--json", *args)
    if run.wait(60) and "userfaultfd" in run.out.text:
        error = run.json()["error"]
        check(re.search("/dev/userfaultfd.*sysctl -w", error["remedy"]), error["remedy"])
        raise Skip(f"{error['seen']}: sysctl -w vm.unprivileged_userfaultfd=1")
    completes(run)


@test("without root: a low port is refused, with the way out")
def _():
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        if int(f.read()) <= 80:
            raise Skip("every port is free: sysctl net.ipv4.ip_unprivileged_port_start=1024")
    run = nobody("receive", "--listen", "127.0.0.1:80").ends(1)
    equal(run.error()[1], "take a port of 1024 or above", "the remedy")


@test("without root: a key that belongs to root is refused, with the way out")
def _():
    if os.geteuid():
        raise Skip("needs root, to have a file that is root's")
    folder = harness.case.folder()
    os.chmod(folder, 0o755)
    path = os.path.join(folder, "keys.psk")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"me:{os.urandom(32).hex()}\n")
    os.chmod(path, 0o600)
    what, remedy = nobody("receive", "--listen", "127.0.0.1:0", "--psk", path).ends(1).error()
    check(path in what and "Permission denied" in what, what)
    check(remedy, "no remedy")


sys.exit(harness.main(*sys.argv[1:]))
