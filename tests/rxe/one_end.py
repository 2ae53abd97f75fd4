#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""One host with an RDMA device, as one TAP test: the contract, the doctor, whole migrations.

    one_end CONTRACT_RXE VIADUCT FABRIC+FABRIC... [NUMBER OF DEMOS FOR EACH [SEED]]

Inside `scripts/rxe-vm`. Cases are numbered anew; a program that does not get to its end is a
failure.
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REVOKING = ["dereg_refuses", "dereg_spares", "dereg_while_busy", "two_processes_dereg"]


def programs(contract, viaduct, fabrics, *numbers):
    for fabric in fabrics.split("+"):
        yield [contract, fabric]
        if fabric == "verbs":
            yield [contract, "verbs,windows=no", *REVOKING]
    yield [f"{HERE}/doctor.py", viaduct]
    yield [f"{HERE}/migrations.py", viaduct, fabrics, *numbers]


def main(*args):
    number = 0
    print("TAP version 13", flush=True)
    for words in programs(*args):
        plan, before = None, number
        with subprocess.Popen(words, stdout=subprocess.PIPE, encoding="utf-8",
                              errors="replace") as program:
            for line in program.stdout:
                if line.startswith("TAP version"):
                    continue
                if line.startswith("1.."):
                    plan = int(line[3:])
                    continue
                line, is_case = re.subn(r"^((?:not )?ok) \d+", rf"\1 {number + 1}", line)
                number += is_case
                print(line, end="", flush=True)
        if plan != number - before:
            number += 1
            print(f"not ok {number} - all cases of {' '.join(words)}")
    print(f"1..{number}")


main(*sys.argv[1:])
