#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What the engine needs beside guest RAM, with 16 multifd channels, on each side.

    memory_test.py VIADUCT

Measured by `viaduct bench migrate`: the highest resident size of each process from before it connects
until the migration is over, less what it was then, and less guest RAM. So it counts the fabric's
library, its buffers and its shared memory, the sessions' threads, and the bitmaps of the engine.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

# pylint: disable=wrong-import-position
import harness
from harness import Run, Skip, check, is_sanitized, test_each

# 64 is what we want. rxm, under ofi:tcp, takes 60 to 74: one more pool of 1024 buffers where a message has to
# wait; libfabric's shm has a region for each endpoint, which ends in 3.8 MiB of zeros. Over ucx:tcp it is 26
# for the most part, and 98 where UCX has bytes of its own copied for sockets that are full.
LIMITS_MIB = [("ofi:tcp", 96), ("ofi:shm", 224), ("ucx:tcp", 128), ("ucx:shm", 64)]


@test_each("16 channels over {} need at most {} MiB", LIMITS_MIB)
def _(fabric, limit):
    if is_sanitized():
        raise Skip("the sanitizers' own memory cannot be told apart")
    row, = Run("bench", "migrate", "--fabric", fabric, "--only", "mib=256,channels=16", "--repeat",
               "3", "--json").ends(0).json()["rows"]
    for end in ("near", "far"):
        used = row["extra"][f"{end}_memory_mib"]
        check(used <= limit, f"the {end} end needs {used:.1f} MiB")


sys.exit(harness.main(*sys.argv[1:]))
