#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Demos of random sizes, loads and settings: each must complete with every page right.

    random_demos.py VIADUCT [NUMBER [SEED]]

A case is called by its command line: run it again by hand. With the same seed the same
demos are made; without one it is chosen, and printed.
"""

import random
import sys

import harness
from harness import Run, check, equal

PAGE = 4096
MIB = 1 << 20
LARGEST = 2048 * MIB if not harness.SLOW else 256 * MIB
BIG = 128 * MIB if not harness.SLOW else 16 * MIB


def memory(chosen):
    """Mostly small, in every order of magnitude from one page; some as large as there is."""
    kind = chosen.random()
    if kind < 0.05:
        return LARGEST
    most = LARGEST if kind < 0.15 else BIG if kind < 0.4 else 16 * MIB
    return max(1, int((most // PAGE) ** chosen.random())) * PAGE


def postcopy(chosen, size):
    """When to switch, if ever, and what is to happen then."""
    args = {"preempt": chosen.choice([1, 1, 2, 2, 3, 8])}
    kind = chosen.random()
    if kind < 0.5:
        args["postcopy-after"] = chosen.choice([1, 1, 1, 2, 5])
    elif kind < 0.7:
        args["postcopy-when-stuck"] = chosen.randint(1, 3)
    if chosen.random() < 0.7:
        args["downtime-limit"] = "1us"  # else precopy is often done first
    if chosen.random() < 0.4:
        args["pull-link"] = chosen.choice([1, 1, 2, 3])
    if size <= 16 * MIB and chosen.random() < 0.5:
        args["max-postcopy-bandwidth"] = f"{chosen.choice([4, 20, 100])}M/s"
    elif "pull-link" in args:
        args["max-postcopy-bandwidth"] = "200M/s"  # not the demo's own: too long for a big guest
    return args


def arguments(chosen):
    size = memory(chosen)
    # A big guest that never rests is stopped after a few rounds: it would only take longer.
    most_rounds = 30 if size <= BIG else 4
    args = {
        "fabric": chosen.choice(["ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm"]),
        "memory": size,
        "vcpus": chosen.randint(0, 8),
        "multifd": chosen.choice([1, 1, 2, 2, 2, 3, 4, 6, 8, chosen.randint(9, 16)]),
        "dirty-rate": chosen.choice(["0", "1M/s", "20M/s", "100M/s", "500M/s", "unlimited"]),
        "downtime-limit": chosen.choice(["1us", "1ms", "20ms", "300ms", "300ms", "5s"]),
        "max-rounds": chosen.randint(1, most_rounds),
        "seed": chosen.getrandbits(63),
    }
    if chosen.random() < 0.5:
        args.update(postcopy(chosen, size))
    if size <= 16 * MIB and chosen.random() < 0.2:
        args["max-bandwidth"] = f"{chosen.choice([20, 50, 200])}M/s"
    return args


def demo(args, seconds=50):
    """Run it and check all of it. Its report."""
    words = [word for key, value in args.items() for word in (f"--{key}", value)]
    report = Run("demo", *words, "--json").ends(0, seconds).json()
    equal(report["result"], "completed", "result")
    equal(report["verify"], {"pages": args["memory"] // PAGE, "missing": 0, "stale": 0, "torn": 0},
          "verify")
    equal(report["multifd_channels"], args["multifd"], "multifd_channels")
    equal(report["fence"]["sealed"], True, "fence.sealed")
    if report["mode"] == "postcopy":
        check("postcopy-after" in args or "postcopy-when-stuck" in args, "nobody asked for postcopy")
        check(report["postcopy"]["recoveries"] <= args.get("pull-link", 0), "it recovered too often")
        return report
    equal(report["fence"]["epochs"], report["rounds"], "fence.epochs")
    check(2 <= report["rounds"] <= args["max-rounds"] + 1, f"{report['rounds']} rounds")
    return report


def main(binary, number=25, seed=None):
    seed = int(seed) if seed is not None else random.SystemRandom().getrandbits(32)
    for i in range(int(number)):
        # By number and seed alone: a case is the same in a longer run.
        args = arguments(random.Random(f"{seed} {i}"))
        harness.add("demo " + " ".join(f"--{k} {v}" for k, v in args.items()),
                    lambda a=args: demo(a))
    return harness.main(binary, note=f"random_demos.py VIADUCT {number} {seed}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
