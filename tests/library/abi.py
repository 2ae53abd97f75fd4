#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""What programs were compiled against is what tests/library/abi.txt says.

    abi.py ROOT DIRECTORY FILE COMPILER HEADER... [--write]

FILE holds each function's prototype, the size and the offsets of each struct, the values of
enumerators and constants. A difference is a change of the ABI: docs/library.md says which of them
may be, and what goes with it. --write writes FILE anew (meson compile -C build-test abi).
"""

import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "library"))
import api  # pylint: disable=wrong-import-position


def plain(code):
    """@code on one line, without comments and what the preprocessor takes."""
    code = re.sub(r"^#.*$", "", api.COMMENT.sub("", code), flags=re.M)
    return re.sub(r" ?__attribute__\(\(.*\)\)(?=;)", "", " ".join(code.split()))


def members(code):
    """Names of the members of a struct, of the enumerators of an enum."""
    body = plain(code).partition("{")[2].rpartition("}")[0]
    if plain(code).startswith("enum"):
        return [part.split("=")[0].strip() for part in body.split(",") if part.strip()]
    found = []
    for declaration in filter(None, (d.strip() for d in body.split(";"))):
        pointer = re.search(r"\(\*(\w+)\)\(", declaration)
        names = [pointer.group(1)] if pointer else [
            re.search(r"(\w+)(\[\w+\])*$", part.strip()).group(1)
            for part in declaration.split(",")]
        found += [name for name in names if name not in found]
    return found


def probe(items):
    """A program that prints a line for each thing that has a number."""
    out = ["#include <stddef.h>", "#include <stdio.h>", "#include <viaduct/viaduct.h>",
           "int main(void)", "{"]
    for item in items:
        if item.kind == "struct":
            out.append(f'printf("struct {item.name} %zu:", sizeof(struct {item.name}));')
            out += [f'printf(" {m} %zu", offsetof(struct {item.name}, {m}));'
                    for m in members(item.code)]
            out.append('printf("\\n");')
        elif item.kind == "enum":
            out += [f'printf("enum {item.name} {m} %d\\n", (int){m});' for m in members(item.code)]
        elif item.kind == "constant" and item.name != "VIA_ERROR_LIST":
            out.append(f'printf("constant {item.name} %llu\\n", (unsigned long long){item.name});')
    return "\n".join(out + ["return 0;", "}"])


def current(root, folder, compiler, headers):
    items = [i for h in api.read(root, headers) for i in h.items]
    lines = [f"{i.kind} {i.name}: {plain(i.code)}" for i in items
             if i.kind in ("function", "typedef")]
    with tempfile.TemporaryDirectory() as here:
        program = pathlib.Path(here) / "probe"
        subprocess.run([compiler, "-I", str(pathlib.Path(folder).resolve().parent), "-x", "c", "-",
                        "-o", program], input=probe(items), encoding="utf-8", check=True)
        lines += subprocess.run([program], stdout=subprocess.PIPE, encoding="utf-8",
                                check=True).stdout.split("\n")
    return sorted(line for line in lines if line)


def main():
    write = sys.argv[-1] == "--write"
    root, folder, file, compiler = sys.argv[1:5]
    now = current(root, folder, compiler, sys.argv[5:len(sys.argv) - write])
    if sys.maxsize < 2 ** 32:
        print("sizes and offsets are those of 64-bit systems")
        sys.exit(77)
    if write:
        pathlib.Path(file).write_text("\n".join(now) + "\n", encoding="utf-8")
        return
    then = pathlib.Path(file).read_text(encoding="utf-8").split("\n")[:-1]
    for line in sorted(set(then) - set(now)):
        print("- " + line)
    for line in sorted(set(now) - set(then)):
        print("+ " + line)
    if now != then:
        print("The ABI has changed. See docs/library.md, then: meson compile -C BUILD abi")
        sys.exit(1)


main()
