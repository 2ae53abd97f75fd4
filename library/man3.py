#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Manual pages of section 3, out of the public headers' comments (api.py).

    man3.py DIRECTORY ROOT VERSION HEADER...

One page for each function and each type, and libviaduct(3), in DIRECTORY, which is made anew. A
type with the name of a function has its page. So what the pages say is what the headers say.
SOURCE_DATE_EPOCH, if set, is their date.
"""

import os
import pathlib
import re
import shutil
import sys
import time

import api

KEEP_LINES = re.compile(r" {2,}")
ELSEWHERE = [("viaduct", 1), ("viaduct-errors", 7), ("viaduct-fabrics", 7)]


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def inline(text):
    """Running text: parameters, names and code in their fonts."""
    text = escape(text)
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", text)
    text = re.sub(r"@(\w+)", r"\\fI\1\\fP", text)
    return re.sub(r"\b(via_\w+)\(\)", r"\\fB\1\\fP()", text)


def sentences(parts):
    """Each sentence begins a line, as roff wants it."""
    return "\n".join(inline(s) for part in parts for s in api.SENTENCE.split(part))


def verbatim(code, font="B"):
    return ".nf\n" + "\n".join(f"\\f{font}{escape(line)}\\fP" if line else ""
                               for line in code.expandtabs(8).split("\n")) + "\n.fi\n"


def running(paragraph):
    """A paragraph of a header's first comment: one that is indented keeps its lines."""
    if KEEP_LINES.match(paragraph[0]):
        return ".PP\n.RS 4\n" + verbatim("\n".join(line[2:] for line in paragraph), "R") + ".RE\n"
    return ".PP\n" + sentences([" ".join(line.strip() for line in paragraph)]) + "\n"


def described(comment):
    """The summary, and what follows it."""
    return "\n.PP\n".join(sentences(p) for p in [[comment.summary], *comment.paragraphs]) + "\n"


def entry(tag, text):
    return f".TP\n{tag}\n{sentences([text])}\n"


def brief(item):
    """The summary as it stands behind the name: no capital, no full stop."""
    text = item.comment.summary if item.comment else ""
    text = text.rstrip(".").replace("@", "")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


class Pages:
    def __init__(self, headers, version):
        self.headers, self.version = headers, version
        self.date = time.strftime("%Y-%m-%d", time.gmtime(
            int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
        self.items = [i for h in headers for i in h.items if i.kind != "constant"]
        self.names = {i.name for i in self.items}
        functions = {i.name for i in self.items if i.kind == "function"}
        self.namesakes = {i.name: i for i in self.items
                          if i.kind != "function" and i.name in functions}
        self.threads = {h.path: h.threads[:1].upper() + h.threads[1:] for h in headers}

    def top(self, name, names, about):
        return (f'.\\" Made by library/man3.py. Change the headers instead.\n'
                f'.TH {name} 3 "{self.date}" "viaduct {self.version}" "libviaduct"\n.nh\n.ad l\n'
                f'.SH NAME\n{", ".join(names)} \\- {escape(about)}\n')

    def see_also(self, item, also=()):
        words = re.findall(r"\bvia_\w+", item.code + " " + (item.comment.text()
                                                            if item.comment else ""))
        found = sorted((set(words) | set(also)) & self.names - {item.name})
        return ".SH SEE ALSO\n" + ",\n".join(
            f"\\fB{name}\\fP(3)" for name in found + ["libviaduct"]) + "\n"

    def function(self, group):
        item, comment = group[0], group[0].comment
        out = self.top(item.name, [i.name for i in group], brief(item))
        out += ".SH SYNOPSIS\n" + verbatim(f"#include <viaduct/{item.header}>")
        out += "".join(".PP\n" + verbatim(self.namesakes[i.name].code)
                       for i in group if i.name in self.namesakes)
        out += "".join(".PP\n" + verbatim(i.code) for i in group)
        out += ".SH DESCRIPTION\n" + described(comment)
        out += ".SH RETURN VALUE\n" + self.returns(item)
        if comment.errors:
            out += ".SH ERRORS\n" + "".join(
                entry("otherwise" if tag == "else" else f"\\fB{escape(tag)}\\fP", text)
                for tag, text in comment.errors)
        out += ".SH THREADS\n" + sentences([self.threads[item.header]]) + "\n"
        return out + self.see_also(item)

    @staticmethod
    def returns(item):
        comment = item.comment
        if item.returns_nothing():
            return "None.\n"
        text = sentences(comment.returns) + "\n" if comment.returns else ""
        if comment.errors:
            text += "Otherwise one" if text else "0, or one"
            text += " of the negated codes below"
            if "struct via_error *err)" in item.code:
                text += ",\nand the first cause in \\fIerr\\fP, which may be NULL"
            text += ".\n"
        return text

    def type(self, item):
        users = [i.name for i in self.items if i is not item and
                 re.search(rf"\b{item.name}\b", i.code)]
        out = self.top(item.name, [item.name], brief(item))
        out += ".SH SYNOPSIS\n" + verbatim(f"#include <viaduct/{item.header}>")
        out += ".PP\n" + verbatim(item.code)
        out += ".SH DESCRIPTION\n" + described(item.comment)
        if item.comment.returns:
            out += ".PP\n" + sentences(item.comment.returns) + "\n"
        out += "".join(entry(f"\\fB{escape(tag)}\\fP", text) for tag, text in item.comment.errors)
        return out + self.see_also(item, users)

    def section(self, header):
        out = f".SS {header.path}\n{inline(header.summary[:1].upper() + header.summary[1:])}\n"
        out += "".join(running(p) for p in header.paragraphs)
        constants = [i for i in header.items if i.kind == "constant"]
        if constants:
            lines = "\n".join(f"#define {i.name}  {re.sub(' +', ' ', i.code)}" for i in constants)
            out += ".PP\n.RS 4\n" + verbatim(lines, "R") + ".RE\n"
        for item in header.items:
            if item.kind != "constant":
                out += entry(f"\\fB{item.name}\\fP(3)", brief(item))
        return out

    def overview(self):
        umbrella = next(h for h in self.headers if h.path == "viaduct.h")
        out = self.top("libviaduct", ["libviaduct"], umbrella.summary.rstrip("."))
        out += ".SH SYNOPSIS\n" + verbatim("#include <viaduct/viaduct.h>")
        out += ".PP\n" + verbatim("cc program.c $(pkg-config --cflags --libs libviaduct)")
        out += ".SH DESCRIPTION\n"
        out += "".join(running(p) for p in umbrella.paragraphs)[len(".PP\n"):]
        out += ".SH HEADERS\n" + "".join(self.section(h) for h in self.headers
                                         if h is not umbrella)
        out += ".SH ERRORS\nThe codes, what is lost with each, and what it means.\n"
        for code, scope, text in api.error_list(self.headers):
            out += entry(f"\\fB\\-{code}\\fP", f"{scope.lower()}: {text}")
        return out + ".SH SEE ALSO\n" + ",\n".join(
            f"\\fB{escape(name)}\\fP({section})" for name, section in ELSEWHERE) + "\n"

    def all(self):
        """(name, text) of every page."""
        yield "libviaduct", self.overview()
        groups = {}
        for item in self.items:
            if item.kind == "function":
                groups.setdefault((item.header, id(item.comment)), []).append(item)
            elif item.name not in self.namesakes:
                yield item.name, self.type(item)
        for group in groups.values():
            yield group[0].name, self.function(group)
            for item in group[1:]:
                yield item.name, f".so man3/{group[0].name}.3\n"


def main():
    out = pathlib.Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pages = Pages(api.read(sys.argv[2], sys.argv[4:]), sys.argv[3])
    for name, text in pages.all():
        (out / f"{name}.3").write_text(text, encoding="utf-8")


main()
