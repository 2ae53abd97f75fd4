#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""libviaduct exports the functions of its headers, by their version, and nothing else.

    symbols.py ROOT MAP SHARED STATIC HEADER...

MAP is the version script. What it lists, what the headers declare, what the shared library exports
and what is global in the static one has to be the same.
"""

import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "library"))
import api  # pylint: disable=wrong-import-position

NODE = re.compile(r"^(VIADUCT_[\d.]+) \{\nglobal:\n((?:\t\w+;\n)+)(local:\n\t\*;\n)?\}", re.M)


def listed(version_map):
    """{name: version} of the version script; and whether all else is local."""
    found, closed = {}, False
    for node in NODE.finditer(pathlib.Path(version_map).read_text(encoding="utf-8")):
        found.update({name: node.group(1) for name in re.findall(r"\w+", node.group(2))})
        closed = closed or bool(node.group(3))
    return found, closed


def defined(*arguments):
    """{name: type} of the symbols that nm shows as defined."""
    out = subprocess.run(["nm", "--defined-only", *arguments], stdout=subprocess.PIPE,
                         encoding="utf-8", check=True).stdout
    return {m.group(2): m.group(1) for m in re.finditer(r"^[0-9a-f]+ (\w) (\S+)$", out, re.M)}


def exported(shared):
    """{name: version}; a version's own symbol is no name."""
    found = {}
    for symbol, kind in defined("-D", shared).items():
        name, _, version = symbol.partition("@@")
        if kind != "A":
            found[name] = version or "no version"
    return found


def compare(what, found, wanted):
    return ([f"{what} lacks {name}" for name in sorted(set(wanted) - set(found))] +
            [f"{what} has {name}, which library/viaduct.map does not list"
             for name in sorted(set(found) - set(wanted))])


def main():
    root, version_map, shared, static = sys.argv[1:5]
    wanted, closed = listed(version_map)
    problems = [] if wanted and closed else ["library/viaduct.map: no list, or not closed"]
    declared = [i.name for h in api.read(root, sys.argv[5:]) for i in h.items
                if i.kind == "function"]
    problems += compare("the public headers", declared, wanted)
    problems += compare("the static library", defined("-g", static), wanted)
    found = exported(shared)
    problems += compare("the shared library", found, wanted)
    problems += [f"{name}: version {version}, not {wanted[name]}"
                 for name, version in found.items() if wanted.get(name, version) != version]
    dynamic = subprocess.run(["readelf", "-d", shared], stdout=subprocess.PIPE, encoding="utf-8",
                             check=True).stdout
    if "Library soname: [libviaduct.so.0]" not in dynamic:
        problems.append("the shared library's soname is not libviaduct.so.0")
    for problem in problems:
        print(problem)
    print(f"{len(wanted)} functions")
    sys.exit(1 if problems else 0)


main()
