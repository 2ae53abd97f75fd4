#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Strangers at the door of the real program: thousands of connections at once, ones that dribble,
bytes that are no TLS. A receiver outlives them all, takes no more memory and no more descriptors
for them, and then takes a good source; a sender ends in time with a message.

    strangers.py VIADUCT [PART OF A CASE'S NAME]
"""

import os
import pathlib
import random
import re
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
import harness  # pylint: disable=wrong-import-position
import wire  # pylint: disable=wrong-import-position
from harness import Skip, check, receive, send, test, test_each
from wire import DESTINATION, SOURCE, Listener

MANY = 10000
GROWTH_KIB = 8 << 10
HANDSHAKE_S = 10  # of the program
AT_ONCE = 32  # so many may be in the middle of a handshake
SOON_S = 5  # nobody has been waited for
CERTIFICATES = pathlib.Path(__file__).resolve().parents[1] / "transport" / "certificates"
SEED = random.SystemRandom().getrandbits(32)


def key_file():
    path = os.path.join(harness.case.folder(), "keys.psk")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"me:{os.urandom(32).hex()}\n")
    os.chmod(path, 0o600)
    return path


def proof(kind):
    """(what a destination, and what a source is started with to prove itself in this way)"""
    if kind == "plain text":
        return (), ()
    if kind == "a key":
        args = ("--psk", key_file())
        return args, args
    folder = harness.case.folder()
    made = subprocess.run([CERTIFICATES, folder], check=False, capture_output=True)
    if made.returncode == 77:
        raise Skip("needs certtool: apt-get install gnutls-bin")
    check(not made.returncode, f"{CERTIFICATES}: {made.stderr.decode()}")
    args = ("--tls-creds", os.path.join(folder, "good"))
    return args, args


class Held:
    """What a process holds; and that it comes to hold no more than a little."""

    def __init__(self, run):
        self.run = run
        self.before = self.now()

    def now(self):
        with open(f"/proc/{self.run.pid}/status", encoding="ascii") as f:
            status = f.read()
        return (int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)),
                len(os.listdir(f"/proc/{self.run.pid}/fd")))

    def check(self):
        memory, descriptors = (now - before for now, before in zip(self.now(), self.before))
        print(f"# memory grew by {memory} KiB, descriptors by {descriptors}")
        if not harness.is_sanitized():
            check(memory < GROWTH_KIB, f"memory grew by {memory} KiB")
        check(descriptors <= 2, f"it holds {descriptors} descriptors more")


def open_many(address, number):
    """As many connections as this system lets one process have, at once."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(number, limit[1] - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], number + 100), limit[1]))
    host, _, port = address.rpartition(":")
    opened = []
    for _ in range(number):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((host, int(port)))
        opened.append(s)
    return opened


def finish(destination, address, *args):
    """It takes a good source, and all is well."""
    source = send(address, *args, "--json").ends(0, 40)
    destination.ends(0)
    harness.equal(source.json()["verify"]["torn"], 0, "torn pages")


@test_each("{} connections at once that close again, {}", [
    (MANY, "in plain text"), (MANY, "in TLS")])
def _(number, how):
    args = ("--psk", key_file()) if how == "in TLS" else ()
    destination, address = receive(*args)
    held = Held(destination)
    opened = open_many(address, number)
    print(f"# {len(opened)} connections")
    for s in opened:
        s.close()
    finish_after(destination, address, held, args)


def finish_after(destination, address, held, args):
    """Once it has dealt with those that got through."""
    descriptors = held.before[1]
    deadline = time.monotonic() + 20 * harness.SCALE
    while held.now()[1] > descriptors and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    held.check()
    finish(destination, address, *args)


def client_hello():
    """What begins a TLS 1.3 handshake in good order."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    said = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), said)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return said.read()


# One that is through in a moment has no more than that to fear from any number of others.
@test_each("{} connections that say {} and stay, to {}: a good source does not wait", [
    (AT_ONCE - 2, "nothing", "plain text"), (AT_ONCE - 2, "a byte", "plain text"),
    (AT_ONCE - 2, "nothing", "a key"), (AT_ONCE - 2, "a byte", "a key"),
    (AT_ONCE - 2, "nothing", "certificates"), (AT_ONCE - 2, "a byte", "certificates"),
    (AT_ONCE - 2, "a whole ClientHello", "certificates"),
    (4 * AT_ONCE, "nothing", "a key"), (4 * AT_ONCE, "a byte", "a key")])
def _(number, what, kind):
    said = {"nothing": b"", "a byte": b"\0" if kind == "plain text" else b"\x16",
            "a whole ClientHello": client_hello()}[what]
    at_destination, at_source = proof(kind)
    destination, address = receive(*at_destination)
    host, _, port = address.rpartition(":")
    opened = []
    for _ in range(number):
        opened.append(socket.create_connection((host, int(port)), 20))
        opened[-1].sendall(said)
    started = time.monotonic()
    send(address, *at_source).ends(0, 40)
    took = time.monotonic() - started
    destination.ends(0)
    print(f"# the source took {took:.1f} s")
    check(took < SOON_S * harness.SCALE, f"the source took {took:.1f} s")
    for s in opened:
        s.close()


@test("32 silent connections: the oldest makes room, by name, for the next")
def _():
    destination, address = receive("--psk", key_file())
    host, _, port = address.rpartition(":")
    opened = [socket.create_connection((host, int(port)), 20) for _ in range(AT_ONCE + 1)]
    first = "%s:%d" % opened[0].getsockname()
    destination.says(re.escape(first) + ": 32 others have come", 5)
    harness.equal(opened[0].recv(1), b"", "what it is told")
    for s in opened:
        s.close()


@test_each("{} connections at once that each say {}", [
    (1000, "noise"), (1000, "an HTTP request"), (1000, "half a HELLO")])
def _(number, what):
    said = {"noise": random.Random(SEED).randbytes(4096),
            "an HTTP request": b"GET / HTTP/1.1\r\n\r\n",
            "half a HELLO": wire.hello(SOURCE)[:30]}[what]
    destination, address = receive()
    held = Held(destination)
    opened = open_many(address, number)
    for s in opened:
        try:
            s.send(said)
        except OSError:
            pass  # it did not get through
        s.close()
    finish_after(destination, address, held, ())


@test_each("a source that dribbles {}", ["HELLO", "SETUP"])
def _(what):
    destination, address = receive()
    held = Held(destination)
    peer = wire.connect(address)
    if what == "SETUP":
        peer.say(wire.hello(SOURCE))
        peer.hear(wire.HELLO)
    data = wire.hello(SOURCE) if what == "HELLO" else wire.setup([("ram", 4096, 4096)])
    started = time.monotonic()
    over = threading.Event()

    def dribble():
        for i in range(len(data) - 1):
            try:
                peer.say(data[i:i + 1])
            except OSError:
                return
            if over.wait(0.4):
                return

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    destination.says("still listening", HANDSHAKE_S + 10)
    took = time.monotonic() - started
    over.set()
    thread.join()
    peer.close()
    check(took < (HANDSHAKE_S + 5) * harness.SCALE, f"it listened to that for {took:.1f} s")
    held.check()
    finish(destination, address)


def tls_garbage():
    """Name: bytes that begin like TLS and are none."""
    chosen = random.Random(SEED)
    hello = bytes.fromhex("160301007b010000770303") + chosen.randbytes(32)
    return {
        "a handshake record of noise": b"\x16\x03\x01\x02\x00" + chosen.randbytes(512),
        "a record of the largest length": b"\x16\x03\x01\xff\xff" + chosen.randbytes(70000),
        "a ClientHello that ends early": hello,
        "an empty record": b"\x16\x03\x01\x00\x00" * 100,
        "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
        "application data": b"\x17\x03\x03\x00\x20" + chosen.randbytes(32),
        "SSL 2": b"\x80\x2e\x01\x03\x01" + chosen.randbytes(60),
        "noise": chosen.randbytes(8192),
    }


@test_each("a source that says {} to TLS", list(tls_garbage()))
def _(what):
    args = ("--psk", key_file())
    destination, address = receive(*args)
    held = Held(destination)
    peer = wire.connect(address)
    try:
        peer.say(tls_garbage()[what])
        peer.connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # refused before all of it was taken
    peer.hear_end()
    peer.close()
    destination.says("still listening", HANDSHAKE_S + 10)
    destination.error()
    held.check()
    finish(destination, address, *args)


@test_each("a destination that says {} to TLS", list(tls_garbage()))
def _(what):
    def serve(peer):
        try:
            peer.say(tls_garbage()[what])
            peer.connection.shutdown(socket.SHUT_WR)
            peer.hear_end()
        except OSError:
            pass

    listener = Listener(serve)
    run = send(listener.address, "--psk", key_file()).ends(1, HANDSHAKE_S + 10)
    run.error()
    check("the guest runs on at the source" in run.out.text, "not said: the guest runs on")
    listener.finish()


@test("a destination that dribbles HELLO")
def _():
    data = wire.hello(DESTINATION)

    def serve(peer):
        for i in range(len(data) - 1):
            try:
                peer.say(data[i:i + 1])
            except OSError:
                return
            if threading.Event().wait(0.4):
                return

    listener = Listener(serve)
    started = time.monotonic()
    run = send(listener.address).ends(1, HANDSHAKE_S + 10)
    run.error()
    check(time.monotonic() - started < (HANDSHAKE_S + 5) * harness.SCALE, "it waited for too long")
    listener.thread.join(60)


@test("a million pings that nobody reads the answers to")
def _():
    if harness.is_sanitized():
        raise Skip("memory is not measured under a sanitizer")
    destination, address = receive()
    peer = wire.connect(address)
    peer.say(wire.hello(SOURCE))
    peer.hear(wire.HELLO)
    peer.say(wire.setup([("ram", 4096, 4096)]))
    peer.hear(wire.SETUP_OK)
    held = Held(destination)
    pings = wire.frame(8, bytes(8)) * 1000
    try:
        for _ in range(1000):
            peer.say(pings)
    except OSError:
        pass  # it has had enough of them
    memory = held.now()[0] - held.before[0]
    print(f"# memory grew by {memory} KiB")
    check(memory < 128 << 10, f"memory grew by {memory} KiB")
    peer.close()
    destination.ends(1)
    destination.error()


sys.exit(harness.main(*sys.argv[1:], note=f"seed {SEED}"))
