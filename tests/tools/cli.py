#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The program as a user meets it: what it does, prints and ends with when all goes well, and
when the command line is wrong. What goes wrong between two hosts is in cli_failures.py.

    cli.py VIADUCT [PART OF A CASE'S NAME]
"""

import json
import os
import re
import signal
import subprocess
import sys

import harness
from harness import Run, check, equal, receive, send, test, test_each

FABRICS = ["ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm"]
SMALL = ["--memory", "8M", "--dirty-rate", "20M/s"]


# -- the JSON object -----------------------------------------------------------------------

# Key: type, or the keys below it. More keys may be there.
NUMBER = (int, float)
KEYS = {
    "result": str, "mode": str, "fabric": str, "memory_bytes": int, "multifd_channels": int,
    "preempt_channels": int, "rounds": int, "total_ms": NUMBER, "downtime_ms": NUMBER,
    "bytes_sent": int, "pages_sent": int, "zero_pages": int, "gib_per_s": NUMBER,
    "fence": {"epochs": int, "sealed": bool,
              "drain_us": {"p50": NUMBER, "p99": NUMBER, "max": NUMBER}},
    "cpu_s": {"source": NUMBER, "destination": NUMBER},
}
VERIFY = {"pages": int, "missing": int, "stale": int, "torn": int}
ERROR = {"code": str, "what": str, "seen": str, "remedy": str}


def check_keys(value, keys, path=""):
    check(isinstance(value, dict), f"{path or 'the whole'} is not an object: {value!r}")
    for key, wanted in keys.items():
        where = f"{path}.{key}" if path else key
        check(key in value, f"there is no {where}")
        seen = value[key]
        if isinstance(wanted, dict):
            check_keys(seen, wanted, where)
            continue
        # In Python a bool is an int.
        right = isinstance(seen, wanted) and (wanted is bool or not isinstance(seen, bool))
        check(right, f"{where} is {seen!r}")
        check(not isinstance(seen, NUMBER) or seen >= 0, f"{where} is negative: {seen}")


QUANTILES = dict.fromkeys(["p50", "p90", "p99", "p999", "max"], NUMBER)
POSTCOPY = {"faults": int, "requests": int, "request_pages": int, "bulk_pages": int,
            "duplicate_pages": int, "recoveries": int, "latency_us": QUANTILES,
            "request_us": QUANTILES, "install_us": QUANTILES}


def check_postcopy(report, recoveries=0):
    """The guest moved before all of its memory had, and all of it came."""
    check_keys(report, KEYS)
    equal(report["result"], "completed", "result")
    equal(report["mode"], "postcopy", "mode")
    postcopy = report["postcopy"]
    check_keys(postcopy, POSTCOPY, "postcopy")
    check(postcopy["faults"] > 0, "nobody missed a page")
    check(postcopy["requests"] > 0 and postcopy["request_pages"] > 0, "no page was asked for")
    equal(postcopy["recoveries"], recoveries, "postcopy.recoveries")
    for name in ("latency_us", "request_us", "install_us"):
        values = [postcopy[name][key] for key in QUANTILES]
        check(0 < values[0] and values == sorted(values), f"{name} is not in order: {values}")
    pages = report["memory_bytes"] // 4096
    equal(report["verify"], {"pages": pages, "missing": 0, "stale": 0, "torn": 0}, "verify")
    equal(report["fence"]["sealed"], True, "fence.sealed")


def check_report(report, memory, channels=2, preempt=2):
    """A migration completed by precopy, as its source tells of it."""
    check_keys(report, KEYS)
    check_keys(report["verify"], VERIFY, "verify")
    equal(report["result"], "completed", "result")
    equal(report["mode"], "precopy", "mode")
    equal(report["postcopy"], None, "postcopy")
    equal(report["memory_bytes"], memory, "memory_bytes")
    equal(report["multifd_channels"], channels, "multifd_channels")
    equal(report["preempt_channels"], preempt, "preempt_channels")
    equal(report["verify"], {"pages": memory // 4096, "missing": 0, "stale": 0, "torn": 0}, "verify")
    check("error" not in report, "there is an error")
    check(report["rounds"] >= 2, "a running guest needs two rounds")
    check(0 < report["downtime_ms"] <= report["total_ms"], "downtime_ms is not within total_ms")
    check(report["pages_sent"] + report["zero_pages"] >= memory // 4096, "pages were not sent")
    check(report["bytes_sent"] >= report["pages_sent"] * 4096, "bytes_sent is less than the pages")
    seconds = report["total_ms"] / 1e3
    rate = report["bytes_sent"] / 2**30 / seconds
    check(abs(report["gib_per_s"] - rate) <= 0.01 * rate, f"gib_per_s is not {rate}")
    fence = report["fence"]
    equal(fence["epochs"], report["rounds"], "fence.epochs")
    equal(fence["sealed"], True, "fence.sealed")
    drain = fence["drain_us"]
    check(0 < drain["p50"] <= drain["p99"] <= drain["max"], f"drain_us is not in order: {drain}")
    check(drain["max"] <= report["total_ms"] * 1e3, "drain_us.max is longer than the migration")


# -- demo ------------------------------------------------------------------------------------


@test_each("demo --json over {}", FABRICS)
def _(fabric):
    run = Run("demo", "--fabric", fabric, *SMALL, "--seed", 7, "--json").ends(0)
    report = run.json()
    check_report(report, 8 << 20)
    equal(report["fabric"], fabric, "fabric")
    equal(report["seed"], 7, "seed")


@test_each("demo over {} prints a summary", FABRICS)
def _(fabric):
    run = Run("demo", "--fabric", fabric, *SMALL).ends(0)
    for line in (rf"^migration completed: 8\.0 MiB .* {fabric}, 2 multifd channels", r"^  fence .* sealed;",
                 r"^  verify +2048 pages: 0 missing, 0 stale, 0 torn$"):
        check(re.search(line, run.out.text, re.M), f"no line /{line}/")
    check("\r" not in run.out.text + run.err.text, "a live line without a terminal")


@test("demo chooses a fabric by itself: --fabric auto")
def _():
    report = Run("demo", "--fabric", "auto", *SMALL, "--json").ends(0).json()
    check_report(report, 8 << 20)
    equal(report["fabric"], "ucx:shm", "the fabric of two processes on one host")


@test("demo of one page, no vCPUs, one channel")
def _():
    report = Run("demo", "--memory", "4K", "--vcpus", 0, "--multifd", 1, "--json").ends(0).json()
    check_report(report, 4096, channels=1)


@test("demo stops the guest after --max-rounds")
def _():
    report = Run("demo", *SMALL, "--dirty-rate", "unlimited", "--downtime-limit", "1us",
                 "--max-rounds", 3, "--json").ends(0).json()
    check_report(report, 8 << 20)
    equal(report["rounds"], 4, "the rounds, with that of the stopped guest")


@test("demo keeps to --max-bandwidth")
def _():
    report = Run("demo", "--memory", "8M", "--vcpus", 0, "--max-bandwidth", "16M/s",
                 "--json").ends(0).json()
    check_report(report, 8 << 20)
    check(report["bytes_sent"] / (report["total_ms"] / 1e3) < 20 << 20, "it was faster than that")


@test("demo that cannot be: JSON with the error, exit 1")
def _():
    run = Run("demo", "--fabric", "ofi:nosuch", "--memory", "4K", "--json").ends(1)
    report = run.json()
    check_keys(report, KEYS)
    check_keys(report["error"], ERROR, "error")
    equal(report["result"], "aborted", "result")
    equal(report["error"]["code"], "ENODEV", "error.code")
    equal(report["verify"], None, "verify")
    equal(report["fence"]["sealed"], False, "fence.sealed")


# -- send and receive --------------------------------------------------------------------------


def check_pair(source, destination, memory=4096, control="plain text"):
    report = source.ends(0).json()
    check_report(report, memory)
    equal(report["control"], control, "control")
    report = destination.ends(0).json()
    check_keys(report, KEYS)
    equal(report["result"], "completed", "the destination's result")
    equal(report["control"], control, "the destination's control")
    equal(report["memory_bytes"], memory, "the destination's memory_bytes")
    equal(report["fence"]["sealed"], True, "the destination's fence.sealed")
    equal(report["verify"], {"pages": memory // 4096, "missing": 0, "stale": 0, "torn": 0},
          "the destination's verify")


@test_each("send and receive, {} over {}", [
    ("127.0.0.1:0", "ofi:tcp"), ("[::1]:0", "ofi:tcp"), ("[::1]:0", "ofi:shm")])
def _(listen, fabric):
    destination, address = receive("--fabric", fabric, "--json", listen=listen)
    check_pair(send(address, "--fabric", fabric, "--json"), destination)


@test("send and receive by name, and a port alone to listen on")
def _():
    destination, address = receive("--json", listen="0")
    port = address.rpartition(":")[2]
    check_pair(send(f"localhost:{port}", "--json"), destination)


def make_keys(path):
    """A key file, by GnuTLS's own tool where it is there."""
    try:
        for name in ("one", "two"):
            subprocess.run(["psktool", "-u", name, "-p", path], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        with open(path, "w", encoding="ascii") as f:
            f.write(f"one:{os.urandom(32).hex()}\ntwo:{os.urandom(32).hex()}\n")


@test_each("send and receive with --psk, {}", [("127.0.0.1:0", ()), ("[::1]:0", ("--psk-identity", "two"))])
def _(listen, identity):
    keys = os.path.join(harness.case.folder(), "keys.psk")
    make_keys(keys)
    destination, address = receive("--psk", keys, "--json", listen=listen)
    check_pair(send(address, "--psk", keys, *identity, "--json"), destination,
               control="TLS 1.3, pre-shared key")


@test("receive prints its own summary, and says whose figures those of its progress are")
def _():
    destination, address = receive()
    send(address, "--vcpus", 0, "--max-bandwidth", "8M/s", memory="16M").ends(0)
    destination.ends(0)
    check(re.search(r"^migration completed: 16\.0 MiB ", destination.out.text, re.M), "no summary")
    lines = destination.err.text.splitlines()[1:]  # behind where it listens
    check(all(re.match(r"(precopy|switch-over) round \d+: the source has .* left and sends .*/s$"
                       r"|set-up: the source has not begun to send$"
                       r"|done round \d+: all of 16\.0 MiB has come, in \d+\.\d s$", line)
              for line in lines), "a line of another form")
    check({"precopy", "done"} <= {line.split()[0] for line in lines}, "no progress")
    check(max(map(len, lines)) <= 80, "a line of more than 80 columns")


# -- postcopy ------------------------------------------------------------------------------------

# Guests that write all they can: round 1 leaves much, and the vCPUs miss much.
BUSY = ["--memory", "32M", "--dirty-rate", "unlimited", "--downtime-limit", "1us"]
# And with time for something to happen meanwhile.
LENGTHY = ["--max-postcopy-bandwidth", "8M/s"]


@test_each("demo --postcopy over {}", FABRICS)
def _(fabric):
    report = Run("demo", "--fabric", fabric, *BUSY, "--postcopy", "--json").ends(0).json()
    check_postcopy(report)
    equal(report["fabric"], fabric, "fabric")
    equal(report["preempt_channels"], 2, "preempt_channels")
    equal(report["rounds"], 1, "rounds")


@test("demo --postcopy prints a summary")
def _():
    run = Run("demo", *BUSY, *LENGTHY, "--postcopy").ends(0)
    for line in (r"^  sent .* in 1 round: ", r"^  fence +1 epoch drained",
                 r"^  postcopy +\d+ faults; .*; 0 recoveries$", r"^  requests +\d+, answered p50 ",
                 r"^  verify +8192 pages: 0 missing, 0 stale, 0 torn$"):
        check(re.search(line, run.out.text, re.M), f"no line /{line}/")
    check(re.search(r"^postcopy: .* lacking, .*/s, \d+ requests$", run.err.text, re.M), "no progress")


@test_each("demo --postcopy with {} channels for requests and {} for pages", [(1, 1), (1, 4), (8, 1)])
def _(preempt, multifd):
    report = Run("demo", *BUSY, "--postcopy", "--preempt", preempt, "--multifd", multifd, "--vcpus", 8,
                 "--json").ends(0).json()
    check_postcopy(report)
    equal(report["preempt_channels"], preempt, "preempt_channels")
    equal(report["multifd_channels"], multifd, "multifd_channels")


@test("demo --postcopy-after 3")
def _():
    report = Run("demo", *BUSY, "--postcopy-after", 3, "--json").ends(0).json()
    check_postcopy(report)
    equal(report["rounds"], 3, "rounds")


@test("demo --postcopy-when-stuck 2 of a guest that never rests")
def _():
    report = Run("demo", *BUSY, "--postcopy-when-stuck", 2, "--max-bandwidth", "64M/s",
                 "--json").ends(0).json()
    check_postcopy(report)
    check(2 <= report["rounds"] <= 15, f"{report['rounds']} rounds")


@test("demo --postcopy-when-stuck of a guest that does rest")
def _():
    check_report(Run("demo", *SMALL, "--postcopy-when-stuck", 2, "--json").ends(0).json(), 8 << 20)


@test("demo --postcopy of one page, no vCPUs")
def _():
    report = Run("demo", "--memory", "4K", "--vcpus", 0, "--postcopy", "--json").ends(0).json()
    equal(report["result"], "completed", "result")
    equal(report["verify"], {"pages": 1, "missing": 0, "stale": 0, "torn": 0}, "verify")


@test("demo --postcopy keeps to --max-postcopy-bandwidth")
def _():
    report = Run("demo", "--memory", "64M", "--vcpus", 1, "--dirty-rate", "unlimited", "--postcopy",
                 "--downtime-limit", "1us", "--max-postcopy-bandwidth", "8M/s", "--json").ends(0).json()
    check_postcopy(report)
    seconds = report["total_ms"] / 1e3
    bulk = report["postcopy"]["bulk_pages"] * 4096
    check(bulk / seconds < 10 << 20, f"{bulk / seconds / 2**20:.1f} MiB/s came unasked")


@test_each("demo over {} when its link is pulled {} times", [
    (fabric, times) for fabric in FABRICS for times in (1, 2, 5)])
def _(fabric, times):
    run = Run("demo", "--fabric", fabric, *BUSY, "--postcopy", "--pull-link", times, "--json").ends(0)
    check_postcopy(run.json(), recoveries=times)
    said = re.findall(r"^viaduct: the migration is paused: .*pulled by --pull-link", run.err.text, re.M)
    equal(len(said), times, "the times that it says so")
    check(re.search(r"^postcopy: ", run.err.text, re.M), "no progress of postcopy")


@test_each("demo over {} of a guest that is complete before its link is pulled", FABRICS)
def _(fabric):
    report = Run("demo", "--fabric", fabric, "--memory", "64K", "--dirty-rate", "unlimited", "--postcopy",
                 "--downtime-limit", "1us", "--pull-link", 2, "--json").ends(0).json()
    check_postcopy(report, recoveries=2)


@test("demo --pull-link without postcopy: nothing is pulled")
def _():
    check_report(Run("demo", *SMALL, "--pull-link", 3, "--json").ends(0).json(), 8 << 20)


@test("send and receive, postcopy: both tell the same")
def _():
    destination, address = receive("--json")
    source = send(address, *BUSY[2:], "--postcopy", "--json", memory="32M").ends(0)
    report = source.json()
    check_postcopy(report)
    other = destination.ends(0).json()
    check_postcopy(other)
    for key in ("faults", "duplicate_pages", "latency_us", "request_us", "install_us"):
        equal(other["postcopy"][key], report["postcopy"][key], f"{key} at the destination")


@test_each("SIGUSR1 to {} switches to postcopy", ["send", "demo"])
def _(command):
    args = [*BUSY[2:], "--max-bandwidth", "32M/s", "--max-rounds", 1000, "--json"]
    if command == "demo":
        destination, source = None, Run("demo", "--memory", "32M", *args)
    else:
        destination, address = receive("--json", "--fabric", "ofi:tcp")
        source = send(address, *args, "--fabric", "ofi:tcp", memory="32M")
    source.says("precopy round 1")
    source.kill(signal.SIGUSR1)
    source.kill(signal.SIGUSR1)  # again does no harm
    check_postcopy(source.ends(0).json())
    if destination:
        check_postcopy(destination.ends(0).json())


@test("SIGUSR1 and SIGUSR2 that nobody waits for")
def _():
    destination, address = receive("--json")
    destination.kill(signal.SIGUSR1)
    destination.kill(signal.SIGUSR2)
    source = send(address, *UNHURRIED[2:], "--json", memory="16M")
    source.says("precopy round 1")
    for run in (source, destination):
        run.kill(signal.SIGUSR2)
    destination.kill(signal.SIGUSR1)
    check_report(source.ends(0).json(), 16 << 20)
    destination.ends(0)


# -- a wrong command line ------------------------------------------------------------------------


def check_usage(args, what):
    run = Run(*args).ends(2, seconds=5)
    equal(run.out.text, "", "stdout")
    line, remedy = run.error()
    check(re.search(what, line), f"the message is `{line}`")
    check(run.err.text == f"viaduct: {line}\n  try: {remedy}\n", "stderr holds more than that")


for _args, _what in [
        (["bogus"], "^bogus: no such command$"),
        (["--bogus"], "^--bogus: no such command$"),
        (["demo", "--bogus"], "^demo: unknown option --bogus$"),
        (["receive", "--listen", "0", "--memory", "4K"], "^receive: unknown option --memory$"),
        (["demo", "surplus"], "^demo: unexpected argument surplus$"),
        (["fabrics", "ofi"], "^fabrics: unexpected argument ofi$"),
        (["relay"], "^relay: no --role source"),
        (["relay", "--role", "middle"], '^relay --role: "middle"$'),
        (["relay", "--role", "source", "--listen", ":0"], "^relay: no --peer"),
        (["relay", "--role", "destination", "--listen", ":0"], "^relay: no --qemu"),
        (["relay", "--role", "destination", "--listen", ":0", "--qemu", "nonsense"],
         "^read the address `nonsense`: neither a path"),
        (["relay", "--role", "source", "--listen", ":0", "--peer", "host:many"],
         "^read the address `host:many`: not a host and the number of a port$"),
        (["relay", "--role", "source", "--listen", ":0", "--peer", "host:1", "--tune"],
         "^relay: no --qmp"),
        (["migrate-qemu"], "^migrate-qemu: no --qmp"),
        (["migrate-qemu", "--qmp", "/q"], "^migrate-qemu: no --to"),
        (["migrate-qemu", "--qmp", "/q", "--to", "unix:/x"], "^read the address `unix:/x`: "),
        (["migrate-qemu", "--qmp", "/q", "--to", "h:1", "--preempt"],
         "^migrate-qemu: no --postcopy for --preempt$"),
        (["migrate-qemu", "--qmp", "/q", "--to", "h:1", "--multifd", "256"],
         '^migrate-qemu --multifd: "256"$'),
        (["migrate-qemu", "--qmp", "/q", "--to", "h:1", "--timeout", "0s"],
         "^migrate-qemu --timeout: 0s$"),
        (["demo", "--fabric", "bogus"], '^demo --fabric: no such fabric'),
        (["send", "--peer", "localhost:1", "--fabric", "ofi:tcp,bogus=1"],
         "^send --fabric: unknown key bogus$"),
        (["demo", "--fabric", "ofi:tcp,tx-depth=many"], '--fabric.*"many"'),
        (["receive", "--listen", "0", "--fabric", "ofi:tcp,tx-depth=7"], '--fabric.*"7"'),
        (["demo", "--memory", "0"], "^demo --memory: 0$"),
        (["demo", "--memory", "5000"], "^demo --memory: 5000$"),
        (["demo", "--memory", "abc"], '^demo --memory: "abc"$'),
        (["demo", "--memory", "-1"], '^demo --memory: "-1"$'),
        (["demo", "--memory"], "^demo: no value for --memory$"),
        (["demo", "--vcpus", "65"], '^demo --vcpus: "65"$'),
        (["demo", "--metrics-listen", "nonsense"], '^demo --metrics-listen: "nonsense"$'),
        (["receive", "--metrics-listen", "::1:9464"], '^receive --metrics-listen: "::1:9464"$'),
        (["relay", "--metrics-listen", "host:65536"], '^relay --metrics-listen: "host:65536"$'),
        (["demo", "--multifd", "0"], '^demo --multifd: "0"$'),
        (["demo", "--multifd", "257"], '^demo --multifd: "257"$'),
        (["demo", "--preempt", "0"], '^demo --preempt: "0"$'),
        (["demo", "--preempt", "65"], '^demo --preempt: "65"$'),
        (["send", "--postcopy-after", "0"], '^send --postcopy-after: "0"$'),
        (["send", "--resume", "0"], '^send --resume: "0"$'),
        (["receive", "--recover-within", "0s"], "^receive --recover-within: 0s$"),
        (["send", "--memory", "4K"], "^send: no --peer$"),
        (["receive"], "^receive: no --listen$")]:
    harness.add("exit 2: viaduct " + " ".join(_args), lambda a=_args, w=_what: check_usage(a, w))


@test("exit 2: no command at all, with the help on stderr")
def _():
    run = Run().ends(2, seconds=5)
    equal(run.out.text, "", "stdout")
    check(run.err.text.startswith("usage: viaduct COMMAND"), "no help")


# -- help, version, fabrics ------------------------------------------------------------------------


@test("--help, --version")
def _():
    run = Run("--help").ends(0, seconds=5)
    for command in ("demo", "send", "receive", "relay", "migrate-qemu", "fabrics"):
        check(re.search(rf"^  {command} +\w", run.out.text, re.M), f"no {command} in it")
    equal(Run("-h").ends(0, seconds=5).out.text, run.out.text, "what -h prints")
    run = Run("--version").ends(0, seconds=5)
    check(re.fullmatch(r"viaduct \d+\.\d+\.\d+\n", run.out.text), f"version {run.out.text!r}")


@test_each("--help of {}", ["demo", "send", "receive", "relay", "migrate-qemu", "fabrics"])
def _(command):
    run = Run(command, "--help", "--bogus").ends(0, seconds=5)
    check(run.out.text.startswith(f"usage: viaduct {command} "), "no usage line")
    check(re.search(r"^  --json +\S", run.out.text, re.M), "no --json in it")
    equal(run.err.text, "", "stderr")


@test("fabrics, and fabrics --json")
def _():
    run = Run("fabrics").ends(0)
    text = run.out.text
    for fabric in FABRICS:
        check(re.search(rf"^{fabric} +yes  (libfabric|UCX) ", text, re.M), f"{fabric} is not usable")
    run = Run("fabrics", "--json").ends(0)
    fabrics = json.loads(run.out.text)
    equal([f["fabric"] for f in fabrics],
          [line.split()[0] for line in text.splitlines() if line[0] != " "], "the names in both")
    for fabric in fabrics:
        check_keys(fabric, {
            "fabric": str, "usable": bool, "reason": str, "device": str, "library": str,
            "rank": int, "reach": str, "limits": dict.fromkeys(
                ["write_len_max", "msg_len_max", "sge_max", "tx_depth", "rx_depth"], int),
            "facts": dict})
        for name, value in fabric["facts"].items():
            check(re.search(rf"^ +{re.escape(name)}: {re.escape(value)}$", text, re.M),
                  f"{name} is in the JSON only")
        equal(fabric["usable"], not fabric["reason"], f"usable of {fabric['fabric']}")
        equal(fabric["usable"], fabric["limits"]["msg_len_max"] >= 8192, "the limits are there")


# -- progress -----------------------------------------------------------------------------------------


# Well over a second of round 1, and no more rounds than needed.
UNHURRIED = ["--memory", "16M", "--vcpus", 0, "--max-bandwidth", "8M/s"]
# Half a second: a live line is written ten times a second.
SHORTER = ["--memory", "6M", "--vcpus", 0, "--max-bandwidth", "8M/s"]


def on_terminal(**env):
    """What a slow demo writes to a terminal."""
    master, slave = os.openpty()
    run = Run("demo", *SHORTER, "--json", terminal=slave,
              env={"TERM": "xterm", "NO_COLOR": "", **env})
    os.close(slave)
    screen = harness.Output(master)
    run.ends(0)
    screen.thread.join(10)
    run.json()
    return screen.text


def columns_of(text):
    return [len(re.sub(r"\033\[[0-9;]*m", "", line)) for line in re.split(r"[\r\n]+", text)]


@test("progress is plain lines when stderr is no terminal")
def _():
    run = Run("demo", *UNHURRIED).ends(0)
    check("\r" not in run.err.text and "\033" not in run.err.text, "a live line in a file")
    lines = run.err.text.splitlines()
    check(all(re.match(r"(precopy|switch-over|done) round \d+: ", line) for line in lines),
          "a line of another form")
    # The first, one a second, and one for each change.
    check(3 <= len(lines) <= 10, f"{len(lines)} lines")
    check(max(map(len, lines)) <= 80, "a line of more than 80 columns")


@test("progress is one live line on a terminal")
def _():
    text = on_terminal()
    check(text.count("\r") >= 3, "it is not written over")
    check("\033[" in text, "no colour")
    equal(text.replace("\r\n", "\n").count("\n"), 1, "the line breaks, all at the end")
    check(max(columns_of(text)) <= 79, f"a line of {max(columns_of(text))} columns")
    check("precopy round 1:" in re.sub(r"\033\[[0-9;]*m", "", text), "no precopy in it")


@test("NO_COLOR: a live line without escape sequences")
def _():
    text = on_terminal(NO_COLOR="1")
    check("\r" in text, "no live line")
    check("\033" not in text, "an escape sequence")


@test("TERM=dumb: plain lines")
def _():
    text = on_terminal(TERM="dumb").replace("\r\n", "\n")
    check("\r" not in text and "\033" not in text, "a live line")


# -- SIGINT and SIGTERM ----------------------------------------------------------------------------------


def check_aborted(run, status=1):
    report = run.ends(status, seconds=15).json()
    equal(report["result"], "aborted", "result")
    equal(report["error"]["code"], "ECANCELED", "error.code")
    equal(report["verify"], None, "verify")
    return report


SLOWLY = ["--memory", "64M", "--max-bandwidth", "8M/s", "--json"]


@test_each("{} to the source in round 1", ["SIGINT", "SIGTERM"])
def _(name):
    destination, address = receive("--json")
    source = send(address, *SLOWLY)
    source.says("precopy round 1")
    source.kill(getattr(signal, name))
    check_aborted(source)
    check("aborted by request" in source.error()[0], "no word of the request")
    report = check_aborted(destination)
    check(report["error"]["what"].startswith("at the peer:"), "it does not say whose wish it was")


@test("SIGTERM to the destination in round 1: the source's guest runs on")
def _():
    destination, address = receive()
    source = send(address, "--memory", "64M", "--max-bandwidth", "8M/s")
    source.says("precopy round 1")
    destination.kill(signal.SIGTERM)
    source.ends(1, seconds=15)
    destination.ends(1, seconds=15)
    check("the guest runs on at the source" in source.out.text, "not said")
    check(source.error()[0].startswith("at the peer: "), "it does not say whose wish it was")


@test_each("SIGINT to demo over {}, as a terminal sends it: to both processes", FABRICS)
def _(fabric):
    run = Run("demo", "--fabric", fabric, *SLOWLY)
    run.says("precopy round 1")
    run.child()
    os.killpg(run.pid, signal.SIGINT)
    report = check_aborted(run)
    equal(report["error"]["what"], "migration", "error.what, in the source's own words")


@test("SIGINT to a receiver that waits")
def _():
    destination, _ = receive("--json")
    destination.kill(signal.SIGINT)
    check_aborted(destination)


@test_each("SIGINT to demo over {} in postcopy", FABRICS)
def _(fabric):
    run = Run("demo", "--fabric", fabric, *BUSY, *LENGTHY, "--postcopy", "--json")
    run.says("postcopy: ")
    run.child()
    os.killpg(run.pid, signal.SIGINT)
    run.says("viaduct: SIGINT: too late to abort")
    os.killpg(run.pid, signal.SIGINT)
    report = run.ends(1, seconds=5).json()
    equal(report["result"], "paused", "result")
    equal(report["error"]["code"], "ECANCELED", "error.code")


sys.exit(harness.main(*sys.argv[1:]))
