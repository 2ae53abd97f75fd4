# SPDX-License-Identifier: BSD-2-Clause
"""What is tried over each transport, and what is expected of each QEMU.

A scenario completes unless verdict() says otherwise: what a QEMU refuses has to be refused, and
what it is known to get wrong by itself is skipped, with the reason.
"""

import collections
import itertools
import json
import resource
import signal

import harness
from harness import Failure, Skip, check
from migration import SOON_S, Migration, bandwidth, mode
from qmp import Refused
from transports import ImpatientRelay

SLOW = bandwidth(16, 16)  # MiB/s: seconds in which something can happen

# basic: also between different QEMUs, and with old machines.
Scenario = collections.namedtuple("Scenario", "name run basic")

ALL = []


def scenario(name, basic=False):
    """Decorator: a function of a setting, called @name."""
    def decorate(function):
        ALL.append(Scenario(name, function, basic))
        return function
    return decorate


def verdict(setting, chosen):
    """None when that mode has to work; raises Skip; or a word of the refusal."""
    oldest = min(setting.source.version, setting.destination.version)
    if chosen.channels and chosen.postcopy:
        if oldest < (8, 1):
            raise Skip("QEMU before 8.1 takes multifd with postcopy, and loses the guest")
        if oldest < (10, 1):
            return "multifd"
    if chosen.channels and chosen.preempt and early_preempt(setting):
        raise Skip("QEMU since 10.1 waits for the first bytes of an early preempt channel for ever")
    return None


def early_preempt(setting):
    """Does the source open the preempt channel at the start, as QEMU 7.2 did?"""
    return setting.source.version < (8, 0) or setting.machine == "pc-q35-7.2"


def started(setting, chosen, limits=None, shuffle=None, **how):
    """A migration that is about to begin; None when it is to be refused, and is."""
    word = verdict(setting, chosen)
    if not word:
        return Migration(setting, chosen, limits, shuffle, **how)
    try:
        Migration(setting, chosen).wait_for_guest()
    except Refused as refusal:
        check(word in str(refusal), str(refusal))
        return None
    raise Failure(f"nobody has refused it for {word}")


def tell(result):
    """What QEMU says of a migration that has completed, as a comment of TAP."""
    print("# " + json.dumps({"case": harness.case.name, **result}))


def completes(chosen, limits=None, shuffle=None):
    def run(setting):
        migrating = started(setting, chosen, limits, shuffle)
        if migrating:
            with migrating:
                migrating.go()
                tell(migrating.complete())
    return run


# -- every mode ----------------------------------------------------------------------------

MODES = {
    "precopy": mode(), "precopy-one-way": mode(return_path=False),
    "multifd-2": mode(2), "multifd-4": mode(4), "multifd-8": mode(8),
    "postcopy": mode(postcopy=True), "preempt": mode(preempt=True),
    "multifd-postcopy-2": mode(2, postcopy=True),
    "multifd-preempt-2": mode(2, preempt=True), "multifd-preempt-4": mode(4, preempt=True),
    "multifd-zlib-2": mode(2, compression="zlib"), "multifd-zstd-4": mode(4, compression="zstd"),
    "tls": mode(tls=True), "tls-multifd-4": mode(4, tls=True),
    "tls-preempt": mode(preempt=True, tls=True),
    "tls-multifd-preempt-2": mode(2, preempt=True, tls=True),
}
BASIC = ("precopy", "multifd-4", "postcopy", "preempt", "multifd-postcopy-2", "multifd-preempt-2")

for _name, _mode in MODES.items():
    scenario(_name, _name in BASIC)(completes(_mode))


@scenario("multifd-64")
def _(setting):
    """More descriptors than a shell has at first: 16 for each channel over ofi:tcp."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), most))
    try:
        completes(mode(64))(setting._replace(fabric=setting.fabric or "ofi:tcp"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))


# -- every order ---------------------------------------------------------------------------


def is_lost(setting, chosen, shuffle):
    """Does the destination get another channel first, and take it for the main one?

    QEMU before 8.0 does that whatever the channel says, and later ones when it says nothing.
    """
    main_first = shuffle["order"][:1] in ((), (0,)) and 0 not in shuffle.get("late", {})
    careless = setting.destination.version < (8, 0) or chosen.preempt and early_preempt(setting)
    return (careless and shuffle["what"] == "connections" and not main_first
            and not setting.transport.keeps_order)


def fails(setting, chosen, shuffle):
    """What shows that shuffling works: a QEMU that needs the order does not get it."""
    with started(setting, chosen, shuffle=shuffle) as migrating:
        migrating.go()
        migrating.until(migrating.source, "failed")
        migrating.check_source_lives()


def arrives(chosen, order=(), what="connections", **shuffle):
    """The connections, or the first bytes of each, come in that order."""
    shuffle.update(order=order, what=what)

    def run(setting):
        verdict(setting, chosen)
        if not is_lost(setting, chosen, shuffle):
            completes(chosen, shuffle=shuffle)(setting)
        elif setting.transport.ends or chosen.preempt or order[-1] != 0:
            raise Skip("a QEMU that gets its channels in this order waits for ever")
        else:
            fails(setting, chosen, shuffle)
    return run


for _what in ("connections", "bytes"):
    for _order in list(itertools.permutations(range(3)))[1:]:
        _text = "".join(map(str, _order))
        scenario(f"{_what}-{_text}", _text in ("120", "210"))(
            arrives(MODES["multifd-2"], _order, _what))
for _name, _order in {"main-last": (1, 2, 3, 4, 0), "reversed": (4, 3, 2, 1, 0),
                      "last-first": (4, 0, 1, 2, 3)}.items():
    scenario(f"connections-{_name}")(arrives(MODES["multifd-4"], _order))
    scenario(f"connections-{_name}-slow")(arrives(MODES["multifd-4"], _order, gap_s=0.2))
for _name in ("multifd-postcopy-2", "multifd-preempt-2"):
    scenario(f"{_name}-main-last")(arrives(MODES[_name], (1, 2, 0)))
    scenario(f"{_name}-bytes-reversed")(arrives(MODES[_name], (2, 1, 0), "bytes"))
for _what in ("connections", "bytes"):
    scenario(f"preempt-main-late-{_what}")(arrives(MODES["preempt"], (), _what, late={0: 0.5}))
    scenario(f"preempt-late-{_what}")(arrives(MODES["preempt"], (), _what, late={1: 0.5}))
    scenario(f"multifd-preempt-late-{_what}")(
        arrives(MODES["multifd-preempt-2"], (), _what, late={3: 0.5}))


@scenario("preempt-before-main", basic=True)
def _(setting):
    if not early_preempt(setting):
        raise Skip("this QEMU opens the preempt channel when the main channel is known")
    arrives(MODES["preempt"], (1, 0))(setting)


# -- recovery ------------------------------------------------------------------------------


def recovers(chosen, hurt, same=False, restarted=()):
    """@hurt comes between the two while the guest runs at the destination, and they go on.

    Elsewhere, or, with @same, where they were, and through whoever stands between, of whom those
    in @restarted had to be started again.
    """
    def run(setting):
        migrating = started(setting, chosen, SLOW)
        if migrating:
            with migrating:
                migrating.go()
                migrating.switch()
                hurt(migrating)
                migrating.pause()
                migrating.recover(same)
                if same:
                    migrating.way.check_resumed(restarted)
                tell(migrating.verify())
    return run


def ends_of(setting, role):
    if role not in setting.transport.ends:
        raise Skip("nothing stands between that could die")


def cut(migrating):
    migrating.way.cut(migrating.source)


for _name in ("postcopy", "preempt", "multifd-preempt-2", "tls-preempt"):
    scenario(f"recover-{_name}", basic=_name == "preempt")(recovers(MODES[_name], cut))
    scenario(f"recover-same-{_name}", basic=_name == "preempt")(
        recovers(MODES[_name], cut, same=True))


@scenario("recover-twice-multifd-preempt-2")
def _(setting):
    def twice(migrating):
        cut(migrating)
        migrating.pause()
        since = migrating.begin_again(migrating.there)
        for qemu, after in since.items():
            qemu.monitor.status("postcopy-active", after=after)
        migrating.destination.live(10)  # before it has the preempt channel, QEMU cannot be helped
        cut(migrating)
        migrating.pause(since)
    recovers(MODES["multifd-preempt-2"], twice, same=True)(setting)


for _role in ("source", "destination"):
    @scenario(f"relay-dies-{_role}-in-postcopy")
    def _(setting, role=_role):
        ends_of(setting, role)
        recovers(MODES["preempt"], lambda migrating: migrating.way.die(role))(setting)

    for _name in ("preempt", "multifd-preempt-2"):
        @scenario(f"relay-restarts-{_role}-{_name}")
        def _(setting, role=_role, chosen=MODES[_name]):
            ends_of(setting, role)
            recovers(chosen, lambda migrating: migrating.way.die(role), same=True,
                     restarted=(role,))(setting)


# -- one between that stands still ---------------------------------------------------------


def impatient(setting):
    """Over relays that miss their peer within two seconds."""
    if not setting.transport.notices:
        raise Skip("nobody notices here that the other side stands still")
    return setting._replace(transport=ImpatientRelay)


def stands_still(role, then):
    """In postcopy: the other relay closes; @then that one goes on, or is ended, and both recover."""
    def hurt(migrating):
        relay = migrating.way.running[role]
        relay.kill(signal.SIGSTOP)
        noticing = migrating.source if role == "destination" else migrating.destination
        noticing.monitor.status("postcopy-paused", seconds=SOON_S)
        then(relay)
    return hurt


for _role in ("source", "destination"):
    for _name in ("preempt", "multifd-preempt-2"):
        @scenario(f"relay-stands-still-{_role}-{_name}")
        def _(setting, role=_role, chosen=MODES[_name]):
            recovers(chosen, stands_still(role, lambda relay: relay.kill(signal.SIGCONT)),
                     same=True)(impatient(setting))

    @scenario(f"relay-stands-still-and-dies-{_role}")
    def _(setting, role=_role):
        recovers(MODES["preempt"], stands_still(role, lambda relay: relay.end()), same=True,
                 restarted=(role,))(impatient(setting))

# -- what ends before it is done -----------------------------------------------------------------


def underway(setting, chosen):
    """A migration that has begun and will take seconds."""
    migrating = started(setting, chosen, SLOW)
    migrating.go()
    for qemu in (migrating.source, migrating.destination):
        migrating.until(qemu, "active")
    migrating.source.live(5)
    return migrating


def again(migrating):
    """After a failure: the guest lives at the source, and can be migrated all the same."""
    migrating.check_source_lives()
    migrating.source.execute("migrate-set-parameters", **bandwidth(128))
    migrating.go()
    tell(migrating.complete())


for _name in ("precopy", "multifd-4"):
    @scenario(f"cancel-{_name}", basic=_name == "multifd-4")
    def _(setting, chosen=MODES[_name]):
        with underway(setting, chosen) as migrating:
            migrating.source.execute("migrate_cancel")
            # QEMU closes the return path first, and its own thread may take that for a failure.
            migrating.until(migrating.source, "cancelled", "failed")
            migrating.check_destination_ends()
            again(migrating)

    @scenario(f"destination-dies-{_name}")
    def _(setting, chosen=MODES[_name]):
        with underway(setting, chosen) as migrating:
            migrating.destination.end()
            migrating.until(migrating.source, "failed", seconds=SOON_S)
            again(migrating)

    @scenario(f"source-dies-{_name}")
    def _(setting, chosen=MODES[_name]):
        with underway(setting, chosen) as migrating:
            migrating.source.end()
            migrating.check_destination_ends()

    for _role in ("source", "destination"):
        @scenario(f"relay-dies-{_role}-{_name}")
        def _(setting, chosen=MODES[_name], role=_role):
            ends_of(setting, role)
            with underway(setting, chosen) as migrating:
                migrating.way.die(role)
                migrating.until(migrating.source, "failed", seconds=SOON_S)
                migrating.check_destination_ends()
                again(migrating)

        @scenario(f"relay-stands-still-{_role}-{_name}")
        def _(setting, chosen=MODES[_name], role=_role):
            with underway(impatient(setting), chosen) as migrating:
                relay = migrating.way.running[role]
                relay.kill(signal.SIGSTOP)
                notices = [lambda: migrating.until(migrating.source, "failed", seconds=SOON_S),
                           migrating.check_destination_ends]
                for notice in notices if role == "destination" else notices[::-1]:
                    notice()
                    relay.kill(signal.SIGCONT)
                again(migrating)

    @scenario(f"relays-stand-still-{_name}")
    def _(setting, chosen=MODES[_name]):
        with underway(impatient(setting), chosen) as migrating:
            relays = migrating.way.running.values()
            for relay in relays:
                relay.kill(signal.SIGSTOP)
            migrating.source.live(150)  # for longer than they are patient
            for relay in relays:
                relay.kill(signal.SIGCONT)
            migrating.source.execute("migrate-set-parameters", **bandwidth(128))
            tell(migrating.complete())

    @scenario(f"cut-{_name}")
    def _(setting, chosen=MODES[_name]):
        ends_of(setting, "source")
        with underway(setting, chosen) as migrating:
            migrating.way.cut(migrating.source)
            migrating.until(migrating.source, "failed", seconds=SOON_S)
            migrating.check_destination_ends()
            again(migrating)

    @scenario(f"bad-destination-{_name}")
    def _(setting, chosen=MODES[_name]):
        with started(setting, chosen) as migrating:
            nobody = ("tcp:" + harness.closed_port() if setting.kind == "tcp" else
                      f"unix:{migrating.folder}/nobody")
            try:
                migrating.go(nobody)
                migrating.until(migrating.source, "failed", seconds=SOON_S)
            except Refused:
                pass
            again(migrating)

for _who in ("source", "destination"):
    @scenario(f"{_who}-dies-in-postcopy")
    def _(setting, who=_who):
        with started(setting, MODES["preempt"], SLOW) as migrating:
            migrating.go()
            migrating.switch()
            ends = {"source": migrating.source, "destination": migrating.destination}
            ends.pop(who).end()
            for qemu in ends.values():
                qemu.monitor.status("postcopy-paused", seconds=SOON_S)
