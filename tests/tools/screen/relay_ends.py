# SPDX-License-Identifier: BSD-2-Clause
"""What stands around a source relay: a source that says a few bytes as QEMU would, the relay at the
destination, and a destination that takes them."""

import os
import socket
import struct

import harness

# How QEMU's main channel begins: header, the return path; and that postcopy of RAM may come.
HEADER = struct.pack(">4sI", b"QEVM", 3) + struct.pack(">BHH", 8, 1, 0)
ADVISE = struct.pack(">BHHQQ", 8, 3, 16, 4096, 4096)


class RelayEnds:
    def __init__(self):
        folder = harness.case.folder()
        self.listen, self.source = os.path.join(folder, "relay"), socket.socket(socket.AF_UNIX)
        self.qemu, self.connection = socket.socket(socket.AF_UNIX), None
        self.qemu.bind(f"{folder}/qemu")
        self.qemu.listen()
        self.qemu.settimeout(20 * harness.SCALE)
        self.other = harness.Run("relay", "--role", "destination", "--listen", "127.0.0.1:0", "--qemu",
                                 f"unix:{folder}/qemu", "--fabric", "ofi:tcp")
        peer = self.other.says(r"listening on (\S+)\n").group(1)
        # Of the source relay.
        self.args = ["relay", "--role", "source", "--listen", f"unix:{self.listen}", "--peer", peer,
                     "--fabric", "ofi:tcp"]

    def begin(self, stream):
        """Say @stream to the relay that listens now, and wait until all of it has come through."""
        self.source.connect(self.listen)
        self.source.sendall(stream)
        self.connection, _ = self.qemu.accept()
        self.connection.settimeout(20 * harness.SCALE)
        come = b""
        while len(come) < len(stream):
            data = self.connection.recv(4096)
            harness.check(data, "the relay has closed the connection")
            come += data
