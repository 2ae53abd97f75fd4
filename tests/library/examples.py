#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The examples do what they say, as two processes over a fabric.

    examples.py FABRIC PROGRAM...
"""

import sys

import pair

results = [pair.check(program, sys.argv[1]) for program in sys.argv[2:]]
sys.exit(1 if 1 in results else max(results))
