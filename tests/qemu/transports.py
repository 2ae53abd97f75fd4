# SPDX-License-Identifier: BSD-2-Clause
"""Ways from one QEMU to the other.

A transport is told where the destination waits, and tells where the source has to go. The
connections of a source can be shuffled before they get to it: that tells nothing of the transport
to QEMU, and nothing of QEMU to the transport.
"""

import signal
import subprocess

import harness
import proxy
from harness import Skip
from peers import Program
from proxy import Forwarder, Shuffler


def uri(address):
    """@address as QEMU writes it in a migration's URI."""
    return address if address.startswith("unix:") else f"tcp:{address}"


def plain(address):
    """@address as everybody else writes it."""
    return address.removeprefix("tcp:")


class Direct:
    """Nothing stands between."""

    name = "direct"
    ends = ()  # what can die
    notices = False  # that the other end is there, and says nothing any more?
    keeps_order = False  # does the destination get its channels in the order that QEMU 7.2 needs?

    def __init__(self, free_address, fabric=None):
        self.free_address, self.fabric = free_address, fabric
        self.shuffler = None

    def open(self, destination, **shuffle):
        """Where the source has to go, so that it gets to @destination."""
        there = self.lay(destination)
        if not shuffle:
            return there
        self.shuffler = Shuffler(self.free_address("shuffled"), there, **shuffle).start()
        return uri(self.shuffler.address)

    def lay(self, destination):
        return destination

    def cut(self, source):
        """What a cable does that is cut, as far as both ends can know it."""
        source.execute("migrate-pause")

    def mend(self, destination):
        """The way there after a cut."""
        return self.lay(destination)

    def check_resumed(self, restarted=()):
        """Who has lived through it knows what was before; in @restarted are the others."""

    def close(self):
        if self.shuffler:
            self.shuffler.stop()

    def programs(self):
        """Those between, for what they cost."""
        return []


class Between(Direct):
    """A program beside each QEMU, and one link from program to program that can be cut."""

    ends = ("source", "destination")
    can_be_cut = True  # which costs a little

    def __init__(self, free_address, fabric=None):
        super().__init__(free_address, fabric)
        self.running, self.link = {}, None
        self.destination = self.far = self.near = None

    def start(self, role, *args):
        raise NotImplementedError

    def lay(self, destination):
        self.destination = destination
        self._start_far()
        if self.can_be_cut:
            self.link = Forwarder("127.0.0.1:0", self.far).start()
        self._start_near()
        return uri(self.near)

    def _start_far(self):
        self.far = self._start("destination", "--listen", "127.0.0.1:0", "--qemu",
                               plain(self.destination))

    def _start_near(self):
        self.near = self._start("source", "--listen", plain(self.free_address("near")), "--peer",
                                self.link.address if self.link else self.far)

    def _start(self, role, *args):
        self.running[role] = self.start(role, *args)
        return self.running[role].says(r"listening on (\S+)\n").group(1)

    def cut(self, source):
        self.link.cut()

    def die(self, role):
        """One of the two is gone at once."""
        self.running[role].end()

    def mend(self, destination):
        """Who is gone is started again; both anew, when QEMU waits at another address."""
        if destination != self.destination:
            self.end_all()
            return self.lay(destination)
        if self.running["destination"].status is not None:
            self._start_far()
            self.link.there = self.far
        if self.running["source"].status is not None:
            self._start_near()
        return uri(self.near)

    def end_all(self):
        for run in self.running.values():
            run.end(signal.SIGTERM)
            if run.status != -signal.SIGKILL:  # die() leaves behind what the program cannot help
                run.check_sane()
        if self.link:
            self.link.stop()

    def close(self):
        super().close()
        self.end_all()

    def programs(self):
        return list(self.running.values())


class Proxy(Between):
    """Proxies that know nothing of QEMU: what standing between costs at least."""

    name = "proxy"

    def start(self, role, *args):
        return Program(proxy.__file__, "--role", role, *args)


class Relay(Between):
    """`viaduct relay` beside each QEMU."""

    name = "relay"
    keeps_order = notices = True
    options = ()

    def __init__(self, free_address, fabric=None):
        super().__init__(free_address, fabric)
        asked = subprocess.run([harness.binary, "relay", "--help"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, check=False)
        if asked.returncode:
            raise Skip("this viaduct has no relay")

    def start(self, role, *args):
        fabric = ["--fabric", self.fabric] if self.fabric else []
        return Program(harness.binary, "relay", "--role", role, *args, *fabric, *self.options)

    def check_resumed(self, restarted=()):
        for role, run in self.running.items():
            if role not in restarted:
                run.says("a new session: the peer has been started again" if restarted
                         else "the session that was lost is resumed")


class ImpatientRelay(Relay):
    """Notices sooner that the other one stands still."""

    options = ("--dead-after", "2s")


ALL = {transport.name: transport for transport in (Direct, Proxy, Relay)}
