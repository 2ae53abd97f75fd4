# SPDX-License-Identifier: BSD-2-Clause
"""Two hosts and a router between them, each a network namespace of this machine.

    a (10.213.1.2) -- 10.213.1.1 router 10.213.2.1 -- b (10.213.2.2)

Neither end sees its own carrier go when the other link fails, and a packet that the router
drops is told to nobody. Nothing of it touches the machine's own network, and all of it is gone with
the process that made it.
"""

import atexit
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
NAMES = {name: f"viaduct-{os.getpid()}-{name}" for name in ("a", "r", "b")}
ADDRESS = {"a": "10.213.1.2", "b": "10.213.2.2"}
NET = {"a": "10.213.1", "b": "10.213.2"}

_libc = ctypes.CDLL(None, use_errno=True)


def run(*words):
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    harness.check(done.returncode == 0, f"{' '.join(str(w) for w in words)}: {done.stdout}")


def ip(host, *words):
    run("ip", "-n", NAMES[host], *words)


def at(host):
    """For harness.Run(before=): the program runs on @host."""
    def enter():
        fd = os.open(f"/run/netns/{NAMES[host]}", os.O_RDONLY)
        # /sys shows the devices of the namespace in which it was mounted, and some look there.
        if (_libc.setns(fd, CLONE_NEWNET) or _libc.unshare(CLONE_NEWNS)
                or _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
                or _libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None)):
            os._exit(127)
        os.close(fd)
    return enter


def why_not():
    """What keeps this machine from having such hosts; None: nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    try:
        build()
    except (OSError, harness.Failure) as failure:
        return f"no network namespaces here: {str(failure).strip()}"
    return None


def build():
    atexit.register(remove)
    for name in NAMES.values():
        run("ip", "netns", "add", name)
    for host in ("a", "b"):
        run("ip", "link", "add", "name", "r", "netns", NAMES[host], "type", "veth",
            "peer", "name", host, "netns", NAMES["r"])
        ip(host, "link", "set", "dev", "lo", "up")
        ip("r", "addr", "add", f"{NET[host]}.1/24", "dev", host)
        ip("r", "link", "set", "dev", host, "up")
    run("ip", "netns", "exec", NAMES["r"], "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    mend()


def remove():
    for name in NAMES.values():
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


# -- what can go wrong in between, and how it is mended ---------------------------------------


def mend():
    """Everything as it should be, whatever it was."""
    for host in ("a", "b"):
        ip("r", "link", "set", "dev", host, "up")
        ip("r", "route", "flush", "type", "blackhole")
        ip(host, "addr", "flush", "dev", "r")
        ip(host, "addr", "add", f"{ADDRESS[host]}/24", "dev", "r")
        ip(host, "link", "set", "dev", "r", "up")
        ip(host, "route", "replace", "default", "via", f"{NET[host]}.1")
        subprocess.run(["tc", "-n", NAMES["r"], "qdisc", "del", "dev", host, "root"],
                       stderr=subprocess.DEVNULL, check=False)
    for host in ("a", "b"):
        wait_up(host)


def wait_up(host):
    """The kernel is told that a link is there, and finds it some time later."""
    deadline = harness.Deadline(5)
    while deadline.left():
        shown = subprocess.run(["ip", "-j", "-n", NAMES[host], "link", "show", "dev", "r"],
                               stdout=subprocess.PIPE, check=True).stdout
        if json.loads(shown)[0]["operstate"] == "UP":
            return
        time.sleep(0.02)
    raise harness.Failure(f"the link of {host} does not come up")


def link_down(host):
    """The cable of @host is pulled at the router."""
    ip("r", "link", "set", "dev", host, "down")


def link_up(host):
    ip("r", "link", "set", "dev", host, "up")


def drop_towards(host):
    """One way only: what goes to @host is dropped, what comes from it is not."""
    ip("r", "route", "add", "blackhole", f"{ADDRESS[host]}/32")


def change_address(host, last):
    """@host is found under another address from now on."""
    ip(host, "addr", "flush", "dev", "r")
    ip(host, "addr", "add", f"{NET[host]}.{last}/24", "dev", "r")
    ip(host, "route", "replace", "default", "via", f"{NET[host]}.1")


def limit_rate(host, rate):
    """What goes to @host goes no faster than @rate ("20mbit"). None: no limit."""
    run("tc", "-n", NAMES["r"], "qdisc", "replace", "dev", host, "root", "tbf", "rate", rate,
        "burst", "64kb", "latency", "100ms")
