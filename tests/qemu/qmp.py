# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's monitor protocol: commands, and events that are waited for.

QEMU connects to us, so that nobody has to ask whether its socket is there yet. Commands that
QEMU can carry out beside its main loop are sent so: they answer also when that is stuck.
"""

import json
import select
import socket

from harness import Deadline, Failure, check

OUT_OF_BAND = {"migrate-pause", "migrate-recover", "yank"}
ANSWER_S = 20


class Refused(Failure):
    """QEMU has answered a command with an error."""


class Gone(Failure):
    """QEMU has closed its monitor: it is about to end, or has."""


class Monitor:
    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.connection = None
        self.received = b""
        self.events, self.answers, self.number = [], {}, 0

    def open(self, seconds=ANSWER_S):
        """Until QEMU has connected and takes commands."""
        ready = select.select([self.listener], [], [], Deadline(seconds).left())[0]
        check(ready, "QEMU did not connect to its monitor")
        self.connection = self.listener.accept()[0]
        greeting = self._next(Deadline(seconds), "its greeting")
        check("QMP" in greeting, f"QEMU greets with {greeting}")
        self.execute("qmp_capabilities", enable=["oob"])

    def close(self):
        for s in filter(None, (self.connection, self.listener)):
            s.close()

    def execute(self, command, seconds=ANSWER_S, **arguments):
        """The answer to @command; underscores in names of arguments stand for hyphens."""
        self.number += 1
        verb = "exec-oob" if command in OUT_OF_BAND else "execute"
        self._send({verb: command, "id": self.number,
                    "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
        deadline = Deadline(seconds)
        while self.number not in self.answers:
            self._take(self._next(deadline, f"an answer to {command}"))
        answer = self.answers.pop(self.number)
        if "error" in answer:
            raise Refused(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def wait(self, name, seconds=ANSWER_S, after=0, **wanted):
        """The first event @name from number @after on, with the wanted data."""
        deadline, at = Deadline(seconds), after
        while True:
            for event in self.events[at:]:
                if event["event"] == name and all(
                        event["data"].get(k) in (v if isinstance(v, tuple) else (v,))
                        for k, v in wanted.items()):
                    return event
            at = len(self.events)
            self._take(self._next(deadline, f"event {name} {wanted or ''}"))

    def status(self, *wanted, seconds=ANSWER_S, after=0):
        """The first of the migration's states @wanted that it gets into."""
        return self.wait("MIGRATION", seconds, after, status=wanted)["data"]["status"]

    def _send(self, command):
        try:
            self.connection.sendall(json.dumps(command).encode())
        except OSError as error:
            raise Gone(f"the monitor is closed: {error.strerror}") from error

    def _take(self, message):
        if "event" in message:
            message.setdefault("data", {})
            self.events.append(message)
        else:
            self.answers[message["id"]] = message

    def _next(self, deadline, what):
        """The next message. One line is one message."""
        while b"\n" not in self.received:
            ready = select.select([self.connection], [], [], deadline.left())[0]
            check(ready, f"QEMU does not send {what}; its events were: {self.story()}")
            try:
                data = self.connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Gone(f"QEMU ended without {what}; its events were: {self.story()}")
            self.received += data
        text, _, self.received = self.received.partition(b"\n")
        return json.loads(text)

    def story(self):
        """Its events in a few words."""
        return ", ".join(e["data"].get("status", e["event"]).lower() for e in self.events) or "none"
