# SPDX-License-Identifier: BSD-2-Clause
"""What a relay takes: memory, and processor time while there is nothing to do."""

import contextlib
import signal
import time

from harness import Skip, check
from migration import mode
from scenarios import SLOW, scenario, started, tell

MEMORY_MIB = 64  # that one has at most, with 8 multifd channels
CALM_S = 2
FILL_S = 2

# What a relay may take in a second in which nothing happens: its control connection and QEMU's
# monitor wake it. Memory that the peer writes has to be looked at, in each endpoint.
IDLE_S, IDLE_WAKES = 0.01, 40
LOOKED_AT_S, LOOKED_AT_WAKES = 0.1, 5000

# Libraries that keep more for each endpoint than all that is ours, and what they keep.
GREEDY = {
    "ofi:shm": "libfabric's shm has a region of 4 MiB for each endpoint",
}


def relays(setting):
    if setting.transport.name != "relay":
        raise Skip("there is no relay")


@contextlib.contextmanager
def stopped(*runs):
    """These processes stand still meanwhile."""
    for run in runs:
        run.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        for run in runs:
            run.kill(signal.SIGCONT)


def check_calm(migrating, what, endpoints=0):
    """Nothing has to be done, and nothing is. @endpoints: those that have to be looked at."""
    runs = migrating.way.running
    time.sleep(0.5)  # what was under way arrives
    begin = {role: (run.cpu_s(), run.wakes()) for role, run in runs.items()}
    time.sleep(CALM_S)  # what is measured is that nothing happens in it
    for role, run in runs.items():
        cpu, wakes = ((now - before) / CALM_S for now, before in
                      zip((run.cpu_s(), run.wakes()), begin[role]))
        print(f"# {what}, {role}: {1e3 * cpu:.2f} ms of processor time and {wakes:.0f} wakes "
              "a second")
        check(cpu <= IDLE_S + endpoints * LOOKED_AT_S,
              f"{what}: the relay at the {role} takes {cpu:.3f} s in each second")
        check(wakes <= IDLE_WAKES + endpoints * LOOKED_AT_WAKES,
              f"{what}: the relay at the {role} wakes {wakes:.0f} times a second")


@scenario("relay-idle")
def _(setting):
    relays(setting)
    chosen = mode(4)
    endpoints = (1 + chosen.channels) * (setting.fabric == "ofi:shm")
    with started(setting, chosen, SLOW) as migrating:
        uri = migrating.lay()
        check_calm(migrating, "nobody migrates")
        migrating.begin(uri)
        for qemu in (migrating.source, migrating.destination):
            migrating.until(qemu, "active")
        with stopped(migrating.source, migrating.destination):
            check_calm(migrating, "QEMU sends nothing", endpoints)
        migrating.source.execute("migrate-set-parameters", max_bandwidth=1 << 30)
        with stopped(migrating.destination):
            time.sleep(FILL_S)  # nobody tells when everything is full
            check_calm(migrating, "QEMU takes nothing", endpoints)
        tell(migrating.complete())


@scenario("relay-memory")
def _(setting):
    relays(setting)
    with started(setting, mode(8), SLOW) as migrating:
        migrating.go()
        for qemu in (migrating.source, migrating.destination):
            migrating.until(qemu, "active")
        with stopped(migrating.destination):
            migrating.source.execute("migrate-set-parameters", max_bandwidth=1 << 30)
            time.sleep(FILL_S)
            found = {role: run.memory_mib() for role, run in migrating.way.running.items()}
        for role, memory in found.items():
            print(f"# {role}: " + ", ".join(f"{kind} {mib:.1f} MiB" for kind, mib in memory.items()))
        tell(migrating.complete())
        if setting.fabric in GREEDY:
            raise Skip(GREEDY[setting.fabric])
        for role, memory in found.items():
            check(memory["peak"] <= MEMORY_MIB,
                  f"the relay at the {role} had {memory['peak']:.1f} MiB")
