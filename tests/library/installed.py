#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What is installed is enough: the examples build with pkg-config alone, and run.

    installed.py FABRIC BUILD EXAMPLES

Installs BUILD into a folder of its own, and compiles the EXAMPLES there with the shared library and
with the static one, and the smallest program in C++.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pair

CXX = "#include <viaduct/viaduct.h>\nint main() { return via_now_ns() == 0; }\n"


def install(build, root):
    meson = shutil.which("meson")
    run = subprocess.run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--destdir",
                          root, "--tags", "runtime,devel"], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, encoding="utf-8", check=False)
    if run.returncode:
        sys.exit(f"meson install failed:\n{run.stdout}")


def pkg_config(root, *arguments):
    """What it says, with @root in front of paths; None: as it is on this host."""
    env = dict(os.environ)
    if root:
        env["PKG_CONFIG_PATH"] = ":".join(str(p.parent) for p in root.rglob("libviaduct.pc"))
        env["PKG_CONFIG_SYSROOT_DIR"] = str(root)
    return subprocess.run(["pkg-config", *arguments], env=env, check=True,
                          stdout=subprocess.PIPE, encoding="utf-8").stdout.split()


def compile_all(root, examples):
    """The programs, by how they are linked."""
    flags = ["-Wall", "-Wextra", "-Werror", *pkg_config(root, "--cflags", "libviaduct")]
    shared = pkg_config(root, "--libs", "libviaduct")
    static = ["-l:libviaduct.a" if lib == "-lviaduct" else lib for lib in shared]
    needed = pkg_config(root, "--print-requires-private", "libviaduct")
    static += pkg_config(None, "--libs", *needed)
    programs = []
    for source in sorted(examples.glob("*.c")):
        for kind, libs in (("shared", shared), ("static", static)):
            program = root / f"{source.stem}-{kind}"
            subprocess.run(["cc", *flags, source, "-o", program, *libs, "-pthread"], check=True)
            programs.append(program)
    if shutil.which("c++"):
        subprocess.run(["c++", *flags, "-x", "c++", "-", "-o", root / "cxx", *shared], input=CXX,
                       encoding="utf-8", check=True)
        programs.append(root / "cxx")
    return programs


def main():
    fabric, build, examples = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        install(build, root)
        library = next(root.rglob("libviaduct.so.0")).parent
        env = dict(os.environ, LD_LIBRARY_PATH=str(library))
        results = []
        for program in compile_all(root, examples):
            if program.name == "cxx":
                results.append(subprocess.run([program], env=env, check=False).returncode)
            else:
                results.append(pair.check(program, fabric, env))
    sys.exit(1 if any(r not in (0, 77) for r in results) else max(results))


main()
