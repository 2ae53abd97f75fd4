#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""One host with an RDMA device: whole migrations, and what is said when the device is not right.

    migrations.py VIADUCT FABRIC+FABRIC... [NUMBER [SEED]]

Inside `scripts/rxe-vm`. NUMBER demos over each fabric, every other one in postcopy; with the same
SEED the same ones.
"""

import ctypes
import json
import random
import re
import resource
import sys

import rxe
from rxe import command, harness, put_back
from harness import Run, check, equal, test, test_each

PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14
ADD_DEVICE = ["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "dummy0"]


@test("the fabrics are there")
def _():
    shown = json.loads(Run("fabrics", "--json").ends(0).out.text)
    usable = {f["fabric"].removesuffix(":rxe0") for f in shown if f["usable"]}
    check(fabrics <= usable, f"of {sorted(fabrics)} there are {sorted(usable)}")


# -- migrations -----------------------------------------------------------------------


def arguments(fabric, number, chosen):
    """Small guests: an emulated processor moves memory at a 25th of its speed."""
    args = {
        "fabric": fabric,
        "memory": chosen.randint(1, 4096) * 4096,
        "vcpus": chosen.randint(0, 2),
        "multifd": chosen.choice([1, 2, 2, 3]),
        "dirty-rate": chosen.choice(["0", "1M/s", "20M/s", "unlimited"]),
        "downtime-limit": chosen.choice(["1us", "20ms", "300ms"]),
        "max-rounds": chosen.randint(1, 5),
        "seed": chosen.getrandbits(63),
    }
    if number % 2:
        args.update({"postcopy-after": 1, "preempt": chosen.choice([1, 2])})
    return args


def demo(args):
    words = [word for key, value in args.items() for word in (f"--{key}", value)]
    report = Run("demo", *words, "--json").ends(0, seconds=50).json()
    rxe.check_completed(report, args["memory"])
    equal(report["fabric"], args["fabric"].split(",")[0], "fabric")


def add_demos(names, count, seed):
    for fabric in names:
        for i in range(count):
            args = arguments(fabric, i, random.Random(f"{seed} {i}"))
            harness.add("demo " + " ".join(f"--{k} {v}" for k, v in args.items()),
                        lambda a=args: demo(a))


# -- what is not right ------------------------------------------------------------------


def fails(fabric, pattern, **kwargs):
    """A demo that does not begin, with a message that names the cause."""
    run = Run("demo", "--fabric", fabric, "--memory", "4M", **kwargs)
    check(run.wait(30) != 0, "it went well")
    run.check_sane()
    what, _ = run.error()
    check(re.search(pattern, what), f"it says: {what}")


@test_each("{} without a device", [
    ("verbs", "this host has none"),
    ("ofi:verbs", "no such provider"),
])
def _(fabric, pattern):
    with put_back(*ADD_DEVICE):
        command("rdma", "link", "del", "rxe0")
        fails(fabric, pattern)


@test_each("{} of which there is none", [
    ("verbs:rxe7", "rxe7"),
    ("verbs,gid-index=77", "77"),
    ("verbs,port=2", "2"),
])
def _(fabric, pattern):
    fails(fabric, pattern)


@test_each("{} whose port is down", [
    ("verbs", "down"),
    ("ofi:verbs", "no such provider|no usable provider|no IP address"),
])
def _(fabric, pattern):
    with put_back("ip", "link", "set", "dummy0", "up"):
        command("ip", "link", "set", "dummy0", "down")
        fails(fabric, pattern)


@test_each("{} without an address", [
    ("verbs", "link-local"),
    ("ofi:verbs", "no IP address"),
])
def _(fabric, pattern):
    with put_back("ip", "addr", "add", "198.51.100.1/24", "dev", "dummy0"):
        command("ip", "addr", "flush", "dev", "dummy0")
        fails(fabric, pattern)


@test_each("{} when memory cannot be locked", [
    ("verbs", "locked"),
    ("ofi:verbs", "memory"),
])
def _(fabric, pattern):
    def before():
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    fails(fabric, pattern, before=before)


def main(binary, names, number=2, seed=None):
    seed = int(seed) if seed is not None else random.SystemRandom().getrandbits(32)
    fabrics.update(names.split("+"))
    add_demos(names.split("+"), int(number), seed)
    return harness.main(binary, note=f"migrations.py VIADUCT {names} {number} {seed}")


fabrics = set()
sys.exit(main(*sys.argv[1:]))
