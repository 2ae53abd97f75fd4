#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Whom the program trusts, and what it keeps to itself: certificates, secrets, digests.

trust.py PROGRAM CERTIFICATES TELL_RANDOM: the program, the script that makes certificates, and the
library that tells which random numbers were drawn.
"""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile

import harness
from harness import Failure, Run, Skip, check, equal, receive, send, test, test_each

certificates = tell_random = None
_folder = tempfile.TemporaryDirectory()
_made = []


def creds(name):
    """The folder of certificates called @name, as --tls-creds takes it."""
    if not _made:
        run = subprocess.run([certificates, _folder.name], check=False, capture_output=True)
        if run.returncode == 77:
            raise Skip("certtool is not here: apt-get install gnutls-bin")
        check(not run.returncode, f"{certificates}: {run.stderr.decode()}")
        _made.append(True)
    return ("--tls-creds", os.path.join(_folder.name, name))


# -- certificates -------------------------------------------------------------------------


@test("send and receive with --tls-creds")
def certificates_work():
    destination, address = receive(*creds("crl"), "--json")
    source = send(address, *creds("crl"), "--json").ends(0)
    destination.ends(0)
    for run in source, destination:
        equal(run.json()["control"], "TLS 1.3, X.509", "the control connection")


@test("--tls-hostname names the destination")
def hostname():
    destination, address = receive(*creds("good"))
    port = address.rsplit(":", 1)[1]
    source = send(f"localhost:{port}", *creds("good")).ends(1)
    what, remedy = source.error()
    check("is not for `localhost`" in what and "--tls-hostname" in remedy, what)
    destination.says("for the name that the peer wanted")
    send(f"localhost:{port}", *creds("good"), "--tls-hostname", "destination.example").ends(0)
    destination.ends(0)


@test("--tls-authz-name says who may connect, and the destination goes on listening")
def who_may_connect():
    destination, address = receive(*creds("good"), "--tls-authz-name", "*CN=source.*")
    send(address, *creds("any-purpose")).ends(0)
    destination.ends(0)
    destination, address = receive(*creds("good"), "--tls-authz-name", "*CN=somebody else")
    what, _ = send(address, *creds("good")).ends(1).error()
    check("not one of those who may connect" in what, what)
    destination.says("does not match `\\*CN=somebody else`")
    destination.says("still listening")
    destination.kill(signal.SIGTERM)
    destination.wait()


@test_each("certificates: {}", [
    ("expired", "has expired"), ("early", "is not valid yet"), ("own-revoked", "is revoked"),
    ("purpose", "extended key usage"), ("foreign", "signed by no authority"),
    ("other-key", "is not that of"), ("no-key", "No such file")])
def own_faults(name, text):
    for run in (send(harness.closed_port(), *creds(name)),
                Run("receive", "--listen", "127.0.0.1:0", *creds(name))):
        what, remedy = run.ends(1).error()
        check(text in what, what)
        check(remedy, "there is no remedy")


@test("a revoked source is refused by name")
def revoked():
    destination, address = receive(*creds("crl"))
    what, _ = send(address, *creds("revoked")).ends(1).error()
    check("client-cert.pem: it is revoked" in what, what)
    destination.says("CN=source.example\\) is revoked by ca-crl.pem")
    destination.says("still listening")


@test("a key and certificates are not for the same connection")
def one_kind():
    path = os.path.join(harness.case.folder(), "keys.psk")
    with open(path, "w", encoding="ascii") as f:
        f.write("me:00112233\n")
    what, remedy = send(harness.closed_port(), "--psk", path, *creds("good")).ends(1).error()
    check("a key file and certificates" in what and "--tls-creds" in remedy, what)


# -- secrets --------------------------------------------------------------------------------


# It dumps core as SIGABRT does, which a library that libfabric loads takes for itself.
DUMP = signal.SIGQUIT


def dump_core_in(folder):
    """For Run(before=...): a core file of the process goes to @folder."""
    def before():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.chdir(folder)
    return before


def core_of(run, folder):
    """What the kernel has written when the process died."""
    equal(run.wait(60), -DUMP, "the exit status")
    names = [n for n in os.listdir(folder) if n.startswith("core")]
    if not names:
        raise Skip("no core file: /proc/sys/kernel/core_pattern")
    with open(os.path.join(folder, names[0]), "rb") as f:
        return f.read()


def find(secrets, core):
    return [name for name, secret in secrets.items() if secret in core]


def abort_in_migration(fabric, *proof):
    """The cores of both sides, in the middle of precopy, and the nonces of the session."""
    folders = [harness.case.folder(), harness.case.folder()]
    told = os.path.join(harness.case.folder(), "random")
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as f:
        if f.read()[0] in "|/":
            raise Skip("core files go elsewhere: /proc/sys/kernel/core_pattern")

    env = {"LD_PRELOAD": tell_random, "TELL_RANDOM": told}
    destination, address = receive("--fabric", fabric, *proof, "--verbose",
                                   before=dump_core_in(folders[0]))
    source = send(address, "--fabric", fabric, *proof, "--verbose", "--max-bandwidth", "4M/s",
                  memory="64M", env=env, before=dump_core_in(folders[1]))
    source.says("precopy round 1", 30)
    for run in source, destination:
        run.kill(DUMP)
    cores = [core_of(run, folder) for run, folder in
             zip((source, destination), (folders[1], folders[0]))]
    with open(told, encoding="ascii") as f:
        random = [bytes.fromhex(line) for line in f.read().split()]
    check(len(random) >= 4, f"only {len(random)} random numbers were drawn")
    logs = source.out.text + source.err.text + destination.out.text + destination.err.text
    return cores, random, logs


def check_cores(fabric, cores, secrets):
    for side, core in zip(("source", "destination"), cores):
        found = find(secrets, core)
        check(not found, f"over {fabric} the core of the {side} holds {', '.join(found)}")
        check(b"viaduct" in core, "that is no core of the program")


@test_each("no secret in core dumps and logs, over {}", ["ofi:tcp", "ofi:shm"])
def nothing_in_cores(fabric):
    key = os.urandom(32)
    path = os.path.join(harness.case.folder(), "keys.psk")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"me:{key.hex()}\n")
    os.chmod(path, 0o600)
    cores, random, logs = abort_in_migration(fabric, "--psk", path)
    secrets = {"the key": key, "the key as text": key.hex().encode()}
    check_cores(fabric, cores, secrets)
    # The first one is the session's id. A nonce that has served opens nothing, and libfabric may
    # have kept the message that it went in: it is looked for in what is printed.
    secrets.update({f"nonce {i}": nonce for i, nonce in enumerate(random[1:])})
    for name, secret in secrets.items():
        check(secret.hex() not in logs, f"{name} was logged")
    check(len(set(random)) == len(random), "a random number came twice")


@test("every channel of every epoch has a nonce of its own")
def fresh_nonces():
    told = os.path.join(harness.case.folder(), "random")
    Run("demo", "--memory", "4M", "--postcopy", "--pull-link", "1",
        env={"LD_PRELOAD": tell_random, "TELL_RANDOM": told}).ends(0)
    with open(told, encoding="ascii") as f:
        random = f.read().split()
    # The id; main, two multifd and two preempt channels; bulk; and the resumed session.
    check(len(random) >= 1 + 5 + 2 + 5, f"{len(random)} random numbers were drawn")
    equal(len(set(random)), len(random), "the number of different ones")


@test("no private key in core dumps")
def no_private_key_in_cores():
    _, folder = creds("good")
    cores, _, logs = abort_in_migration("ofi:tcp", *creds("good"))
    secrets = {}
    for side in "client", "server":
        path = os.path.join(folder, side + "-key.pem")
        with open(path, encoding="ascii") as f:
            text = f.read()
        pem = re.search(r"-----BEGIN PRIVATE KEY-----\n(.+?)-----END", text, re.S).group(1)
        secrets[side + "'s key as text"] = pem.split("\n")[0].encode()
        der = subprocess.run(["certtool", "--key-info", "--infile", path], check=True,
                             capture_output=True, text=True).stdout
        bytes_ = re.search(r"private key:\n((?:\s+[0-9a-f:]+\n)+)", der).group(1)
        secrets[side + "'s key"] = bytes.fromhex(re.sub(r"[\s:]", "", bytes_))
    check_cores("ofi:tcp", cores, secrets)
    for secret in secrets.values():
        check(secret.hex() not in logs and secret.decode("latin-1") not in logs, "it was logged")


@test("guest memory is not in core dumps")
def no_guest_in_cores():
    folder = harness.case.folder()
    source = Run("demo", "--memory", "256M", "--max-bandwidth", "1M/s", before=dump_core_in(folder))
    source.says("precopy round 1", 30)
    source.kill(DUMP)
    core = core_of(source, folder)
    check(len(core) < 200 << 20, f"the core has {len(core) >> 20} MiB, the guest 256")


# -- integrity ----------------------------------------------------------------------------------

# Nothing is written twice, so nothing mends what was damaged on its way.
STILL = ("--vcpus", "0", "--memory", "64M", "--fabric", "fault+ofi:tcp,fault-flip=5")


@test("a wrong bit on the way is found by --integrity before the guest runs")
def wrong_bit():
    run = Run("demo", *STILL, "--integrity", "--json").ends(1)
    report = run.json()
    equal(report["result"], "aborted", "the result")
    equal(report["error"]["code"], "EBADMSG", "the code")
    seen = report["error"]["seen"]
    check(re.search("region ram differs from what was sent: "
                    "1 x 4096 bytes from offset 0x[0-9a-f]+, 1 pages in all", seen), seen)


@test("without --integrity it is not")
def wrong_bit_unseen():
    report = Run("demo", *STILL, "--json").ends(1).json()
    equal(report["result"], "completed", "the result")
    equal(report["verify"]["torn"], 1, "torn pages")


@test_each("--integrity over {} while the guest writes", ["ofi:tcp", "ofi:shm", "ucx:tcp"])
def no_false_alarm(fabric):
    Run("demo", "--fabric", fabric, "--integrity", "--memory", "64M", "--dirty-rate", "unlimited",
        "--max-bandwidth", "200M/s", "--max-rounds", "5", "--multifd", "3").ends(0)


@test("a damaged page that comes again is no failure")
def mended():
    Run("demo", "--fabric", "fault+ofi:tcp,fault-flip=2", "--integrity", "--memory", "4M",
        "--dirty-rate", "unlimited", "--max-rounds", "4", "--downtime-limit", "1ms").wait()


@test("a destination that asks for digests takes no source without")
def digests_required():
    destination, address = receive("--integrity")
    what, remedy = send(address).ends(1).error()
    check("source does not ask for that" in what and "--integrity" in remedy, what)
    destination.says("still listening")
    send(address, "--integrity").ends(0)
    destination.ends(0)


@test("digests and postcopy are not for the same migration")
def not_with_postcopy():
    what, _ = Run("demo", "--memory", "4M", "--integrity", "--postcopy").ends(1).error()
    check("no page that comes after it" in what, what)


if __name__ == "__main__":
    certificates, tell_random = (os.path.abspath(path) for path in sys.argv[2:4])
    sys.exit(harness.main(sys.argv[1], *sys.argv[4:]))
