#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""libvirt migrates through the relay: the commands of docs/qemu.md, between two hosts of one machine.

    libvirt.py VIADUCT

Each host is a libvirtd with a file system and a name of its own (libvirt-host). The guest
checks itself, and its two consoles have to tell one story. Without root or libvirt it is skipped.
"""

import ctypes
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

# pylint: disable=wrong-import-position
import guest
import harness
from harness import Deadline, Skip, check
from peers import Program

DOCS = HERE.parents[1] / "docs/qemu.md"
DOMAIN = """
<domain type='qemu'>
  <name>web1</name>
  <memory unit='MiB'>64</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader type='rom'>qboot.rom</loader>
    <kernel>{kernel}</kernel>
    <cmdline>mib=60 writes=0 checks=16000</cmdline>
  </os>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <features><acpi/></features>
  <devices>
    <serial type='file'><source path='/run/vm/console'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def commands():
    """What docs/qemu.md says for libvirt, in words."""
    found = re.findall(r"^(virsh migrate (?:.*\\\n)*.*)$", DOCS.read_text(encoding="utf-8"), re.M)
    return [shlex.split(text.replace("\\\n", " ")) for text in found]


class Host:
    """A libvirtd, and what runs beside it."""

    def __init__(self, name, folder):
        self.folder = pathlib.Path(folder) / name
        self.daemon = Program("unshare", "--mount", "--uts", HERE / "libvirt-host", name,
                              self.folder)
        self.uri = f"qemu+unix:///system?socket={self.folder}/run/libvirt/libvirt-sock"
        deadline = Deadline(20)
        while self.virsh("version").returncode:  # there is no event for that
            check(deadline.left(), f"libvirtd of {name} does not answer")
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in ("migrate.sock", "incoming.sock"):  # whoever waits there sees it go
            (self.folder / "run/vm" / name).unlink(missing_ok=True)
        self.virsh("destroy", "web1")

    def virsh(self, *words):
        return subprocess.run(["virsh", "-q", "-c", self.uri, *words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8", timeout=60, check=False)

    def inside(self, *words):
        return Program("nsenter", "-t", self.daemon.pid, "--mount", "--uts", "--", *words)

    def relay(self, role, *words):
        run = self.inside(harness.binary, "relay", "--role", role, *words)
        return run, run.says(r"listening on (\S+)\n").group(1)

    def console(self):
        return (self.folder / "run/vm/console").read_text(encoding="utf-8").replace("\0", "")

    def wait_for_ticks(self, count):
        deadline = Deadline(30)
        while len(guest.ticks(self.console())) < count:  # libvirt gives no event for that
            check(deadline.left(), f"the guest has not ticked {count} times")
            time.sleep(0.05)


def migrates(words):
    for tool in ("libvirtd", "virsh", "nsenter", "unshare"):
        if not shutil.which(tool):
            raise Skip(f"no {tool} (apt-get install libvirt-daemon libvirt-clients "
                       "libvirt-daemon-driver-qemu)")
    if os.geteuid():
        raise Skip("two hosts on one machine take root")
    # libvirt waits for its QEMUs, which are nobody's children, to be gone: init reaps them, not we.
    ctypes.CDLL(None).prctl(harness.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    folder = harness.case.folder()
    with Host("source", folder) as source, Host("destination", folder) as destination:
        domain = pathlib.Path(folder, "web1.xml")
        domain.write_text(DOMAIN.format(kernel=guest.program()), encoding="ascii")
        made = source.virsh("create", str(domain))
        check(not made.returncode, made.stdout)
        source.wait_for_ticks(20)
        socket = "unix:/run/vm/migrate.sock"
        far, address = destination.relay("destination", "--listen", "127.0.0.1:0",
                                         "--qemu", socket)
        near, _ = source.relay("source", "--listen", socket, "--peer", address)
        words = [w.replace("qemu+ssh://DESTINATION/system", destination.uri) for w in words]
        source.inside(*words).ends(0, 60)
        for relay in (near, far):
            relay.ends(0)
            check("relay completed" in relay.out.text, relay.out.text)
        print(f"# {far.out.text.strip()}")
        ticks = len(guest.ticks(source.console())) + 100
        while len(guest.ticks(source.console() + destination.console())) < ticks:
            destination.wait_for_ticks(20)
        story = guest.check_story(source.console(), destination.console()
                                  [:destination.console().rindex("\n") + 1])
        check(len(story) >= ticks, "the guest has not lived on")


def main():
    for words in commands():
        options = [word for word in words if word.startswith("--")
                   and word not in ("--live", "--desturi", "--migrateuri")]
        harness.add("virsh migrate " + " ".join(options), lambda w=words: migrates(w))
    return harness.main(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
