# SPDX-License-Identifier: BSD-2-Clause
"""One migration from QEMU to QEMU: both ends, the way between, and what is asked of it."""

import collections

import guest
import harness
from harness import Deadline, Failure, Skip, check, equal
from peers import Qemu
from qmp import Gone, Refused

MIB = 1 << 20
LONG_S = 30  # for what a healthy migration does
SOON_S = 20  # for noticing that somebody is gone
ENDED = ("completed", "failed", "cancelled", "postcopy-paused")

# A guest that writes while it is migrated loses writes in emulation before QEMU 9.0, whatever the
# transport (fixed by its commit 03bfc2188f): there it only reads.
WRITES_SINCE = (9, 0)

LOAD = {"writes": 2000, "checks": 4000}  # pages a second, of all others

# What a case is run over: a class of transports.py, "unix" or "tcp", two peers.
Setting = collections.namedtuple("Setting", "transport kind source destination machine fabric")


class Mode(collections.namedtuple("Mode", "channels postcopy preempt return_path tls compression")):
    """A way to migrate: 0 for no multifd, else its channels."""

    def capabilities(self):
        wanted = {"events": True, "return-path": self.return_path, "multifd": self.channels,
                  "postcopy-ram": self.postcopy, "postcopy-preempt": self.preempt}
        return [name for name, on in wanted.items() if on]

    def parameters(self):
        found = {"multifd_channels": self.channels} if self.channels else {}
        if self.compression:
            found.update(multifd_compression=self.compression)
        if self.tls:
            found.update(tls_creds="tls", tls_hostname="anybody")
        return found


def mode(channels=0, postcopy=False, preempt=False, return_path=True, tls=False, compression=None):
    return Mode(channels, postcopy or preempt, preempt, return_path, tls, compression)


def bandwidth(precopy_mib, postcopy_mib=None):
    """In MiB/s: what keeps a phase as long as a test has to look at it."""
    found = {"max_bandwidth": precopy_mib * MIB, "downtime_limit": 20}
    if postcopy_mib:
        found["max_postcopy_bandwidth"] = postcopy_mib * MIB
    return found


class Migration:
    """A guest that runs at the source, a destination that waits for it, and nothing begun yet."""

    def __init__(self, setting, chosen, limits=None, shuffle=None, **how):
        self.setting, self.mode = setting, chosen
        self.limits = {**(limits or bandwidth(128, 64)), **chosen.parameters()}
        self.shuffle, self.how = shuffle or {}, {"machine": setting.machine, **LOAD, **how}
        self.folder = harness.case.folder()
        self.number, self.begun, self.ways = 0, 0, []
        if setting.source.version < WRITES_SINCE:
            self.how["writes"] = 0
        self.source = Qemu(setting.source, self.folder, "source", **self.how)
        self.set_up(self.source)
        self.destination = self.way = self.there = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for way in self.ways:
            way.close()

    # -- what happens ------------------------------------------------------------------

    def set_up(self, qemu):
        if self.mode.tls:
            with open(f"{self.folder}/keys.psk", "w", encoding="ascii") as f:
                f.write(f"qemu:{'2a' * 32}\n")
            qemu.execute("object-add", qom_type="tls-creds-psk", id="tls", dir=self.folder,
                         endpoint="client" if qemu is self.source else "server")
        try:
            qemu.set_up(self.mode.capabilities(), self.limits)
        except Refused as refusal:
            if "serfault" in str(refusal) or "Postcopy is not supported" in str(refusal):
                raise Skip(f"{refusal} (be root, or: sysctl vm.unprivileged_userfaultfd=1)"
                           ) from refusal
            raise

    def wait_for_guest(self):
        """A destination, that waits, and the address where it does."""
        self.number += 1
        self.destination = Qemu(self.setting.destination, self.folder, f"destination{self.number}",
                                incoming=True, **self.how)
        self.set_up(self.destination)
        return self.destination.expect(self.free_address("qemu"))

    def free_address(self, name):
        """Where nobody listens yet, and somebody may."""
        self.number += 1
        return ("tcp:127.0.0.1:0" if self.setting.kind == "tcp" else
                f"unix:{self.folder}/{name}{self.number}")

    def lay(self, there=None):
        """The way to a new destination, or to what is said to be one, and where it begins."""
        self.way = self.setting.transport(self.free_address, self.setting.fabric)
        self.ways.append(self.way)
        self.there = there or self.wait_for_guest()
        return self.way.open(self.there, **self.shuffle)

    def begin(self, uri):
        """Start, and stop the guest meanwhile.

        In emulation QEMU, up to 11.1 at least, misses writes while it starts to look for
        them: it collects the dirty pages for a first time without telling the processor, which goes
        on to write where it has written since it was told that somebody would look. With
        nothing between and postcopy behind it, 2 of 60 busy guests were wrong for that.
        """
        self.begun = len(self.source.monitor.events)
        self.source.execute("stop")
        try:
            self.start(uri)
            self.source.monitor.status("active", *ENDED, after=self.begun)
        finally:
            self.source.execute("cont")

    def start(self, uri):
        """QEMU 7.2 says that a migration has failed before it has cleared up behind it. Another
        one that begins in between fails, and no other is taken after that."""
        deadline = Deadline(SOON_S)
        while deadline.left() and any(instance["type"] == "migration"
                                      for instance in self.source.execute("query-yank")):
            pass
        self.source.execute("migrate", uri=uri)

    def go(self, there=None):
        self.begin(self.lay(there))

    def switch(self, ticks=5):
        """To postcopy, as soon as the guest has lived so long while its memory was sent."""
        self.until(self.source, "active")
        self.source.live(ticks)
        self.source.execute("migrate-start-postcopy")
        for qemu in (self.source, self.destination):
            self.until(qemu, "postcopy-active")
        self.destination.monitor.wait("RESUME")

    def until(self, qemu, *wanted, seconds=LONG_S):
        """Until the migration is in one of these states at @qemu, and no other end before."""
        since = self.begun if qemu is self.source else 0
        seen = qemu.monitor.status(*wanted, *ENDED, seconds=seconds, after=since)
        if seen not in wanted:
            why = qemu.execute("query-migrate").get("error-desc", "no reason given")
            raise Failure(f"{qemu.role}: {seen}, not {' or '.join(wanted)}: {why}")
        return seen

    def pause(self, since=None):
        """Until both ends know that they have lost each other, after the guest has moved."""
        for qemu in (self.source, self.destination):
            qemu.monitor.status("postcopy-paused", seconds=SOON_S,
                                after=since[qemu] if since else 0)

    def recover(self, same=False):
        """Both ends find each other again, at another address or the same, and finish soon."""
        self.source.execute("migrate-set-parameters", max_postcopy_bandwidth=0)
        since = self.begin_again(self.there if same else self.free_address("again"))
        for qemu, after in since.items():
            seen = qemu.monitor.status("completed", "postcopy-paused", "failed", after=after)
            equal(seen, "completed", f"after the recovery the state at the {qemu.role}")

    def begin_again(self, address):
        """Both ends find each other at @address. {QEMU: number of its events before}."""
        if address.endswith(":0"):
            address = "tcp:" + harness.closed_port()
        try:
            there = self.destination.expect(address, "migrate-recover")
        except Refused as refusal:
            if address.startswith("tcp:") and "already in use" in str(refusal):
                raise Skip("QEMU does not listen at a TCP port for a second time") from refusal
            raise
        since = {q: len(q.monitor.events) for q in (self.source, self.destination)}
        self.source.execute("migrate", uri=self.way.mend(there), resume=True)
        return since

    def complete(self):
        """Until both ends say that it is done, and all that the guest remembers is right."""
        if self.mode.postcopy:
            self.switch()
            self.destination.check_all()  # which asks for each page that is not there yet
        for qemu in (self.source, self.destination):
            self.until(qemu, "completed")
        return self.verify()

    # -- what is asked -----------------------------------------------------------------

    def verify(self):
        """The guest has lived on at the destination, with every page; both QEMUs end well.

        Returns what they tell of it.
        """
        self.destination.check_all()
        result = self.result()
        for qemu in (self.source, self.destination):
            try:
                qemu.execute("quit")
            except Gone:
                pass
            qemu.ends(0)
        story = guest.check_story(self.source.out.text, self.destination.out.text)
        here = len(guest.ticks(self.source.out.text))
        check(0 < here < len(story), f"of {len(story)} ticks the source saw {here}")
        return result

    def check_source_lives(self):
        """The guest has never moved, and has lost nothing."""
        self.source.check_all()
        equal(self.source.execute("query-status")["status"], "running", "the source's state")
        guest.check_story(self.source.out.text[:self.source.out.text.rindex("\n") + 1])

    def check_destination_ends(self):
        """By itself, and with an error: it has got no guest.

        With multifd QEMU 7.2 may wait for ever for a source that is gone; also without anybody
        between.
        """
        if self.destination.peer.version < (8, 0) and self.mode.channels:
            if not self.destination.has_ended(1):
                self.destination.end()
            return
        check(self.destination.has_ended(SOON_S), "the destination still waits for its guest")
        check(self.destination.wait() > 0, f"the destination's status is {self.destination.status}")

    def result(self):
        """What the two tell of a completed migration."""
        sent = self.source.execute("query-migrate")
        downtime = self.moment(self.destination, "RESUME") - self.moment(self.source, "STOP")
        return {"total_ms": sent["total-time"], "away_ms": round(downtime * 1e3, 1),
                "downtime_ms": sent["downtime"], "setup_ms": sent.get("setup-time"),
                "sent_mib": round(sent["ram"]["transferred"] / MIB, 1),
                "requests": sent["ram"]["postcopy-requests"]}

    @staticmethod
    def moment(qemu, name):
        """When it said so last, in seconds."""
        stamp = [e for e in qemu.monitor.events if e["event"] == name][-1]["timestamp"]
        return stamp["seconds"] + stamp["microseconds"] / 1e6
