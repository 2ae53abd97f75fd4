#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""viaduct doctor where there is an RDMA device: the kernel's own files, each fault made for real.

    doctor.py VIADUCT

Inside `scripts/rxe-vm`; what only other devices can have is in tests/tools/doctor_test.c.
"""

import ctypes
import resource
import sys

from rxe import command, harness, put_back
from harness import Run, check, equal, test

PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14
ADDRESS = ["198.51.100.1/24", "dev", "dummy0"]


def doctor(*args, **kwargs):
    """The first finding of each check."""
    run = Run("doctor", "--memory", "16M", "--json", *args, **kwargs)
    run.wait()
    found = {}
    for finding in run.json()["checks"]:
        found.setdefault(finding["check"], finding)
    return found


def expect(found, name, verdict, seen, remedy=""):
    finding = found[name]
    equal(finding["verdict"], verdict, f"the verdict of {name}")
    check(seen in finding["seen"] and remedy in finding["remedy"], f"{name}: {finding}")


@test("doctor: a device as it should be")
def _():
    found = doctor("--fabric", "verbs")
    for name in "fabrics", "rdma-driver", "port", "gid", "roce-version", "pkey", "numa":
        equal(found[name]["verdict"], "ok", name)
    expect(found, "roce-version", "ok", "rxe0/1: RoCE v2")


@test("doctor: memlock")
def _():
    def before():
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    expect(doctor(before=before), "memlock", "fault", "64 KiB", "ulimit -l")


@test("doctor: pin=no without on-demand paging")
def _():
    expect(doctor("--fabric", "verbs:rxe0,pin=no"), "odp", "fault", "rxe0/1", "pin=no")


@test("doctor: link-local GIDs only")
def _():
    with put_back("ip", "addr", "replace", *ADDRESS):
        with put_back("ip", "addr", "replace", "fd00:5::1/64", "dev", "dummy0", "nodad"):
            command("ip", "addr", "flush", "dev", "dummy0", "scope", "global")
            expect(doctor(), "gid", "fault", "fe80:", "ip addr add ADDRESS/LEN dev dummy0")


@test("doctor: a small MTU")
def _():
    with put_back("ip", "link", "set", "dummy0", "mtu", "4200"):
        command("ip", "link", "set", "dummy0", "mtu", "1500")
        expect(doctor(), "mtu", "warning", "1024 bytes of 4096", "ip link set dev dummy0 mtu")


@test("doctor: a port that is down")
def _():
    with put_back("ip", "addr", "replace", "fd00:5::1/64", "dev", "dummy0", "nodad"):
        with put_back("ip", "link", "set", "dummy0", "up"):
            command("ip", "link", "set", "dummy0", "down")
            expect(doctor(), "port", "fault", "DOWN", "ip link set dev dummy0 up")


sys.exit(harness.main(sys.argv[1]))
