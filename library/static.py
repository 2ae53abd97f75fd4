#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""libviaduct.a: one object in which the public names alone are global.

    static.py OUTPUT MAP OBJCOPY AR COMPILER... -- LIBRARY...

A static library shows all names of its objects to who links with it, and ours are short:
session_new, channel_send. So the objects are linked into one, and every name that MAP, the version
script of the shared library, does not export becomes local to it.
"""

import os
import re
import subprocess
import sys
import tempfile


def main():
    output, version_map, objcopy, ar = sys.argv[1:5]
    split = sys.argv.index("--")
    compiler, libraries = sys.argv[5:split], sys.argv[split + 1:]
    with open(version_map, encoding="utf-8") as f:
        names = re.findall(r"^\t(via_\w+);$", f.read(), re.M)
    with tempfile.TemporaryDirectory() as folder:
        merged, keep = os.path.join(folder, "viaduct.o"), os.path.join(folder, "names")
        with open(keep, "w", encoding="utf-8") as f:
            f.write("\n".join(names) + "\n")
        subprocess.run([*compiler, "-r", "-nostdlib", "-o", merged, "-Wl,--whole-archive",
                        *libraries, "-Wl,--no-whole-archive"], check=True)
        subprocess.run([objcopy, "--keep-global-symbols=" + keep, merged], check=True)
        if os.path.exists(output):
            os.remove(output)
        subprocess.run([ar, "rcs", output, merged], check=True)


main()
