#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Migrations of stock QEMUs, direct, through a plain proxy, and through viaduct relay.

    matrix.py [OPTION...] VIADUCT

A case is TRANSPORT/SOCKET/QEMU/SCENARIO. QEMU is SOURCE[-DESTINATION][@MACHINE]: 11.1,
7.2-11.1 (with the older one's machine), 11.1@8.2 (with the machine of 8.2). The QEMUs
are fetched by scripts/qemu-peers. After each migration the guest has checked all of its
memory, and has told of every moment of its life.
"""

import argparse
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import costs  # pylint: disable=unused-import
import harness
import peers
import scenarios
import transports
from migration import Setting

SAME = ["11.1", "10.0", "7.2"]
OLD_MACHINES = ["11.1@7.2", "11.1@8.0", "11.1@8.2", "11.1@9.2"]
DIFFERENT = ["7.2-10.0", "7.2-11.1", "10.0-11.1", "11.1-10.0"]
QUICK = re.compile("|".join([
    r"unix/11\.1/(precopy|multifd-4|preempt|multifd-preempt-2|connections-120|bytes-210"
    r"|recover-same-multifd-preempt-2|cancel-multifd-4|source-dies-precopy)$",
    r"(proxy|relay)/unix/11\.1/relay-dies-source-precopy$",
    r"relay/unix/11\.1/(tls-multifd-preempt-2|multifd-zstd-4|multifd-64)$", r"tcp/11\.1/multifd-preempt-2$",
    r"unix/10\.0/(preempt|multifd-postcopy-2)$", r"unix/7\.2/multifd-4$",
    r"(direct|relay)/unix/7\.2/connections-120$"]))


def setting(transport, kind, qemu, fabric):
    """What the word @qemu stands for; skips when one of its QEMUs cannot be had."""
    names, _, machine = qemu.partition("@")
    names = names.split("-")
    source, destination = peers.get(names[0]), peers.get(names[-1])
    if not machine and source != destination:
        machine = "%d.%d" % min(source.version, destination.version)
    return Setting(transports.ALL[transport], kind, source, destination,
                   f"pc-q35-{machine}" if machine else "q35", fabric)


def cases(options):
    """(name, function) of each."""
    for transport in options.transport:
        for kind in options.socket:
            for qemu in options.qemu:
                for scenario in scenarios.ALL:
                    name = f"{transport}/{kind}/{qemu}/{scenario.name}"
                    whole = qemu in SAME or scenario.basic and kind == "unix"
                    if whole and options.filter.search(name) and (
                            not options.quick or QUICK.search(name)):
                        yield name, lambda run=scenario.run, args=(transport, kind, qemu): run(
                            setting(*args, options.fabric))


def words(known):
    """A list with commas, of words that are all among @known."""
    def parse(text):
        chosen = text.split(",")
        if known and not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"{text}: choose from {', '.join(known)}")
        return chosen
    return parse


def main():
    parser = argparse.ArgumentParser(usage="matrix.py [OPTION...] VIADUCT")
    parser.add_argument("viaduct")
    parser.add_argument("--transport", type=words(list(transports.ALL)),
                        default=list(transports.ALL), help="direct, proxy, relay (default: all)")
    parser.add_argument("--socket", type=words(["unix", "tcp"]), default=["unix", "tcp"],
                        help="between QEMU and what is next to it (default: both)")
    parser.add_argument("--qemu", type=words(None), default=SAME + OLD_MACHINES + DIFFERENT,
                        help=f"(default: {','.join(SAME + OLD_MACHINES + DIFFERENT)})")
    parser.add_argument("--filter", type=re.compile, default=re.compile(""), metavar="REGEX",
                        help="the cases in whose names it is found")
    parser.add_argument("--quick", action="store_true", help="a choice of less than a minute")
    parser.add_argument("--fabric", help="of the relay, as for viaduct send")
    parser.add_argument("--memory", type=int, default=peers.MEMORY_MIB, metavar="MIB",
                        help="of the guest (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names, and run none")
    options = parser.parse_args()
    peers.MEMORY_MIB = options.memory
    chosen = list(cases(options))
    if options.list:
        print("\n".join(name for name, _ in chosen))
        return 0
    for name, function in chosen:
        harness.add(name, function)
    return harness.main(options.viaduct)


if __name__ == "__main__":
    sys.exit(main())
