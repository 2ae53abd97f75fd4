#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Traces of real migrations against the model of one (spec.py): what it forbids is refused.

    trace.py FILE...              check traces that tests/model/record has written
    trace.py --mutate FILE...     and count how many that were changed are refused
    trace.py --tests RECORD       both, for a set of migrations: TAP

A trace has what each side's probes told (core/probe.h), in that side's own order. What the two sides
did is put in order by their messages alone: a receive waits for its send, in the order of its
channel. Of all the orders that are left two are tried, in which one side or the other is as far ahead
as it can be: whatever must not happen before it is known must not happen in either.
"""

import collections
import concurrent.futures
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile

from spec import (COMING, MULTIFD, RESUMED, RUNS, SET_UP, STAGING, STOPPED, Refused, check, kind, read)

# -- wrong traces ----------------------------------------------------------------------------------

# Neighbours on one channel of which either may be first: two directions of it, and pages of one batch.
COMMUTE = {frozenset(p) for p in (("send", "receive"), ("push",), ("written", "send"),
                                  ("written", "receive"), ("written", "push"),
                                  ("request", "receive"), ("answer", "receive"),
                                  ("written", "request"), ("written", "answer"),
                                  ("request", "answer"), ("request", "send"),
                                  ("channel", "receive"), ("channel", "written"),
                                  ("fence", "written"))}


# The part of events that may be missing: faults of a second vCPU on a page, channels that carried
# nothing, and what came last before a session was lost or a side failed.
LAST_WORDS = 0.06


def same_order(a, b):
    """Is either order of @a and @b, neighbours on a channel, one that can be?"""
    return (frozenset((a.name, b.name)) in COMMUTE or
            # In precopy what is sent between the writes is about other pages.
            {a.name, b.name} == {"write", "send"} and
            (a if a.name == "write" else b).b >> 48 != STAGING)


def mutants(events):
    """(what, name of the event, changed events) for each event, of each side."""
    for side in "SD":
        mine = events[side]
        last = {}
        for i, event in enumerate(mine):
            yield "dropped", event.name, {**events, side: mine[:i] + mine[i + 1:]}
            # More than one vCPU may wait for a page.
            if event.name != "fault":
                yield "doubled", event.name, {**events, side: mine[:i + 1] + mine[i:]}
            before = last.get(event.channel)
            last[event.channel] = i
            if event.channel and before is not None and not same_order(mine[before], event):
                moved = mine[:before] + [event] + mine[before:i] + mine[i + 1:]
                yield "early", f"{event.name} before {mine[before].name}", {**events, side: moved}


def mutate(trace, limit, seed):
    """How many of each kind were tried and refused, and what was not."""
    types, events, ends = trace
    every = list(mutants(events))
    random.Random(seed).shuffle(every)
    tried, refused, passed = collections.Counter(), collections.Counter(), collections.Counter()
    for what, name, changed in every[:limit]:
        tried[what] += 1
        try:
            check((types, changed, ends))
            passed[what, name] += 1
        except Refused:
            refused[what] += 1
    return tried, refused, passed


def find(events, **want):
    for i, event in enumerate(events):
        if all(getattr(event, k) == v for k, v in want.items()):
            return i
    raise LookupError(f"no event {want}")


def move(events, side, i, to):
    mine = list(events[side])
    event = mine.pop(i)
    mine.insert(to, event)
    return {**events, side: mine}


def insert(events, side, at, *more):
    mine = list(events[side])
    mine[at:at] = more
    return {**events, side: mine}


def of_type(types, name):
    return next(number for number, known in types.items() if known == name)


def write_after(events, name):
    """One more write, right behind the first event @name that has some before it, on its channel."""
    mine = events["S"]
    for i, event in enumerate(mine):
        before = [e for e in mine[:i] if e.name == "write" and kind(e.channel) == MULTIFD
                  and (kind(event.channel) != MULTIFD or e.channel == event.channel)]
        if event.name == name and before:
            return insert(events, "S", i + 1, before[-1]._replace(a=before[-1].a + 1))
    raise LookupError(f"no {name} behind a write")


def answers(event):
    """With a page, and not with the word that it is on its way."""
    return event.name == "answer" and event.c != COMING


def tells_all(events):
    """Precopy; or postcopy with both kinds of pages, which is a matter of who is quick."""
    if not any(e.name == "install" for e in events["D"]):
        return True
    return any(e.name == "push" for e in events["S"]) and any(map(answers, events["S"]))


def forbidden(types, events):
    """(what it is, the words of which one is to come, the changed events)"""
    s, d = events["S"], events["D"]
    sealed_s, sealed_d = find(s, name="sealed"), find(d, name="sealed")
    runs = find(d, name="guest", a=RUNS)
    stopped = find(s, name="guest", a=STOPPED)
    drained = find(d, name="drained")
    fence = max(i for i, e in enumerate(d[:drained]) if e.name == "fence")
    run = find(s, name="send", a=of_type(types, "RUN"))
    yield "a write after SEALED", "behind the seal", write_after(events, "sealed")
    yield ("a write after its fence", "behind its fence|again without",
           write_after(events, "fence"))
    yield "drained before the last fence", "without all fences", move(events, "D", drained, fence)
    yield ("it runs before the seal", "it runs without RUN|old epoch",
           move(events, "D", runs, sealed_d))
    yield ("RUN before SEALED", "before the seal|not the next", move(events, "S", run, sealed_s))
    yield ("the guest is never stopped", "guest runs|guest stands|while the guest",
           {**events, "S": s[:stopped] + s[stopped + 1:]})
    yield ("the source runs again", "when it may run there",
           insert(events, "S", len(s) - 1, s[stopped]._replace(a=RESUMED)))
    yield ("it runs twice", "runs twice", insert(events, "D", runs + 1, d[runs]))
    yield ("SEALED before the keys are gone", "before the keys",
           move(events, "D", sealed_d, find(d, name="send", a=of_type(types, "SEALED"))))
    yield ("a fence that counts one write less", "counts other writes", {**events, "S": [
        e._replace(b=e.b - 1) if i == find(s, name="fence") else e for i, e in enumerate(s)]})
    if not any(e.name == "install" for e in d):
        return
    install, request = find(d, name="install"), find(d, name="request")
    push = find(s, name="push")
    answer = next(i for i, e in enumerate(s) if answers(e))
    yield "a page is installed twice", "installed twice", insert(events, "D", install + 1, d[install])
    yield ("a page is installed before it came", "has not come",
           move(events, "D", install, request + 1))
    yield ("a page is pushed that was answered", "sent twice|that is there|nobody lacks|has not come",
           {**events, "S": [e._replace(a=s[answer].a) if i == push else e
                            for i, e in enumerate(s)]})
    yield ("COMPLETE with a page lacking", "lacks pages|that was not lacking|has not come|lacking",
           {**events, "D": [e for i, e in enumerate(d)
                            if i != max(n for n, x in enumerate(d) if x.name == "install")]})
    yield ("pages are discarded before the seal", "before the seal|old epoch",
           move(events, "D", find(d, name="discard"), sealed_d))


# -- all of it ---------------------------------------------------------------------------------------

FABRICS = ["sim:pair", "ofi:tcp", "ucx:tcp"]
RUNS_OF = ["precopy", "postcopy", "recovery", "early", "save", "load", "cancel"]
# Links that break by themselves, somewhere.
CUT = "fault+sim:pair,seed=7,delay=9,split=3,fault-after=400,fault-times=2,fault-seed="


def record(program, scenario, fabric, seed):
    """The trace, or None where there is no such fabric."""
    with tempfile.NamedTemporaryFile("w+", prefix="viaduct-trace-", encoding="utf-8") as file:
        run = subprocess.run([program, scenario, fabric, str(seed)], stdout=file,
                             stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
                             timeout=60, check=False)
        if re.search("no such fabric|not built|no fabric called|is not in this build", run.stderr):
            return None
        if run.returncode:
            raise Refused(f"status {run.returncode}: {run.stderr}")
        trace = read(file.name)
        if os.environ.get("VIA_TRACE_KEEP"):
            name = re.sub(r"\W+", "-", f"{scenario}-{fabric}-{seed}")
            with open(os.path.join(os.environ["VIA_TRACE_KEEP"], name), "w",
                      encoding="utf-8") as copy:
                file.seek(0)
                copy.write(file.read())
        return trace


def cases(program):
    """(name, function that returns what to say of it)"""
    def good(scenario, fabric, seeds):
        def run():
            total, ended = 0, collections.Counter()
            for seed in seeds:
                spec = f"{fabric}{seed}" if fabric.endswith("=") else fabric
                trace = record(program, scenario, spec, seed)
                if trace is None:
                    return "SKIP"
                try:
                    check(trace)
                except Refused as why:
                    raise Refused(f"seed {seed}: {why}") from None
                total += sum(map(len, trace[1].values()))
                ended[trace[2]["S"][0]] += 1
                ended["resumed"] += sum(e.name == "session" and e.a == SET_UP and e.b > 1
                                        for e in trace[1]["S"])
            return f"{total} events; " + ", ".join(f"{n} {k}" for k, n in ended.items() if n)
        return run

    for fabric, scenario in itertools.product(FABRICS, RUNS_OF):
        yield (f"{scenario} over {fabric}",
               good(scenario, fabric, range(3 if fabric.startswith("sim") else 2)))
    yield "postcopy over links that break", good("postcopy", CUT, range(16))

    def rules(scenario):
        def run():
            types, events, ends = next(
                trace for trace in (record(program, scenario, "sim:pair", seed)
                                    for seed in range(1, 50)) if tells_all(trace[1]))
            names = []
            for name, words, changed in forbidden(types, events):
                try:
                    check((types, changed, ends))
                except Refused as why:
                    if not re.search(words, str(why)):
                        raise Refused(f"{name}: refused for another reason: {why}") from None
                else:
                    raise Refused(f"{name}: not refused")
                names.append(name)
            return f"{len(names)} refused: " + "; ".join(names)
        return run

    def changed(scenario):
        def run():
            tried, refused, passed = mutate(record(program, scenario, "sim:pair", 1), 500, 1)
            words = ", ".join(f"{refused[k]} of {n} {k}" for k, n in sorted(tried.items()))
            for what, n in tried.items():
                most = n * LAST_WORDS if what == "dropped" else 0
                if n - refused[what] > most:
                    raise Refused(f"{words}; not refused: {dict(passed)}")
            return "refused: " + words
        return run

    for scenario in ("precopy", "postcopy", "recovery"):
        yield f"what {scenario} must not do is refused", rules(scenario)
    for scenario in ("precopy", "postcopy", "recovery", "save"):
        yield f"a trace of {scenario} that was changed is refused", changed(scenario)


def run_tests(program):
    todo = list(cases(program))
    failed = False
    print(f"TAP version 13\n1..{len(todo)}")
    pool = concurrent.futures.ThreadPoolExecutor(2)
    jobs = [pool.submit(function) for _, function in todo]
    for number, ((name, _), job) in enumerate(zip(todo, jobs), 1):
        try:
            words = job.result()
            if words == "SKIP":
                print(f"ok {number} - {name} # SKIP no such fabric in this build", flush=True)
                continue
            print(f"# {words}\nok {number} - {name}", flush=True)
        except (Refused, LookupError, subprocess.TimeoutExpired) as wrong:
            failed = True
            print("\n".join(f"# {line}" for line in str(wrong).split("\n")))
            print(f"not ok {number} - {name}", flush=True)
    return 1 if failed else 0


def main():
    args = sys.argv[1:]
    if args[:1] == ["--tests"]:
        return run_tests(args[1])
    mutated = args[:1] == ["--mutate"]
    status = 0
    for path in args[mutated:]:
        trace = read(path)
        try:
            check(trace)
            print(f"{path}: right")
        except Refused as why:
            print(f"{path}: {why}")
            status = 1
            continue
        if mutated:
            tried, refused, passed = mutate(trace, None, 0)
            print(f"  changed and refused: "
                  f"{', '.join(f'{refused[k]} of {n} {k}' for k, n in sorted(tried.items()))}")
            for (what, name), n in sorted(passed.items()):
                print(f"  not refused: {n} {what} {name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
