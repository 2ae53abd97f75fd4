#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""viaduct doctor on this host, with what can be made wrong here: limits, rights, mounts, peers, links.

What takes a device, or another kernel, is in doctor_test.c.

    doctor.py VIADUCT CERTIFICATES DOCUMENT [PART OF A CASE'S NAME]
"""

import ctypes
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile

import harness
import wire
from harness import Run, Skip, check, equal, receive, send, test, test_each

certificates = document = None
_folder = tempfile.TemporaryDirectory()

PR_CAPBSET_DROP = 24
CAP_IPC_LOCK = 14
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def doctor(*args, **kwargs):
    """(its run, {name of a check: its findings}): the three parts are there where they belong."""
    run = Run("doctor", "--json", *args, **kwargs)
    run.wait(60)
    report = run.json()
    equal(run.status, 1 if report["faults"] else 0, "the exit status")
    equal(report["result"], "faults" if report["faults"] else "ok", "result")
    found = {}
    for finding in report["checks"]:
        found.setdefault(finding["check"], []).append(finding)
        if finding["verdict"] in ("warning", "fault"):
            for part in "what", "seen", "remedy":
                check(finding[part], f"{finding['check']}: there is no {part}")
    for verdict in "warning", "fault":
        equal(sum(f["verdict"] == verdict for f in report["checks"]), report[f"{verdict}s"],
              f"the number of {verdict}s")
    return run, found


def expect(found, name, verdict, seen, remedy=""):
    """The first finding of check @name."""
    finding = found[name][0]
    equal(finding["verdict"], verdict, f"the verdict of {name}")
    check(seen in finding["what"] + finding["seen"], f"{name}: {finding}")
    check(remedy in finding["remedy"], f"{name}: {finding['remedy']}")


def as_root(what):
    if os.geteuid() != 0:
        raise Skip(f"needs root, for {what}")


# -- this host ------------------------------------------------------------------------------


@test("text and JSON say the same")
def same():
    run, found = doctor()
    text = Run("doctor")
    equal(text.wait(60), run.status, "the exit status")
    text.check_sane()
    lines = re.findall(r"^(\w+) +([a-z-]+) ", text.out.text, re.M)
    told = [(v.lower(), n) for v, n in lines if v in ("ok", "skipped", "warning", "FAULT")]
    equal(told, [(f["verdict"], n) for n in found for f in found[n]], "the checks in text")
    check(re.search(r"^\d+ faults?, \d+ warnings?$", text.out.text, re.M), "there is no sum")
    check("peer-port" not in found, "it speaks of a peer that there is not")


@test("memlock: a limit below the guest")
def memlock():
    def before():
        libc.prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    _, found = doctor("--memory", "1G", before=before)
    rdma = os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband")
    expect(found, "memlock", "fault" if rdma else "warning", "64 KiB", "ulimit -l")


@test("open-files: a limit below the channels' need")
def open_files():
    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    run, found = doctor("--multifd", "16", before=before)
    expect(found, "open-files", "fault", "the limit is 128", "ulimit -n")
    equal(run.status, 1, "the exit status")


@test("userfaultfd: a user who may not")
def userfaultfd():
    as_root("being another user")
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as f:
        if f.read().strip() == "1" or os.stat("/dev/userfaultfd").st_mode & 0o6:
            raise Skip("userfaultfd is not forbidden to anybody")

    def before():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        _, found = doctor(before=before)
    except PermissionError as error:
        raise Skip("the program is where another user cannot run it") from error
    expect(found, "userfaultfd", "fault", "vm.unprivileged_userfaultfd is 0", "CAP_SYS_PTRACE")


@test("shm: a small /dev/shm")
def shm():
    as_root("a mount of its own")

    def before():
        if (libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
                or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m")):
            os._exit(127)
    run = Run("doctor", "--json", before=before)
    if run.wait(60) == 127:
        raise Skip("no mount namespaces here")
    shown = [f for f in run.json()["checks"] if f["check"] == "shm"]
    expect({"shm": shown}, "shm", "warning", "1.0 MiB", "remount,size")


@test("memory: a guest that has no place")
def memory():
    _, found = doctor("--memory", "1000T")
    expect(found, "memory", "fault", "MemTotal")


@test("fabrics: one that cannot be used")
def fabrics():
    probe = subprocess.run([harness.binary, "fabrics", "--json"], stdout=subprocess.PIPE, check=True)
    lacking = re.findall(rb'"fabric": "(ofi:(?:efa|cxi|opx))",\s+"usable": false', probe.stdout)
    if not lacking:
        raise Skip("this host has all of them, or no libfabric")
    _, found = doctor("--fabric", lacking[0].decode())
    expect(found, "fabrics", "fault", "shows no such provider", "apt-get install libfabric1")


def creds(name):
    if not os.listdir(_folder.name):
        run = subprocess.run([certificates, _folder.name], check=False, capture_output=True)
        if run.returncode == 77:
            raise Skip("certtool is not here: apt-get install gnutls-bin")
        check(not run.returncode, f"{certificates}: {run.stderr.decode()}")
    return "--tls-creds", os.path.join(_folder.name, name)


@test_each("certificates: {}", [
    ("expired", "has expired"), ("early", "is not valid yet"), ("nowhere", "cannot be read")])
def dates(name, text):
    _, found = doctor(*creds(name))
    faults = [f for f in found["certificates"] if f["verdict"] == "fault"]
    check(faults and any(text in f["what"] + f["seen"] for f in faults), f"{found['certificates']}")


# -- a peer -----------------------------------------------------------------------------------


@test("a receiver is examined, and then takes its guest")
def healthy_peer():
    destination, address = receive("--fabric", "ofi:tcp")
    run, found = doctor("--peer", address)
    for name in "peer-address", "peer-port", "peer-handshake", "peer-version", "peer-fabric":
        equal(found[name][0]["verdict"], "ok", name)
    peer = run.json()["peer"]
    equal(peer["fabric"], "ofi:tcp", "the fabric")
    chosen = [c for c in peer["candidates"] if c["verdict"] == "chosen"]
    equal([c["fabric"] for c in chosen], ["ofi:tcp"], "the chosen candidate")
    destination.says("only asked what is here")
    destination.says("still listening")
    send(address).ends(0)
    destination.ends(0)


@test("a relay is examined, and goes on waiting")
def relay():
    run = Run("relay", "--role", "destination", "--listen", "127.0.0.1:0", "--qemu",
              "unix:" + os.path.join(harness.case.folder(), "qemu.sock"))
    address = run.says(r"listening on (\S+)\n").group(1)
    for _ in range(2):
        _, found = doctor("--peer", address)
        equal(found["peer-version"][0]["verdict"], "ok", "peer-version")
    run.kill(signal.SIGTERM)
    run.wait()


@test("peer-port: refused")
def refused():
    _, found = doctor("--peer", harness.closed_port())
    expect(found, "peer-port", "fault", "nobody listens", "viaduct receive --listen")
    for name in "peer-handshake", "peer-version", "peer-fabric", "peer-mtu":
        equal(found[name][0]["verdict"], "skipped", name)


@test("peer-port: unanswered")
def unanswered():
    # Whoever knocks where nobody accepts and the queue is full is not answered.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(0)
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(s.getsockname())
        _, found = doctor("--peer", "%s:%d" % s.getsockname())
        for other in waiting:
            other.close()
    expect(found, "peer-port", "fault", "does not answer", "firewall")


@test("peer-address: a link-local address without its interface")
def no_scope():
    _, found = doctor("--peer", "[fe80::1]:4444", "--insecure")
    expect(found, "peer-address", "fault", "without its interface", "%INTERFACE")


@test("peer-version: another protocol")
def other_protocol():
    def serve(peer):
        peer.hear(wire.HELLO)
        peer.say(wire.hello(wire.DESTINATION, version=9))
        peer.hear_end()
    listener = wire.Listener(serve)
    _, found = doctor("--peer", listener.address)
    listener.finish()
    expect(found, "peer-version", "fault", "the peer speaks 9 to 9", "install the same release")


@test("peer-version: another release")
def other_release():
    def serve(peer):
        peer.hear(wire.HELLO)
        peer.say(wire.hello(wire.DESTINATION))
        equal(peer.hear_error()[0], "ECANCELED", "what the peer is told")
    listener = wire.Listener(serve)
    _, found = doctor("--peer", listener.address)
    listener.finish()
    expect(found, "peer-version", "warning", "there viaduct by hand", "install the same")


@test("peer-fabric: nothing in common")
def nothing_in_common():
    destination, address = receive("--fabric", "ofi:shm")
    run, found = doctor("--peer", address, "--fabric", "ofi:tcp")
    expect(found, "peer-fabric", "fault", "the peer offers ofi:shm", "--fabric")
    table = {c["fabric"]: c for c in run.json()["peer"]["candidates"]}
    equal(table["ofi:tcp"]["there"], "not offered", "ofi:tcp there")
    equal(table["ofi:shm"]["here"], "not offered", "ofi:shm here")
    destination.says("still listening")


@test("peer-handshake: a key on one side alone")
def key_on_one_side():
    path = os.path.join(harness.case.folder(), "keys.psk")
    with open(path, "w", encoding="ascii") as f:
        f.write("me:00112233445566778899aabbccddeeff\n")
    os.chmod(path, 0o600)
    destination, address = receive("--psk", path)
    _, found = doctor("--peer", address)
    equal(found["peer-handshake"][0]["verdict"], "fault", "peer-handshake")
    _, found = doctor("--peer", address, "--psk", path)
    expect(found, "peer-handshake", "ok", "TLS 1.3")
    destination.says("still listening")


@test("peer-mtu: packets that do not fit there")
def other_mtu():
    as_root("network namespaces")
    names = [f"viaduct-{os.getpid()}-{n}" for n in "ab"]

    def ip(*words):
        done = subprocess.run(["ip", *words], stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Skip(f"no network namespaces here: {done.stderr.decode().strip()}")

    def at(name):
        def before():
            with open(f"/run/netns/{name}", "rb") as f:
                if libc.setns(f.fileno(), CLONE_NEWNET):
                    os._exit(127)
        return before
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "v", "mtu", "9000", "netns", names[0], "type", "veth",
           "peer", "name", "v", "mtu", "1500", "netns", names[1])
        for i, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.213.9.{i}/24", "dev", "v")
            ip("-n", name, "link", "set", "dev", "v", "up")
        _, address = receive("--insecure", listen="10.213.9.2:0", before=at(names[1]))
        _, found = doctor("--insecure", "--peer", address, before=at(names[0]))
        finding = found["peer-mtu"][0]
        check("9000 bytes leave here, the way there takes 1500" in finding["seen"], f"{finding}")
        check("mtu 9000" in finding["remedy"], finding["remedy"])
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


# -- the document ------------------------------------------------------------------------------


@test("docs/doctor.md has every check, and no other")
def documented():
    _, found = doctor("--peer", harness.closed_port())
    text = pathlib.Path(document).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", text, re.M)
    equal(rows, [(name, found[name][0]["looks_at"]) for name in found], "the table")


if __name__ == "__main__":
    certificates, document = sys.argv[2:4]
    sys.exit(harness.main(sys.argv[1], *sys.argv[4:5]))
