#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""A plain byte proxy: for each connection that comes in, one that goes out.

    proxy.py --role source --listen unix:PATH --peer HOST:PORT
    proxy.py --role destination --listen HOST:PORT --qemu unix:PATH

A pair of them is what QEMU's migration costs when somebody stands between, and knows
nothing of it: the bytes are spliced, by the kernel, and not looked at. Connections go out in the
order in which they come in, at once. Where unix:PATH stands, tcp:HOST:PORT may stand as well.

Shuffler is the same with a will of its own: it changes the order in which connections
arrive, and when their first bytes do.
"""

import argparse
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

PIPE = 1 << 20
HOLD_S = 20  # at most, for connections that are to be shuffled


def parse(address):
    """(family, address of the socket) of unix:PATH, tcp:HOST:PORT or HOST:PORT."""
    if address.startswith("unix:"):
        return socket.AF_UNIX, address[5:]
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host.strip("[]"), int(port))


def listen(address):
    family, where = parse(address)
    s = socket.socket(family)
    if family != socket.AF_UNIX:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(where)
    s.listen(64)
    return s


def connect(address):
    family, where = parse(address)
    s = socket.socket(family)
    try:
        s.connect(where)
        if family != socket.AF_UNIX:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        s.close()
        raise
    return s


def name_of(listener):
    """The address of @listener as others call it."""
    if listener.family == socket.AF_UNIX:
        return "unix:" + listener.getsockname()
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shut(s, how):
    try:
        s.shutdown(how)
    except OSError:  # it is shut already
        pass


class Pair:
    """A connection that came in, and the one that went out for it."""

    def __init__(self, inside, outside):
        self.ends = inside, outside
        self.ended = threading.Semaphore(0)  # once for each direction

    def start(self):
        for source, target in (self.ends, self.ends[::-1]):
            threading.Thread(target=self._pump, args=(source, target), daemon=True).start()
        threading.Thread(target=self._close, daemon=True).start()

    def cut(self):
        for end in self.ends:
            shut(end, socket.SHUT_RDWR)

    def _close(self):
        for end in self.ends:
            self.ended.acquire()
        for end in self.ends:
            end.close()

    def _pump(self, source, target):
        """All bytes of one direction, then its end. Who cannot be written to is not read from."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
        try:
            while n := os.splice(source.fileno(), writer, PIPE):
                while n:
                    n -= os.splice(reader, target.fileno(), n)
        except OSError:
            shut(source, socket.SHUT_RDWR)
            shut(target, socket.SHUT_RDWR)
        shut(target, socket.SHUT_WR)
        os.close(reader)
        os.close(writer)
        self.ended.release()


class Forwarder:
    """Listens at @here, and connects to @there for each connection."""

    def __init__(self, here, there):
        self.listener, self.there = listen(here), there
        self.address = name_of(self.listener)
        self.pairs, self.lock = [], threading.Lock()

    def start(self):
        threading.Thread(target=self.run, daemon=True).start()
        return self

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:  # stopped
                return
            self.arrived(connection)

    def arrived(self, connection):
        pair = self.connect(connection)
        if pair:
            pair.start()

    def connect(self, connection):
        """The pair of @connection; None when the other side is not there, and so neither are we."""
        try:
            pair = Pair(connection, connect(self.there))
        except OSError as error:
            self.complain(f"{self.there}: {error.strerror}")
            connection.close()
            return None
        with self.lock:
            self.pairs.append(pair)
        return pair

    def complain(self, text):
        """Nobody asks within a test."""

    def cut(self):
        """Every connection that there is ends now; new ones are taken."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            pair.cut()

    def stop(self):
        shut(self.listener, socket.SHUT_RDWR)
        self.listener.close()
        self.cut()


class Shuffler(Forwarder):
    """Takes the first connections as they come, and hands them on in another order.

    @order: which of them, by the order of their arrival, goes first, second, ...; one that comes
    later is handed on at once. @what: "connections" go out in that order, or all go out at once
    and in that order have their "bytes" let go. @gap_s: between one and the next.
    @late: {number of a connection: seconds} by which it alone goes out (or has its bytes let
    go) later.
    """

    def __init__(self, here, there, order=(), what="connections", gap_s=0.0, late=None):
        super().__init__(here, there)
        self.order, self.what, self.gap_s, self.late = order, what, gap_s, late or {}
        self.count, self.held = 0, []

    def arrived(self, connection):
        number, self.count = self.count, self.count + 1
        late = self.late.get(number)
        if number < len(self.order):
            self._hold(connection)
        elif self.what == "connections":
            self._later(late, lambda: Forwarder.arrived(self, connection))
        else:
            pair = self.connect(connection)
            if pair:
                self._later(late, pair.start)

    @staticmethod
    def _later(seconds, function):
        if seconds:
            threading.Timer(seconds, function).start()
        else:
            function()

    def _hold(self, connection):
        self.held.append(connection if self.what == "connections" else self.connect(connection))
        if len(self.held) == len(self.order):
            threading.Thread(target=self._let_go, daemon=True).start()

    def _let_go(self):
        for i, number in enumerate(self.order):
            if i and self.gap_s:
                time.sleep(self.gap_s)  # the delay is what is tested
            if self.what == "connections":
                Forwarder.arrived(self, self.held[number])
            elif self.held[number]:
                self.held[number].start()
                wait_until_taken(self.held[number], 0.2)


def wait_until_taken(pair, seconds):
    """Until what came in has gone out, and been read there as far as that can be known."""
    inside, outside = pair.ends
    end = time.monotonic() + seconds
    if not select.select([inside], [], [], seconds)[0]:
        return
    while time.monotonic() < end and any(
            struct.unpack("i", fcntl.ioctl(s, what, b"\0" * 4))[0]
            for s, what in ((inside, termios.FIONREAD), (outside, termios.TIOCOUTQ))):
        time.sleep(0.001)  # there is no event for that


def say(text):
    print(f"proxy: {text}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--role", required=True, choices=["source", "destination"])
    parser.add_argument("--listen", required=True)
    there = parser.add_mutually_exclusive_group(required=True)
    there.add_argument("--peer")
    there.add_argument("--qemu")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # pylint: disable=protected-access
    forwarder = Forwarder(options.listen, options.peer or options.qemu)
    forwarder.complain = say
    say(f"listening on {forwarder.address}")
    forwarder.run()


if __name__ == "__main__":
    main()
