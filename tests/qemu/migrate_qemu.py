#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Migrations of stock QEMUs in one command: `viaduct migrate-qemu`, and `viaduct relay --tune`.

    migrate_qemu.py [--quick] VIADUCT [PART OF A CASE'S NAME]

Nobody sets the QEMUs but the program. After each migration the guest has checked all of its
memory, and has told of every moment of its life.
"""

import os
import pathlib
import re
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import guest
import harness
import peers
from harness import Run, check, equal, test_each
from peers import Program, Qemu
from proxy import Forwarder
from qmp import Gone

ALL = ["11.1", "10.0", "7.2"]
NEW = ["11.1", "10.0"]
QUICK = re.compile("|".join([
    r"^(precopy|as text|a QEMU that answers nobody .*|relay --tune at both ends|a relay .* cannot set .*|SIGINT .*|a cut .*"
    r"|a destination .* refuses.*|multifd 2 and preempt), 11\.1$",
    r"^(postcopy|what the source's .*), 10\.0$", r"^(multifd 4|what .* does not know), 7\.2$"]))

SLOW = {"bandwidth": "8M"}  # seconds of precopy
THEN_SLOW = ["--postcopy", "--max-postcopy-bandwidth", "8M"]
# A guest that writes faster than its memory is sent: only postcopy ends that.
BUSY = {"memory_mib": 16, "writes": 8000}

LEAVES = r"viaduct migrate-qemu --qmp (\S+) --to (\S+) --resume\n"


class Pair:
    """A guest at the source, a destination with -incoming defer, and the relay beside that."""

    def __init__(self, version, *options, tune=True, link=False, **how):
        peer = peers.get(version)
        # In emulation QEMU before 9.0 loses writes of a guest that is migrated.
        load = {"writes": 0 if peer.version < (9, 0) else 2000, "checks": 4000, **how}
        self.folder = harness.case.folder()
        self.source = Qemu(peer, self.folder, "source", **load)
        self.destination = Qemu(peer, self.folder, "destination", incoming=True, **load)
        tuned = ["--qmp", self.destination.qmp, "--tune"] if tune else []
        self.far = Program(harness.binary, "relay", "--role", "destination", "--listen",
                           "127.0.0.1:0", "--qemu", f"unix:{self.folder}/in", *tuned, *options)
        self.to = self.far.says(r"listening on (\S+)\n").group(1)
        self.link = Forwarder("127.0.0.1:0", self.to).start() if link else None
        if link:
            self.to = self.link.address

    def migrate(self, *options, form=("--json",), bandwidth="128M"):
        """The program, told to migrate, or to go on.

        Not with the guest running while QEMU starts to look for what it writes: see
        Migration.begin(). The bandwidth keeps it from being through by then.
        """
        limit = ["--max-bandwidth", bandwidth] if bandwidth else []
        begins = "--resume" not in options and bandwidth
        if begins:
            self.source.execute("stop")
        run = Run("migrate-qemu", "--qmp", self.source.qmp, "--to", self.to, *form, *limit,
                  *options, env={"TMPDIR": self.folder}, before=peers.die_with_me)
        if begins:
            run.says(r"\nactive round |  try: ")
            self.source.execute("cont")
        return run

    def is_on(self, qemu, name):
        capabilities = qemu.execute("query-migrate-capabilities")
        return next((c["state"] for c in capabilities if c["capability"] == name), None)

    def verify(self):
        """The guest lives at the destination, has all of its memory, and nothing is left over."""
        self.destination.check_all()
        for qemu in (self.source, self.destination):
            try:
                qemu.execute("quit")
            except Gone:
                pass
            qemu.ends(0)
        guest.check_story(self.source.out.text, self.destination.out.text)
        self.check_folder()

    def check_source_lives(self):
        self.source.check_all()
        equal(self.source.execute("query-status")["status"], "running", "the source's state")
        self.check_folder()

    def check_folder(self):
        """What was made there for QEMU to connect to is gone."""
        left = [name for name in os.listdir(self.folder) if name.startswith("viaduct")]
        check(not left, f"left behind: {left}")


def completed(pair, run, **wanted):
    """Both ends say so; returns what the source tells."""
    report = run.ends(0).json()
    pair.far.ends(0)
    wanted = {"result": "completed", "status": "completed", "error": None, "qemu_error": "",
              **wanted}
    for name, value in wanted.items():
        equal(report[name], value, name)
    check(report["total_ms"] > 0, "it took no time at all")
    check(abs(report["forward_bytes"] - report["qemu_bytes"]) < 1 << 20,
          f"QEMU has sent {report['qemu_bytes']}, and {report['forward_bytes']} were carried")
    return report


# -- what completes -----------------------------------------------------------------------------


@test_each("precopy, {}", ALL)
def _(version):
    pair = Pair(version, writes=0)
    run = pair.migrate(bandwidth=None)
    completed(pair, run, connections=1, postcopy=False, requests=0)
    for what in ("return-path: off -> on", r"max-bandwidth: \d+ -> 0"):
        run.says(f"QEMU: {what}\n")
    pair.far.says("QEMU: return-path: off -> on\n")
    pair.far.says(f"QEMU: migrate-incoming unix:{pair.folder}/in\n")
    pair.verify()


@test_each("multifd 4, {}", ALL)
def _(version):
    pair = Pair(version)
    report = completed(pair, pair.migrate("--multifd", 4), connections=5)
    check(report["packets"] > 0, "no packets of multifd")
    pair.far.says("QEMU: multifd-channels: 2 -> 4\n")
    pair.verify()


MOVES = {"postcopy": (["--postcopy"], 1), "preempt": (["--postcopy", "--preempt"], 2),
         "multifd 2 and preempt": (["--postcopy", "--preempt", "--multifd", 2], 4)}


@test_each("{}, {}", [("postcopy", v) for v in NEW] + [("preempt", v) for v in NEW] +
           [("multifd 2 and preempt", "11.1")])
def _(name, version):
    options, connections = MOVES[name]
    pair = Pair(version, **BUSY)
    run = pair.migrate(*options, "--downtime-limit", "1ms", "--max-postcopy-bandwidth", "8M",
                       bandwidth="6M")
    report = completed(pair, run, connections=connections, postcopy=True)
    check(report["qemu_bytes"] > pair.source.pages * 4096, "it has moved before round 1 was through")
    check(report["requests"] > 0, "no page was asked for")
    counts = "QEMU: a page that was missing was there after " in pair.far.err.text
    equal(counts, version == "11.1", "whether the destination's relay tells of faults")
    pair.verify()


@test_each("a preempt channel that machines of old open early, {}", ["7.2"])
def _(version):
    pair = Pair(version)
    completed(pair, pair.migrate("--postcopy", "--preempt"), connections=2)
    pair.verify()


@test_each("as text, {}", ["11.1"])
def _(version):
    pair = Pair(version)
    run = pair.migrate(form=()).ends(0)
    lines = run.out.text.split("\n")
    check(re.match(r"migration completed: over \S+, control plain text$", lines[0]), lines[0])
    for line, wanted in zip(lines[1:], ("time", "QEMU", "relay", "the guest runs at the dest")):
        check(line.strip().startswith(wanted), f"`{line}` is not of {wanted}")
    run.says(r"\nactive round 1: [0-9.]+ MiB left, ")
    run.says(r"\ncompleted round ")
    pair.verify()


# -- relay --tune at the source -----------------------------------------------------------------

TUNED = {  # capabilities that are on before: (QEMU, those that are set)
    "11.1": [([], {"return-path", "multifd", "max-bandwidth"}),
             (["postcopy-ram"], {"return-path", "multifd", "max-bandwidth", "postcopy-preempt"})],
    "10.0": [([], {"return-path", "multifd", "max-bandwidth"}),
             (["postcopy-ram"], {"return-path", "max-bandwidth", "postcopy-preempt"}),
             (["xbzrle"], {"return-path", "max-bandwidth"})],
    "7.2": [([], {"return-path", "multifd", "max-bandwidth"}),
            (["postcopy-ram"], {"return-path", "max-bandwidth"})],
}


@test_each("relay --tune at both ends, {}", ALL)
def _(version):
    for before, wanted in TUNED[version]:
        how = {"machine": "pc-q35-7.2"} if version == "7.2" else {}
        pair = Pair(version, writes=0, **how)
        pair.source.set_up(before, {})
        near = Program(harness.binary, "relay", "--role", "source", "--listen",
                       f"unix:{pair.folder}/near", "--peer", pair.to, "--qmp", pair.source.qmp,
                       "--tune")
        near.says("listening on ")
        equal(set(re.findall(r"^viaduct: QEMU: (\S+): \S+ -> \S+$", near.err.text, re.M)), wanted,
              f"what was set beside {before}")
        pair.source.execute("migrate", uri=f"unix:{pair.folder}/near")
        near.ends(0)
        pair.far.ends(0)
        for name in ("return-path", "multifd", "postcopy-ram", "postcopy-preempt", "xbzrle"):
            equal(pair.is_on(pair.destination, name), pair.is_on(pair.source, name), name)
        pair.verify()


@test_each("a QEMU that answers nobody for a while, {}", ["11.1"])
def _(version):
    """As when its main loop stands still; here all of it does."""
    pair = Pair(version)
    run = pair.migrate("--multifd", 2, **SLOW)
    run.says(r"\nviaduct: relay: ")
    pair.source.kill(signal.SIGSTOP)
    run.says("QEMU has not answered for 10 s: the migration goes on\n", 30)
    pair.source.kill(signal.SIGCONT)
    pair.source.execute("migrate-set-parameters", max_bandwidth=0)
    completed(pair, run, connections=3)
    pair.verify()


# -- what is refused ----------------------------------------------------------------------------


def failed(pair, run, pattern, result="failed"):
    """With this error, and the guest lives on at the source."""
    report = run.ends(1).json()
    equal(report["result"], result, "result")
    check(re.search(pattern, report["error"]["seen"]), f"the error is {report['error']}")
    pair.check_source_lives()
    return report


@test_each("a relay at the destination that cannot set its QEMU, {}", ["11.1"])
def _(version):
    pair = Pair(version, tune=False)
    report = failed(pair, pair.migrate(), "^the relay beside it has no --qmp$")
    check("--qmp SOCKET --tune" in report["error"]["remedy"], str(report["error"]))
    check(report["error"]["what"].startswith("at the peer: "), str(report["error"]))
    pair.far.ends(1)
    equal(pair.destination.execute("query-status")["status"], "inmigrate", "the destination")


@test_each("a destination that is set, and differently, {}", ["11.1"])
def _(version):
    pair = Pair(version, "--qmp", "", tune=False)
    pair.far.end()
    pair.far = Program(harness.binary, "relay", "--role", "destination", "--listen", "127.0.0.1:0",
                       "--qemu", f"unix:{pair.folder}/in", "--qmp", pair.destination.qmp)
    pair.to = pair.far.says(r"listening on (\S+)\n").group(1)
    pair.destination.set_up(["return-path"], {})
    pair.destination.execute("migrate-incoming", uri=f"unix:{pair.folder}/in")
    failed(pair, pair.migrate("--multifd", 3), r"^multifd off, not on; multifd-channels 2, not 3$")


@test_each("a destination whose QEMU refuses, in its own words, {}", NEW)
def _(version):
    pair = Pair(version)
    pair.destination.set_up(["xbzrle"], {})
    pair.destination.execute("migrate-incoming", uri=f"unix:{pair.folder}/else")
    said = "Multifd must be set before incoming starts"
    report = failed(pair, pair.migrate("--multifd", 2), f"^{said}$")
    check("migrate-set-capabilities" in report["error"]["what"], str(report["error"]))
    check(said in pair.far.ends(1).err.text, "the destination's relay does not say it")


@test_each("what the source's QEMU refuses, in its own words, {}", ["10.0"])
def _(version):
    pair = Pair(version)
    run = pair.migrate("--postcopy", "--multifd", 2)
    failed(pair, run, "^Postcopy is not yet compatible with multifd$", "not begun")
    equal(pair.is_on(pair.source, "return-path"), False, "return-path, which was not set alone,")


@test_each("what would lose the guest, {}", ["7.2"])
def _(version):
    pair = Pair(version)
    failed(pair, pair.migrate("--postcopy", "--multifd", 2), "loses the guest by it$", "not begun")
    pair = Pair("11.1", machine="pc-q35-7.2")
    run = pair.migrate("--postcopy", "--preempt", "--multifd", 2)
    failed(pair, run, "^with multifd QEMU waits for ever", "not begun")


@test_each("what a QEMU does not know, {}", ["7.2"])
def _(version):
    """A source that has what the destination's QEMU has never heard of."""
    peer = peers.get("11.1")
    pair = Pair(version)
    pair.source.end()
    pair.source = Qemu(peer, pair.folder, "newer", machine="pc-q35-7.2", writes=2000, checks=4000)
    pair.source.set_up(["return-path", "switchover-ack"], {})
    failed(pair, pair.migrate(), "'switchover-ack'$")


@test_each("a peer that is not there, {}", ["11.1"])
def _(version):
    pair = Pair(version)
    pair.to = harness.closed_port()
    failed(pair, pair.migrate(), "^Connection refused$")


@test_each("--resume of what has not paused, {}", ["11.1"])
def _(version):
    pair = Pair(version)
    failed(pair, pair.migrate("--resume"), "^it is none, not postcopy-paused$", "not begun")


# -- what is ended ------------------------------------------------------------------------------


@test_each("{} before the switch, {}", [("SIGINT", v) for v in NEW] + [("SIGTERM", "11.1")])
def _(name, version):
    pair = Pair(version)
    run = pair.migrate("--multifd", 2, **SLOW)
    run.says(r"\nviaduct: relay: ")
    run.kill(getattr(signal, name))
    failed(pair, run, "^canceled by request$", "canceled")
    check(pair.destination.has_ended(20), "the destination still waits")


@test_each("SIGINT as soon as QEMU begins, {}", NEW)
def _(version):
    """With multifd QEMU may stay in `cancelling` for ever then, in 3 of 10, also with nobody between."""
    for _ in range(4):
        pair = Pair(version)
        run = pair.migrate("--multifd", 8, bandwidth=None)
        run.says("QEMU: events: off -> on\n")
        run.kill(signal.SIGINT)
        failed(pair, run, "^canceled by request$", "canceled")


@test_each("--timeout, {}", ["11.1"])
def _(version):
    pair = Pair(version)
    failed(pair, pair.migrate("--timeout", "500ms", **SLOW), "^not done within --timeout$",
           "canceled")


@test_each("a QEMU that dies, {}", ["11.1"])
def _(version):
    pair = Pair(version)
    run = pair.migrate(form=(), **SLOW)
    run.says(r"\nviaduct: relay: ")
    pair.source.end()
    run.ends(1)
    check("closed the connection" in run.error()[0], f"the error is {run.error()}")
    check("  QEMU here does not answer: " in run.out.text, f"it says: {run.out.text}")
    pair.check_folder()
    check(pair.destination.has_ended(20), "the destination still waits")


def in_postcopy(version, *options, **how):
    """(a pair, the program) when the guest has moved and most of its memory has not."""
    pair = Pair(version, **how)
    run = pair.migrate(*THEN_SLOW, *options, **SLOW)
    switch(pair, run)
    return pair, run


def switch(pair, run):
    """Before the program does, so that most is lacking."""
    run.says(r"\nactive round ")
    pair.source.live(3)
    pair.source.execute("migrate-start-postcopy")
    run.says(r"\npostcopy-active: ")
    pair.destination.monitor.wait("RESUME")


def resumed(pair, run):
    """@run has ended and says how to go on; it is done as it says."""
    report = run.ends(1).json()
    equal(report["result"], "paused", "result")
    equal(report["status"], "postcopy-paused", "status")
    check(report["remaining_bytes"] > 0, "nothing is lacking")
    pair.source.execute("migrate-set-parameters", max_postcopy_bandwidth=0)
    again = pair.migrate("--resume")
    completed_again = again.ends(0).json()
    equal(completed_again["result"], "completed", "result")
    pair.far.says(f"QEMU: migrate-recover unix:{pair.folder}/in\n")
    pair.far.ends(0)
    pair.verify()


@test_each("a cut in postcopy, and --resume, {}", NEW)
def _(version):
    pair, run = in_postcopy(version, "--preempt", link=True)
    pair.link.cut()
    resumed(pair, run)


@test_each("SIGINT in postcopy tells first what it would do, {}", ["11.1"])
def _(version):
    pair, run = in_postcopy(version)
    run.kill(signal.SIGINT)
    run.says("too late to cancel: the guest runs at the destination, and [0-9.]+ [KM]iB of its mem")
    run.kill(signal.SIGINT)
    run.says("QEMU's connections are cut off: the migration pauses\n")
    resumed(pair, run)


@test_each("how to go on, as text, {}", ["11.1"])
def _(version):
    pair = Pair(version, link=True)
    run = pair.migrate(*THEN_SLOW, form=(), **SLOW)
    switch(pair, run)
    pair.link.cut()
    run.ends(1)
    said = re.search(LEAVES, run.out.text)
    check(said, f"it says: {run.out.text}")
    equal(said.groups(), (pair.source.qmp, pair.to), "the way to go on")
    pair.source.execute("migrate-set-parameters", max_postcopy_bandwidth=0)
    again = Program(harness.binary, *said.group().split()[1:])
    pair.destination.check_all()
    again.ends(0)
    pair.far.ends(0)
    pair.verify()


def main():
    arguments = [a for a in sys.argv[1:] if a != "--quick"]
    return harness.main(*arguments, **({"choose": QUICK.search} if "--quick" in sys.argv else {}))


if __name__ == "__main__":
    sys.exit(main())
