#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The program when its own host fails it, or its user does not want it any more: limits, sockets,
full disks, signals before anybody has come. What goes wrong between two hosts is in cli_failures.py.

    cli_host.py VIADUCT [PART OF A CASE'S NAME]
"""

import ctypes
import os
import re
import resource
import signal
import socket
import sys
import time

import harness
from harness import Run, Skip, check, equal, receive, send, test, test_each

PIDFD_GETFD = 438


# -- limits --------------------------------------------------------------------------------


def messages(run, pattern):
    """(what and seen, remedy) of each of its messages that is so."""
    said = re.findall(r"^viaduct: (.+)\n  try: (.+)$", run.err.text, re.M)
    return [message for message in said if re.search(pattern, message[0])]


@test("demo says what its destination saw, where the source did not hear of it")
def _():
    fifo = os.path.join(harness.case.folder(), "stats")
    os.mkfifo(fifo)
    run = Run("demo", "--memory", "4M", "--stats-file", fifo)
    # The source waits for somebody who reads: it has not connected.
    resource.prlimit(run.child(), resource.RLIMIT_NOFILE, (0, 0))
    reader = os.open(fifo, os.O_RDONLY)
    run.ends(1)
    os.close(reader)
    said = messages(run, "^at the destination: ")
    equal(len(said), 1, "how often it says what the destination saw")
    check("ulimit -n" in said[0][1], f"the remedy is `{said[0][1]}`")
    equal(len(messages(run, ".")), 2, "the messages of both sides")


@test("demo says once what both sides know")
def _():
    run = Run("demo", "--memory", "64M", "--max-bandwidth", "8M/s")
    run.says("precopy round 1")
    os.kill(run.child(), signal.SIGTERM)
    run.ends(1)
    equal([what for what, _ in messages(run, ".")], ["at the peer: migration: aborted by request"],
          "its messages")


# -- the listening socket ------------------------------------------------------------------


def shut_listening_socket(pid):
    """As nothing does that is known: accept(2) fails from now on, and no wait for it blocks."""
    pidfd = os.pidfd_open(pid)
    for number in map(int, os.listdir(f"/proc/{pid}/fd")):
        if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
            continue
        fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            raise Skip("this user may not have descriptors of other processes")
        with socket.socket(fileno=fd) as s:
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                s.shutdown(socket.SHUT_RDWR)
    os.close(pidfd)


def check_pauses(run, pattern):
    """It says so again and again, but not all the time."""
    begun, at = time.monotonic(), 0
    for _ in range(3):
        at = run.says(pattern, 20, at).end()
    check(time.monotonic() - begun > 1.5, "it does not wait in between")


@test("a receiver that cannot accept tries again now and then")
def _():
    run, _ = receive()
    shut_listening_socket(run.pid)
    check_pauses(run, "viaduct: accept a connection: .*\n.*\nviaduct: still listening\n")
    run.kill(signal.SIGTERM)
    run.ends(1, 5)


@test("a paused receiver that cannot accept tries again now and then")
def _():
    run, address = receive("--dead-after", "1s")
    source = send(address, "--fabric", "ofi:tcp", "--dirty-rate", "unlimited", "--downtime-limit",
                  "1us", "--postcopy", "--max-postcopy-bandwidth", "8M/s", memory="64M")
    source.says("postcopy: ")
    shut_listening_socket(run.pid)
    source.kill(signal.SIGKILL)
    check_pauses(run, "the migration is paused: accept a connection: ")
    run.kill(signal.SIGTERM)
    run.ends(1, 5)


# -- nobody has come -----------------------------------------------------------------------


@test_each("{} to a receiver that waits: nothing is lost", ["SIGINT", "SIGTERM"])
def _(name):
    run, _ = receive()
    run.kill(getattr(signal, name))
    run.ends(1, 5)
    equal(run.error()[0], "wait for a source: ended by request", "the message")
    equal(run.out.text, "no guest has come, and none is lost\n", "stdout")


# -- figures -------------------------------------------------------------------------------


@test("a file of figures that cannot be written is told once, and the migration goes on")
def _():
    run = Run("demo", "--memory", "16M", "--vcpus", 0, "--max-bandwidth", "8M/s", "--stats-file",
              "/dev/full").ends(0)
    said = messages(run, ".")
    equal([what for what, _ in said], ["write figures to /dev/full: No space left on device"],
          "its messages")
    check("make room" in said[0][1], f"the remedy is `{said[0][1]}`")


sys.exit(harness.main(*sys.argv[1:]))
