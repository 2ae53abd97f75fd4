# SPDX-License-Identifier: BSD-2-Clause
"""Two processes of one example: the one that receives, and the one that sends to it."""

import re
import subprocess

LIMIT_S = 40


def run(program, fabric, env=None):
    """What both print: (destination's status and output, source's)."""
    destination = subprocess.Popen([program, "receive", "127.0.0.1:0", fabric], env=env,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   encoding="utf-8")
    try:
        waiting = destination.stderr.readline()
        address = re.fullmatch(r"waiting at (\S+)\n", waiting)
        if not address:
            return (destination.wait(LIMIT_S), waiting + destination.stderr.read()), (1, "")
        source = subprocess.run([program, "send", address.group(1), fabric], env=env,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                encoding="utf-8", timeout=LIMIT_S, check=False)
        if source.returncode:
            destination.kill() # nobody else comes
        out, err = destination.communicate(timeout=LIMIT_S)
        return (destination.returncode, out + err), (source.returncode, source.stdout)
    finally:
        destination.kill()
        destination.communicate()


def check(program, fabric, env=None):
    """Run them. 0, 1, or 77 where this host forbids what the program needs."""
    (status, out), (source_status, source_out) = run(program, fabric, env)
    print(f"{program}: destination {status}: {out.strip()}; source {source_status}: "
          f"{source_out.strip()}")
    if source_status and re.search(r"userfaultfd|UFFD", source_out):
        return 77
    if status or source_status:
        return 1
    wanted = "the sums are equal" if "channel" in str(program) else f"completed over {fabric}"
    return 0 if wanted in out and wanted in source_out else 1
