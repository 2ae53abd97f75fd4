# SPDX-License-Identifier: BSD-2-Clause
"""The control connection by hand (docs/wire.md), for peers that are not quite what they should be."""

import os
import socket
import struct
import threading

import harness
from harness import Failure, check

HELLO, SETUP, SETUP_OK, ERROR = 1, 2, 3, 10
SOURCE, DESTINATION = 1, 2


def frame(kind, payload=b""):
    return struct.pack(">IHH", len(payload), kind, 0) + payload


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


def hello(role, version=1, magic=b"VIADUCT\n", fabric="ofi:tcp"):
    payload = magic + struct.pack(">HHQ", version, version, 0) + os.urandom(16)
    payload += struct.pack(">BBH", role, 0, 1) + text("viaduct by hand")
    payload += struct.pack(">H", 21) + text(fabric) + text("") + text("")
    return frame(HELLO, payload)


def setup(regions, slice_len=1 << 30, fabric="ofi:tcp", multifd=1, epoch=1):
    """@regions: (name, length, page size) of each. An epoch above 1 resumes a session."""
    payload = struct.pack(">HHHHQQ", 1, multifd, 0, len(regions), slice_len, epoch) + text(fabric)
    for name, length, page_size in regions:
        payload += struct.pack(">QI", length, page_size) + text(name)
    return frame(SETUP, payload)


def error(code, what="by hand", seen="seen", remedy="remedy"):
    return frame(ERROR, text(code) + text(what) + text(seen) + text(remedy))


class Peer:
    """One end of a control connection in plain text."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(20 * harness.SCALE)

    def say(self, data):
        self.connection.sendall(data)

    def _take(self, n):
        data = b""
        while len(data) < n:
            more = self.connection.recv(n - len(data))
            if not more:
                raise Failure(f"closed after {len(data)} of {n} bytes")
            data += more
        return data

    def hear(self, kind):
        """The payload of the next frame, which must be of @kind."""
        length, seen, _ = struct.unpack(">IHH", self._take(8))
        payload = self._take(length)
        check(seen == kind, f"a frame of type {seen} where {kind} belongs: {payload!r}")
        return payload

    def hear_error(self):
        """[code, what, seen, remedy] of an ERROR."""
        payload, parts = self.hear(ERROR), []
        while payload:
            n = struct.unpack(">H", payload[:2])[0]
            parts.append(payload[2:2 + n].decode())
            payload = payload[2 + n:]
        return parts

    def hear_end(self):
        """Closed, or reset, whatever comes before."""
        try:
            while self.connection.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def close(self):
        self.connection.close()


def connect(address):
    host, _, port = address.rpartition(":")
    return Peer(socket.create_connection((host.strip("[]"), int(port)), 10 * harness.SCALE))


class Listener:
    """A destination by hand: @serve(peer) talks to the first that connects."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self.socket.getsockname()
        self.serve, self.failure = serve, None
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()

    def _main(self):
        try:
            with self.socket:
                self.socket.settimeout(20 * harness.SCALE)
                connection, _ = self.socket.accept()
            with connection:
                self.serve(Peer(connection))
        except (OSError, Failure) as failure:
            self.failure = failure

    def finish(self):
        self.thread.join(30 * harness.SCALE)
        check(not self.thread.is_alive(), "the peer by hand has not ended")
        check(not self.failure, f"the peer by hand: {self.failure}")
