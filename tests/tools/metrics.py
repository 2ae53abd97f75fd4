#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The figures that a program shows while it works: the page of --metrics-listen and --stats-file.

    metrics.py VIADUCT [NAME]
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import harness
from harness import Deadline, Run, Skip, check, equal, receive, send, test

SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([-+.\w]+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)')
SUFFIXES = {"counter": ["_total"], "gauge": [""], "info": ["_info"], "stateset": [""],
            "histogram": ["_bucket", "_count", "_sum"]}


def page_of(run):
    """The port of its page."""
    match = run.says(r"metrics at http://[\d.]+:(\d+)/metrics\n|without libmicrohttpd")
    if not match.group(1):
        raise Skip("this build has no page: install libmicrohttpd-dev")
    return int(match.group(1))


def ask(port, method="GET", path="/metrics"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type"), answer.read().decode("utf-8")


def parse(text):
    """The page by the rules of OpenMetrics 1.0: {(sample, labels): value} and {family: type}."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""], lines[-3:]
    families, samples, family, units = {}, {}, None, {}
    for line in lines[:-2]:
        word = line.split(" ", 3)
        if line.startswith("# TYPE "):
            family = word[2]
            assert family not in families, f"{family} twice"
            families[family] = word[3]
        elif line.startswith("# UNIT "):
            assert word[2] == family and family.endswith("_" + word[3]), line
            units[family] = word[3]
        elif line.startswith("# HELP "):
            assert word[2] == family and word[3].endswith("."), line
        else:
            name, labels, value = SAMPLE.match(line).groups()
            pairs = LABEL.findall(labels or "")
            assert "".join(f'{k}="{v}",' for k, v in pairs).rstrip(",") == (labels or ""), line
            assert name in [family + s for s in SUFFIXES[families[family]]], line
            assert (name, tuple(pairs)) not in samples, f"{line} twice"
            samples[name, tuple(pairs)] = float(value)
    for name in families:
        for unit in ("_seconds", "_bytes"):
            assert not name.endswith(unit) or units.get(name) == unit[1:], f"{name}: no unit"
    check_hists(families, samples)
    return families, samples


def check_hists(families, samples):
    for name in (n for n, kind in families.items() if kind == "histogram"):
        buckets = [(float(dict(labels)["le"]), value) for (sample, labels), value
                   in samples.items() if sample == name + "_bucket"]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf"), buckets
        values = [value for _, value in buckets]
        assert values == sorted(values) and values[-1] == samples[name + "_count", ()], name


def by_library(text):
    """What another implementation makes of it, where there is one."""
    script = ("import sys; from prometheus_client.openmetrics.parser import "
              "text_string_to_metric_families as p; print(len(list(p(sys.stdin.read()))))")
    run = subprocess.run(["/usr/bin/python3", "-c", script], input=text, encoding="utf-8",
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if "No module named" in run.stderr:
        return None
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def watch(port, until, looks):
    """Look again and again until @until(samples), or the program is gone."""
    deadline = Deadline(40)
    while deadline.left():
        try:
            status, form, text = ask(port)
        except (OSError, http.client.HTTPException):
            return
        equal(status, 200, "the status")
        check(form.startswith("application/openmetrics-text; version=1.0.0"), form)
        looks.append((text, parse(text)))
        if until(looks[-1][1][1]):
            return


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def check_rising(looks):
    """No counter falls, and no histogram."""
    before = {}
    for _, (families, samples) in looks:
        for (name, labels), value in samples.items():
            family = re.sub(r"_(total|bucket|count|sum)$", "", name)
            if families.get(family) not in ("counter", "histogram"):
                continue
            assert value >= before.get((name, labels), 0), f"{name} {labels} falls"
            before[name, labels] = value


@test("both sides of postcopy: page and file while pages are asked for")
def _():
    files = [os.path.join(harness.case.folder(), name) for name in ("to", "from")]
    to, address = receive("--metrics-listen", "0", "--stats-file", files[0])
    source = send(address, "--fabric", "ofi:tcp", "--postcopy", "--max-postcopy-bandwidth", "16M/s",
                  "--metrics-listen", "127.0.0.1:0", "--stats-file", files[1], memory="64M")
    looks = {to: [], source: []}
    threads = [threading.Thread(target=watch, args=(page_of(run), lambda s: False, looks[run]))
               for run in (to, source)]
    for thread in threads:
        thread.start()
    source.ends(0)
    to.ends(0)
    for thread in threads:
        thread.join()
    lines = {to: lines_of(files[0]), source: lines_of(files[1])}
    for run, side in ((to, "destination"), (source, "source")):
        check_rising(looks[run])
        text, (families, samples) = max(looks[run], key=lambda look: len(look[0]))
        equal(samples["viaduct_side_info", (("role", side),)], 1, "the side")
        check(by_library(text) in (None, len(families)), "another parser finds other metrics")
        check_last(lines[run][-1], families)
    sent, came = lines[source][-1], lines[to][-1]
    check(came["viaduct_page_faults"] >= came["viaduct_page_requests"] > 0, "there are no faults")
    # The last page may come in bulk before its request is read.
    check(sent["viaduct_page_requests"] <= came["viaduct_page_requests"], "requests came twice")
    check(0 < came["viaduct_page_request_seconds"]["count"] <= came["viaduct_page_requests"],
          "answers without requests")
    equal(sent["viaduct_bulk_pages"], came["viaduct_bulk_pages"], "pages in bulk")
    check_channels(sent, came)
    check_steps(sent, came)


def check_last(line, families):
    equal(line["viaduct_phase"], "done", "the phase")
    equal(line["viaduct_fence"], "run", "the fence")
    equal(line["viaduct_outcome"], "completed", "the outcome")
    equal(line["viaduct_remaining_bytes"], 0, "what remains")
    equal(set(line) - {"time"} - set(families), set(), "what the file has and the page has not")


def by_channel(line, name, **more):
    return {(v["channel"], v["index"]): v["value"] for v in line[name]
            if all(v[k] == wanted for k, wanted in more.items())}


def check_channels(sent, came):
    """What one side has sent the other has received, channel by channel."""
    for name in ("viaduct_channel_writes", "viaduct_channel_write_bytes"):
        ours, theirs = by_channel(sent, name), by_channel(came, name)
        multifd = [c for c in ours if c[0] == "multifd"]
        equal({c: ours[c] for c in multifd}, {c: theirs[c] for c in multifd}, name)
        equal(len(multifd), 2, "multifd channels")
    equal(sum(by_channel(sent, "viaduct_channel_write_bytes").values()), sent["viaduct_sent_bytes"],
          "the sum of all channels")
    for name in ("viaduct_channel_messages", "viaduct_channel_message_bytes"):
        ours = by_channel(sent, name, direction="sent")
        theirs = by_channel(came, name, direction="received")
        for channel in ours:
            if channel[0] == "multifd":
                equal(theirs[channel], ours[channel], f"{name} of {channel}")


def check_steps(sent, came):
    steps = {s["step"]: s["value"] for s in sent["viaduct_step_seconds"]}
    order = [steps[name] for name in ("drained", "paused", "sealed", "state", "armed", "run")]
    equal(order, sorted(order), "the order of steps")
    equal({s["step"] for s in came["viaduct_step_seconds"]},
          {"drained", "sealed", "armed", "state", "run"}, "the destination's steps")


@test("a guest that does not converge: what is expected, and a line each second")
def _():
    file = os.path.join(harness.case.folder(), "lines")
    demo = Run("demo", "--memory", "64M", "--dirty-rate", "unlimited", "--max-rounds", "4",
               "--max-bandwidth", "40M/s", "--metrics-listen", ":0", "--stats-file", file)
    looks = []
    watch(page_of(demo),
          lambda s: s.get(("viaduct_expected_total_seconds", ())) == float("inf"), looks)
    demo.ends(0)
    lines = lines_of(file)
    equal(looks[-1][1][1].get(("viaduct_expected_total_seconds", ())), float("inf"), "what is expected")
    check(any(line.get("viaduct_expected_total_seconds", 0) is None for line in lines),
          "the file has no null")
    times = [line["time"] for line in lines]
    equal(times, sorted(times), "the order of lines")
    check(len(lines) >= (times[-1] - times[0]) // 2, f"{len(lines)} lines in all")
    check({"precopy", "done"} <= {line.get("viaduct_phase") for line in lines}, "phases are missing")
    equal(lines[-1]["viaduct_rounds"], 5, "the number of rounds")
    equal(lines[-1]["viaduct_epochs_drained"], 5, "the number of drains")


@test("a migration that fails: the last line says how it has ended")
def _():
    file = os.path.join(harness.case.folder(), "lines")
    send(harness.closed_port(), "--stats-file", file).ends(1)
    equal(lines_of(file)[-1]["viaduct_outcome"], "aborted", "the outcome")


@test("one page is served, and nothing else")
def _():
    run, _ = receive("--metrics-listen", "0")
    port = page_of(run)
    equal(ask(port, path="/")[0], 404, "the status of /")
    equal(ask(port, path="/../etc/passwd")[0], 404, "the status of another path")
    equal(ask(port, method="POST")[0], 405, "the status of POST")
    status, form, text = ask(port, method="HEAD")
    check(status == 200 and not text and "openmetrics" in form, "HEAD is not answered")
    families, _ = parse(ask(port)[2])
    equal(set(families), {"viaduct_build", "process_cpu_seconds", "viaduct_session"}, "the page")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as rude:
        try:
            rude.sendall(b"GET /" + b"x" * 100000)
            check(b" 200 " not in rude.recv(4096).split(b"\r\n")[0], "a long path is served")
        except ConnectionError:
            pass
    equal(ask(port)[0], 200, "the status after that")
    run.kill(signal.SIGTERM)
    run.ends(1)


@test("who connects and says nothing holds nobody up")
def _():
    demo = Run("demo", "--memory", "64M", "--metrics-listen", "0", "--json")
    port = page_of(demo)
    mute = []
    for _ in range(20):
        try:
            mute.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        except OSError:
            break
    equal(demo.ends(0).json()["result"], "completed", "the result")
    for connection in mute:
        connection.close()


@test("a relay has figures of its own")
def _():
    folder = harness.case.folder()
    relay = Run("relay", "--role", "destination", "--listen", "127.0.0.1:0", "--qemu",
                f"unix:{folder}/qemu", "--metrics-listen", "0", "--stats-file", f"{folder}/lines",
                "--keep")
    families, samples = parse(ask(page_of(relay))[2])
    equal(samples["viaduct_relay_carries", ()], 0, "whether it carries something")
    equal(samples["viaduct_relay_migrations_total", (("outcome", "broken"),)], 0, "migrations")
    equal(families["viaduct_relay_forward_bytes"], "counter", "the type")
    check("viaduct_phase" not in families, "it has a phase")
    relay.says("listening on")
    relay.kill(signal.SIGTERM)
    relay.wait()
    equal(lines_of(f"{folder}/lines")[-1]["viaduct_relay_packets"], 0, "packets in the file")


@test("a relay counts what it carries, also once that is over")
def _():
    folder = harness.case.folder()
    qemu = socket.socket(socket.AF_UNIX)
    qemu.bind(f"{folder}/qemu")
    qemu.listen()
    qemu.settimeout(30)
    to = Run("relay", "--role", "destination", "--listen", "127.0.0.1:0", "--qemu",
             f"unix:{folder}/qemu", "--metrics-listen", "0", "--keep")
    source = Run("relay", "--role", "source", "--listen", f"unix:{folder}/out", "--peer",
                 to.says(r"listening on (\S+)\n").group(1), "--metrics-listen", "0", "--keep",
                 "--fabric", "ofi:tcp")
    source.says("listening on")
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(f"{folder}/out")
        sender = threading.Thread(target=ours.sendall, args=(bytes(1 << 20),), daemon=True)
        sender.start() # nobody holds as much as that back
        with qemu.accept()[0] as theirs:
            theirs.settimeout(30)
            left = 1 << 20
            while left:
                left -= len(theirs.recv(left))
            sender.join(30)
            for run in (to, source): # counted once the write has returned
                looks = []
                watch(page_of(run),
                      lambda s: s["viaduct_relay_forward_bytes_total", ()] == 1 << 20, looks)
                check_rising(looks)
                samples = looks[-1][1][1]
                equal(samples["viaduct_relay_carries", ()], 1, "whether it carries something")
                equal(samples["viaduct_relay_forward_bytes_total", ()], 1 << 20, "bytes carried")
                equal(samples["viaduct_relay_connections", ()], 1, "connections")
    for run in (to, source):
        run.out.wait("^relay (ended|broken|completed)", 30)
        _, samples = parse(ask(page_of(run))[2])
        equal(samples["viaduct_relay_carries", ()], 0, "whether it carries something after it")
        equal(samples["viaduct_relay_forward_bytes_total", ()], 1 << 20, "bytes carried after it")
        equal(sum(v for (name, _), v in samples.items() if name == "viaduct_relay_migrations_total"),
              1, "migrations")
    qemu.close()


@test("what cannot be had is said")
def _():
    for options, words in ((["--metrics-listen", "192.0.2.1:1"], "192.0.2.1|libmicrohttpd"),
                           (["--stats-file", "/no/such/folder/file"], "/no/such/folder/file")):
        run = Run("receive", "--listen", "127.0.0.1:0", *options).ends(1)
        what, _ = run.error()
        check(re.search(words, what), what)


sys.exit(harness.main(*sys.argv[1:]))
