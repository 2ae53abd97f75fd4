#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The shell commands of the documents do what they say: each is run here, or by a test that has a
name here.

    commands.py VIADUCT BUILD [PART OF A CASE'S NAME]

What can be is run here as it stands, in a shell on one of two hosts (../network/hosts.py). TESTS
says who runs which; a command without a test is a failure, and so is a line of TESTS without a
command.
"""

import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "network"))
import hosts  # pylint: disable=wrong-import-position
from hosts import harness  # pylint: disable=wrong-import-position
from harness import Run, Skip, check, equal, test  # pylint: disable=wrong-import-position

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)

# Cases of this file. Each runs all commands that are its own in TESTS.
BETWEEN, ASKED, RELAYS = "send and receive", "doctor and plan", "a pair of relays"
PAGE, FILES, SERVICE = "the page of metrics", "demo and its files", "the key of the service"

# Commands that no test runs: hours, or a machine of their own.
BY_HAND = "by hand"

# What stands for something of the reader's.
STANDS_FOR = {"DESTINATION": hosts.ADDRESS["b"], "HOST": hosts.ADDRESS["b"],
              "/etc/viaduct": "etc", "dist/": f"{ROOT}/dist/",
              "-g viaduct": "-g root", "chgrp viaduct": "chgrp root",
              "scripts/demo": "viaduct demo --memory 64M",
              "--memory 1G --stats": "--memory 64M --stats"}

LONG_S = 20 * harness.SCALE

_VIADUCT = r"build-(test|bench)/tools/viaduct "
_MATRIX = r"tests/qemu/matrix\.py .*"

# A whole command, and who runs it: a case of this file, a test of tests/, or, where a test would
# take the machine to itself, a script that has such a line: FILE: TEXT.
TESTS = [
    (r"psktool -u migration -p keys\.psk", BETWEEN),
    (r"scp keys\.psk DESTINATION:", BETWEEN),
    (r"viaduct receive --listen :4444 --psk keys\.psk", BETWEEN),
    (r"viaduct send --peer DESTINATION:4444 --psk keys\.psk (--memory 1G|--report \S+)", BETWEEN),
    (r"viaduct send --resume PID", "cli_failures"),
    (r"viaduct send \.\.\. --retry", "network"),
    (r"viaduct (doctor|plan)( --peer HOST:4444 .*)?", ASKED),
    (r"viaduct relay --role destination --listen :4444 --qemu unix:\S+ --psk keys\.psk", RELAYS),
    (r"viaduct relay --role source --listen unix:\S+ --peer DESTINATION:4444 --psk keys\.psk",
     RELAYS),
    (r"viaduct relay .* --keep --metrics-listen 9464", PAGE),
    (r"curl \S+", PAGE),
    (r"viaduct demo (--memory 1G --stats-file|--postcopy --report) \S+", FILES),
    (r"jq .* stats\.json", FILES),
    (r"viaduct relay --role source \.\.\. --report \S+", "html_page"),

    # QEMU and libvirt
    (r"qemu-system-x86_64 \.\.\. .* -incoming defer", "qemu_migrate"),
    (r"viaduct relay .* --qmp \S+ --tune --psk keys\.psk", "qemu_migrate"),
    (r"viaduct migrate-qemu .*", "qemu_migrate"),
    (r"virsh migrate web1 .*", "qemu_libvirt"),
    (rf"{_MATRIX} build-test/tools/viaduct", "qemu_matrix"),
    (r"tests/qemu/orders\.py .*", BY_HAND),
    (r"tests/qemu/libvirt\.py .*", "qemu_libvirt"),

    # the build, what it installs, the service
    (r"scripts/package( --check| && apt-get install \./build-package/viaduct_\*\.deb)?", "package"),
    (r"apt-get install \./build-package/viaduct_\*\.deb", "package"),
    (r"scripts/setup --build-only", "scripts/demo: scripts/setup\" --build-only"),
    (r"scripts/demo", FILES),
    (r"meson setup build-release --buildtype=release -Dtests=disabled",
     ".ci/run: build build-minimal"),
    (r"meson compile -C build-release", ".ci/run: meson compile -C"),
    (r"meson install -C build-release", "library_installed"),
    (r"cc vmm\.c .*", "library_installed"),
    (r"systemd-sysusers", "package"),
    (r"(install -d|psktool|chgrp|cp dist/systemd/relay-example\.conf) .*/etc/viaduct.*", SERVICE),
    (r"systemctl start viaduct-relay@web1", "tests/package/installed: systemctl start"),

    # tests, fuzzers, the model
    (r"scripts/test( --quick| --no-vm| --cc clang| --again| -- .*)?",
     ".ci/run: scripts/test --again\n"),
    (r"scripts/test --sanitize", ".ci/run: scripts/test --sanitize"),
    (r"scripts/test --tsan", ".ci/run: scripts/test --tsan"),
    (r"\.ci/run", ".ci/run: exec </dev/null"),
    (r"build-test/tests/unit/unit_bitmap .*", "bitmap"),
    (r"(VIA_CONTRACT_FABRIC=new )?build-test/tests/contract/contract_test( .*)?", "contract_test"),
    (r"build-test/tests/contract/contract_threads \S+", "threads_contract"),
    (r"build-test/tests/migrate/sim_migrations 1000", "sim_migrations"),
    (r"build-test/tests/hostile/hostile.*", "hostile"),
    (r"tests/hostile/strangers\.py .*", "strangers"),
    (r"build-test/tests/faults/every_site.*", "every_site"),
    (r"(VIA_TRACE_KEEP=/tmp )?tests/model/trace\.py .*", "trace"),
    (r"build-test/tests/model/record .*", "trace"),
    (r"spin .*|gcc .* pan\.c .*", "model"),
    (r"meson setup build-test .*", "scripts/test: meson setup"),
    (r"scripts/coverage", BY_HAND),
    (r"CC=clang meson setup build-fuzz .*", ".ci/run: configure build-fuzz clang"),
    (r"mkdir -p build-fuzz/found", ".ci/run: mkdir -p"),
    (r"build-fuzz/tests/fuzz/fuzz_control_messages .*", ".ci/run: -max_total_time="),
    (r"scripts/rxe-vm --two .*", "rxe_two_ends"),
    (rf"VIA_TEST_SLOW=1 scripts/rxe-vm .* {_MATRIX}", "rxe_qemu"),
    (r"scripts/rxe-vm (?!--two).*", "rxe_one_end"),

    # fabrics, benchmarks, probes
    (_VIADUCT + r"fabrics", "cli"),
    (r"viaduct fabrics", "cli"),
    (_VIADUCT + r"demo --fabric new", "cli"),
    (r"meson setup build-bench .*", ".ci/run: build build-minimal"),
    (_VIADUCT + r"bench .*", "bench_rows"),
    (r"viaduct bench .*", "bench_rows"),
    (r"ulimit -l unlimited", "rxe_one_end"),
    (r"bench/report\.py build-bench", "bench_report"),
    (r"bench/engine_vs_qemu\.py .*", "bench/report.py: engine_vs_qemu.py"),
    (r"bench/qemu_migration\.py .*", BY_HAND),
    (r"readelf -n .*", "trace_scripts"),
    (r".*bpftrace .*", "trace_scripts"),
    (r"viaduct demo --memory 256M", "trace_scripts"),
]


@functools.lru_cache(maxsize=None)
def commands():
    """Every command of a ```sh block as (document, command), without its comment, on one line."""
    found = []
    for path in DOCUMENTS:
        for block in BLOCK.findall(path.read_text(encoding="utf-8")):
            for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
                command = re.sub(r"(^|\s+)# .*", "", line)
                if command:
                    found.append((str(path.relative_to(ROOT)), command))
    return found


def own(name):
    """The commands that are a case's own in TESTS, each once."""
    patterns = [pattern for pattern, who in TESTS if who == name]
    return list(dict.fromkeys(command for _, command in commands()
                              if any(re.fullmatch(p, command) for p in patterns)))


# -- two hosts ----------------------------------------------------------------------------------


class Host:
    """A host with a home, where commands begin, a /run, and scp to the other one."""

    def __init__(self, name):
        self.name, self.home = name, pathlib.Path(harness.case.folder())
        for folder in ("bin", "run/vm", "run/qemu"):
            (self.home / folder).mkdir(parents=True)

    def knows(self, other):
        scp = self.home / "bin" / "scp"
        address = hosts.ADDRESS[other.name]
        scp.write_text(f'#!/bin/sh\n[ "$2" = {address}: ] && cp "$1" {other.home}/\n',
                       encoding="ascii")
        scp.chmod(0o755)

    def start(self, command):
        for words, meant in STANDS_FOR.items():
            command = command.replace(words, meant)
        program = command.split()[0]
        path = f"{self.home}/bin:{os.path.dirname(harness.binary)}:{os.environ['PATH']}"
        if not shutil.which(program, path=path):
            raise Skip(f"needs {program}: scripts/setup")

        def enter():
            hosts.at(self.name)()
            os.chdir(self.home)
        return Run("-c", 'mount --bind run /run && exec bash -c "$0"', command, program="bash",
                   env={"PATH": path}, before=enter)

    def run(self, command, status=0):
        return self.start(command).ends(status)

    def listens(self, command):
        """It, as soon as somebody can connect to it."""
        run = self.start(command)
        run.says(r"listening on ")
        return run


def two_hosts():
    """(source, destination)"""
    reason = why_not()
    if reason:
        raise Skip(reason)
    a, b = Host("a"), Host("b")
    a.knows(b)
    return a, b


@functools.lru_cache(maxsize=None)
def why_not():
    reason = hosts.why_not()
    return reason and f"{reason}; try: sudo {' '.join(sys.argv)}"


def share_key(a):
    """As README does it."""
    for command in own(BETWEEN):
        if re.match(r"psktool .* keys\.psk|scp ", command):
            a.run(command)


def check_page(host):
    page = (host.home / "migration.html").read_text(encoding="utf-8")
    check("</html>" in page, "no page of --report")


def one(name, start):
    """The only command of its kind among a case's own."""
    found = [command for command in own(name) if command.startswith(start)]
    equal(len(found), 1, f"the number of commands that begin with {start!r}")
    return found[0]


# -- cases --------------------------------------------------------------------------------------


@test(BETWEEN)
def _():
    a, b = two_hosts()
    receive = one(BETWEEN, "viaduct receive")
    for command in own(BETWEEN):
        if command == receive:
            continue
        is_send = command.startswith("viaduct send")
        receiver = b.listens(receive) if is_send else None
        run = a.run(command)
        if is_send:
            receiver.ends(0)
            for end in (run, receiver):
                check("0 missing, 0 stale, 0 torn" in end.out.text, "not every page was verified")
            check("TLS 1.3, pre-shared key" in run.out.text, "it did not use the key")
    check_page(a)


@test(ASKED)
def _():
    a, b = two_hosts()
    share_key(a)
    receiver = b.listens(one(BETWEEN, "viaduct receive"))
    readme = DOCUMENTS[0].read_text(encoding="utf-8")
    inline = re.findall(r"`(viaduct doctor --peer [^`]+)`", readme)
    equal(len(inline), 1, "the number of doctors in README.md")
    for command in own(ASKED) + inline:
        run = a.start(command)
        if "plan" in command:
            check("advice " in run.ends(0).out.text, "no advice")
        else:  # what it finds on this host is the host's
            check(run.wait() in (0, 1), f"the exit status is {run.status}")
            check(re.search(r"^\d+ faults?, ", run.out.text, re.M), "no count of faults")
            check("--peer" not in command or re.search(r"^ok +peer-handshake ", run.out.text, re.M),
                  "no handshake with the peer")
    receiver.kill(signal.SIGTERM)
    receiver.wait()


def talk(source, waiting):
    """Through both relays, as a VMM that they do not know: a question, its answer, the end."""
    source.sendall(b"question" * 8)
    destination, _ = waiting.accept()
    destination.settimeout(LONG_S)
    with destination:
        equal(destination.recv(64, socket.MSG_WAITALL), b"question" * 8, "what came there")
        destination.sendall(b"answer")
        equal(source.recv(6, socket.MSG_WAITALL), b"answer", "what came back")
        source.close()
        equal(destination.recv(64), b"", "what came behind the end")


def unix_path(host, command, option):
    return str(host.home) + re.search(rf"{option} unix:(\S+)", command).group(1)


@test(RELAYS)
def _():
    a, b = two_hosts()
    share_key(a)
    relays = own(RELAYS)
    equal(len(relays) % 2, 0, "the number of relays by twos")
    for inner, outer in itertools.zip_longest(*[iter(relays)] * 2):
        with socket.socket(socket.AF_UNIX) as vmm, socket.socket(socket.AF_UNIX) as waiting:
            waiting.bind(unix_path(b, inner, "--qemu"))
            waiting.listen()
            for end in (vmm, waiting):
                end.settimeout(LONG_S)
            runs = [b.listens(inner), a.listens(outer)]
            vmm.connect(unix_path(a, outer, "--listen"))
            talk(vmm, waiting)
            for run in runs:
                run.ends(0)


@test(PAGE)
def _():
    a, b = two_hosts()
    share_key(a)
    shutil.copy(a.home / "keys.psk", b.home)
    relay = b.start(one(PAGE, "viaduct relay"))
    if not relay.says(r"metrics at (http\S+)|without libmicrohttpd").group(1):
        raise Skip("this build has no page: install libmicrohttpd-dev")
    relay.says("listening on ")
    page = b.run(one(PAGE, "curl")).out.text
    check("viaduct_build_info{" in page and page.endswith("# EOF\n"), "that is no page of metrics")
    relay.kill(signal.SIGTERM)
    relay.wait()


@test(FILES)
def _():
    a, _b = two_hosts()
    for command in own(FILES):
        run = a.run(command)
        if command.startswith("jq"):
            check(re.fullmatch(r"([\d.]+\t\w[\w-]*\t\d+\n)+", run.out.text),
                  "not time, phase and bytes")
    check_page(a)


@test(SERVICE)
def _():
    a, _b = two_hosts()
    for command in own(SERVICE):
        a.run(command)
    equal(oct((a.home / "etc/keys.psk").stat().st_mode & 0o777), "0o640", "the mode of the key")
    check((a.home / "etc/relay-web1.conf").exists(), "no configuration")


@test("every command has a test")
def _():
    tests = json.loads((BUILD / "meson-info/intro-tests.json").read_text(encoding="utf-8"))
    known = {t["name"] for t in tests} | {BETWEEN, ASKED, RELAYS, PAGE, FILES, SERVICE, BY_HAND}
    wrong = [f"{path}: {command}: no test in TESTS of tests/docs/commands.py"
             for path, command in commands() if not any(re.fullmatch(p, command) for p, _ in TESTS)]
    for pattern, who in TESTS:
        if not any(re.fullmatch(pattern, command) for _, command in commands()):
            wrong.append(f"TESTS: {pattern}: no document has such a command")
        path, _, text = who.partition(": ")
        if not ((ROOT / path).is_file() and text in (ROOT / path).read_text(encoding="utf-8")
                if text else who in known):
            wrong.append(f"TESTS: {who!r}: no such test")
    for line in wrong:
        print("#", line)
    equal(len(wrong), 0, "the number of commands and lines of TESTS that are wrong")


BUILD = pathlib.Path(sys.argv[2])
sys.exit(harness.main(sys.argv[1], *sys.argv[3:]))
