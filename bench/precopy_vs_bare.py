#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Precopy of an idle guest beside bare writes of 1 MiB over the same provider, in one run.

    bench/precopy_vs_bare.py BUILD_DIR [REPEATS [MEMORY [MULTIFD]]]

Each repeat runs bare_ofi and `viaduct demo` one after the other, so that noise of the machine
meets both. The rate of precopy is what it wrote divided by its time without set-up
and downtime; the rate of the bare loop is that of fi_write() with both ends spinning and all
memory touched before. Prints both, their ratio for each repeat, and the medians. Figures are
loopback's: they say nothing about a NIC.
"""
import json
import statistics
import subprocess
import sys

FABRICS = [("ofi:tcp", ["tcp;ofi_rxm", "tcp"]), ("ofi:shm", ["shm"])]


def bare(build, providers, mib):
    """GiB/s of the bare loop over the first of @providers that this libfabric has."""
    for provider in providers:
        r = subprocess.run([f"{build}/bench/bare_ofi", provider, str(mib)], capture_output=True,
                           text=True, timeout=120)
        if r.returncode == 0:
            return float(r.stdout.split()[0])
    sys.exit(f"bare_ofi {providers}: {r.stderr.strip()}")


def precopy(build, fabric, mib, multifd):
    """GiB/s of precopy, and the drain with nothing in flight in us."""
    r = subprocess.run([f"{build}/tools/viaduct", "demo", "--fabric", fabric, "--memory", f"{mib}M",
                        "--vcpus", "0", "--dirty-rate", "0", "--multifd", str(multifd), "--json"],
                       capture_output=True, text=True, timeout=120)
    if r.returncode:
        sys.exit(f"viaduct demo --fabric {fabric}: {r.stderr.strip()}")
    d = json.loads(r.stdout)
    seconds = (d["total_ms"] - d["setup_ms"] - d["downtime_ms"]) / 1e3
    return d["bytes_sent"] / 2**30 / seconds, d["fence"]["drain_us"]["p50"]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build = sys.argv[1]
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    mib = int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    multifd = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    for fabric, providers in FABRICS:
        rows = []
        for _ in range(repeats):
            base = bare(build, providers, mib)
            rate, drain = precopy(build, fabric, mib, multifd)
            rows.append((base, rate, rate / base, drain))
            print(f"{fabric:8} bare {base:5.2f} GiB/s, precopy {rate:5.2f} GiB/s, "
                  f"ratio {rate / base:4.2f}, idle drain {drain:.0f} us", flush=True)
        median = [statistics.median(column) for column in zip(*rows)]
        print(f"{fabric:8} median: bare {median[0]:.2f}, precopy {median[1]:.2f}, "
              f"ratio {median[2]:.2f}, idle drain {median[3]:.0f} us")


main()
