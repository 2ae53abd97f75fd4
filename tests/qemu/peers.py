# SPDX-License-Identifier: BSD-2-Clause
"""Stock QEMUs, and one that runs with the test guest in it."""

import collections
import ctypes
import functools
import pathlib
import re
import signal
import subprocess
import time

import guest
import harness
from harness import Deadline, Run, Skip
from qmp import Monitor

ROOT = pathlib.Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1
BOOT_S = 30
MEMORY_MIB = 64  # of a guest
SCRATCH = 0x3ff  # a register of the guest's serial port: what is in it, the guest obeys
LOAD_MIB = 4  # of a guest's memory, up to 2 GiB, that hold no pattern

# version: (7, 2)
Peer = collections.namedtuple("Peer", "name version program")


@functools.lru_cache(maxsize=None)
def find(name):
    """The peer of that name, fetched if need be, or why there is none, as a text."""
    run = subprocess.run([ROOT / "scripts/qemu-peers", name], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, encoding="utf-8", check=False)
    if run.returncode:
        reason = (run.stderr.strip().split("\n") or [""])[-1].removeprefix("qemu-peers: ")
        return f"no QEMU {name}: {reason} (scripts/qemu-peers {name})"
    name, version, program = run.stdout.split()
    return Peer(name, tuple(int(n) for n in version.split(".")[:2]), program)


def get(name):
    peer = find(name)
    if isinstance(peer, str):
        raise Skip(peer)
    return peer


def die_with_me():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Program(Run):
    """A run of any program, that ends when the test does, however that happens."""

    def __init__(self, program, *args):
        super().__init__(*args, program=program, before=die_with_me)

    def end(self, number=signal.SIGKILL):
        if self.status is None:
            self.kill(number)
            self.wait()

    def cpu_s(self):
        """Of all its threads, until now."""
        return time.clock_gettime(~self.pid << 3 | 2)  # as the kernel numbers clocks of processes

    def wakes(self):
        """How often its threads have gone to sleep, until now."""
        return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read_text(), re.M)[1])
                   for f in pathlib.Path(f"/proc/{self.pid}/task").glob("*/status"))

    def memory_mib(self):
        """Its memory now, by kind, and the most that it ever had (`peak`)."""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        text += pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        kinds = {"rss": "Rss", "pss": "Pss", "anonymous": "Anonymous", "locked": "Locked",
                 "peak": "VmHWM", "pinned": "VmPin"}
        return {kind: int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) / 1024
                for kind, name in kinds.items()}


class Qemu(Program):
    """QEMU @peer with the guest, running, or waiting for one with @incoming.

    Its console is its stdout. @load: the guest's parameters, by name.
    """

    def __init__(self, peer, folder, role, machine="q35", memory_mib=None, incoming=False, **load):
        self.peer, self.role, self.closed = peer, role, False
        memory_mib = memory_mib or MEMORY_MIB
        self.monitor = Monitor(f"{folder}/{role}.qmp")
        self.qmp = f"{folder}/{role}.own"  # a second one, for the program that is tested
        words = {"mib": memory_mib - LOAD_MIB, **load}
        self.pages = words["mib"] * 256
        super().__init__(
            peer.program, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
            "-machine", f"{machine},memory-backend=ram", "-cpu", "qemu64", "-bios", "qboot.rom",
            "-m", f"{memory_mib}M",
            "-object", f"memory-backend-ram,id=ram,size={memory_mib}M,prealloc=on",
            "-kernel", guest.program(), "-append", " ".join(f"{k}={v}" for k, v in words.items()),
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-qmp", f"unix:{folder}/{role}.qmp,server=off",
            "-qmp", f"unix:{self.qmp},server=on,wait=off",
            *(["-incoming", "defer"] if incoming else []))
        self.monitor.open(BOOT_S)
        self.execute = self.monitor.execute
        if not incoming:
            self.out.wait(r"ready pages=\d+", BOOT_S)

    # -- the guest ---------------------------------------------------------------------

    def live(self, ticks, seconds=30):
        """Until the guest in it has lived through so many more ticks."""
        deadline, at = Deadline(seconds), len(self.out.text)
        for _ in range(ticks):
            at = self.out.wait(r"tick \d+ [^\n]*\n", deadline.left() / harness.SCALE, at).end()

    def check_all(self, seconds=60):
        """Until the guest has checked each of its pages, from now on."""
        self.execute("human-monitor-command", command_line=f"o /b {SCRATCH:#x} 1")
        self.live(1, seconds)  # the tick that was under way
        aim = guest.ticks(self.out.text)[-1].checked + self.pages
        deadline = Deadline(seconds)
        while guest.ticks(self.out.text[-400:])[-1].checked < aim:
            self.live(1, deadline.left() / harness.SCALE)
        self.execute("human-monitor-command", command_line=f"o /b {SCRATCH:#x} 0")

    # -- migration ---------------------------------------------------------------------

    def set_up(self, capabilities, parameters):
        words = [{"capability": c, "state": True} for c in capabilities]
        self.execute("migrate-set-capabilities", capabilities=words)
        self.execute("migrate-set-parameters", **parameters)

    def expect(self, uri, command="migrate-incoming"):
        """Have it wait for a migration; the address where it does, as a migration's URI.

        It is asked for a port only when it was to choose one: its main loop may stand still
        until a paused migration goes on.
        """
        self.execute(command, uri=uri)
        if not uri.endswith(":0"):
            return uri
        address = self.execute("query-migrate")["socket-address"][-1]
        return f"tcp:{address['host']}:{address['port']}"

    def cleanup(self):
        self.monitor.close()
        super().cleanup()

    def describe(self):
        console = self.out.text.split("\n")[-4:]
        return [f"QEMU {self.peer.name}, {self.role}: {self.monitor.story()}",
                f"  status {self.status}", *[f"  console: {line}" for line in console if line],
                *[f"  stderr: {line}" for line in self.err.text.split("\n") if line]]
