#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""Make the source of a manual page, in scdoc(5), of its template and of what the program says.

    fill.py VIADUCT VERSION options.txt PAGE.SECTION.scd

Names, synopses, options, error codes and fabrics' keys come from the program: a page cannot list
an option that it does not have, nor leave one out. options.txt has more about some options than
their line of help. In a template these stand alone on a line:

    @options@     the options of the page's command, and what stands behind them in its help
    @commands@    the commands, with the pages that they have
    @errors@      `viaduct help errors`
    @keys@        the keys of `viaduct help fabrics`

A page that is no command's begins with a line for NAME.
"""

import pathlib
import re
import subprocess
import sys

OPTION = re.compile(r"^  --([\w-]+)(?: (\S+))?(?: +(.*))?$")
PLACE = re.compile(r"(?<![\w-])([A-Z]{2,}|[A-Z](?=[\s|\]]|$))(?![\w-])")


def escape(text):
    return re.sub(r"([\\*_])", r"\\\1", text)


def prose(text):
    """A text of the program's: `code` is bold, the rest as it is."""
    parts = text.split("`")
    text = "".join(f"*{escape(part)}*" if i % 2 else escape(part) for i, part in enumerate(parts))
    return re.sub(r"^(?=[-.#|\[\]])", r"\\", text, flags=re.M)  # what would begin a list or table


def usage(text):
    """A line of usage: options and words bold, places for values underlined."""
    text = escape(text)
    text = re.sub(r"(?<![\w-])(--[\w-]+|viaduct(?: [a-z-]+)*)", r"*\1*", text)
    return PLACE.sub(r"_\1_", text)


class Help:
    """`viaduct COMMAND --help`, taken apart."""

    def __init__(self, viaduct, command):
        text = subprocess.run([viaduct, command, "--help"], stdout=subprocess.PIPE, check=True,
                              encoding="utf-8").stdout
        head, self.summary, rest = text.split("\n\n", 2)
        self.usage = [line[7:] for line in head.split("\n")]
        self.options = []  # (name, value, help)
        rest = rest.rstrip("\n").split("\n")
        while rest and rest[0]:
            line = rest.pop(0)
            match = OPTION.match(line)
            if match:
                self.options.append([match[1], match[2] or "", match[3] or ""])
            elif line.startswith(" " * 8) and self.options:
                self.options[-1][2] = f"{self.options[-1][2]} {line.strip()}".strip()
            else:
                sys.exit(f"viaduct {command} --help: cannot read this line: {line}")
        self.more = "\n".join(rest).strip("\n")


def read_details(path):
    """{(option, command or None): lines} of options.txt."""
    details, lines = {}, None
    for line in pathlib.Path(path).read_text(encoding="utf-8").split("\n"):
        match = re.match(r"--([\w-]+)(?: \((.*)\))?$", line)
        if match:
            lines = []
            for command in (match[2] or "").split(", "):
                details[match[1], command or None] = lines
        elif lines is not None and not line.startswith("#"):
            lines.append(line)
    return details


def sentence(text):
    text = prose(text[:1].upper() + text[1:])
    return text if text.endswith(".") else text + "."


def options(command, text, details):
    for name, value, line in text.options:
        yield f"*--{name}*" + (f" _{escape(value)}_" if value else "")
        yield "\t" + sentence(line)
        more = details.get((name, command), details.get((name, None), []))
        yield from ["\t" + one if one else "" for one in ["", *more]]
        yield ""
    if re.search(r"^ ", text.more, re.M):
        yield from ["```", text.more.replace("\\", "\\\\"), "```"]
    else:
        yield prose(text.more)


def commands(viaduct):
    text = subprocess.run([viaduct, "help"], stdout=subprocess.PIPE, check=True,
                          encoding="utf-8").stdout
    for name, summary in re.findall(r"^  ([\w-]+) +(.*)$", text.split("\n\n")[2], re.M):
        yield f"*viaduct-{name}*(1)"
        yield "\t" + sentence(summary)
        yield ""


def topic(viaduct, name):
    return subprocess.run([viaduct, "help", name], stdout=subprocess.PIPE, check=True,
                          encoding="utf-8").stdout


def errors(viaduct):
    text = topic(viaduct, "errors").split("\n\n")
    for group in text[1:-1]:
        head, *codes = group.split("\n")
        yield from [f"*{head[:1].upper()}{head[1:]}*", ""]
        for line in codes:
            code, meaning = line.split(None, 1)
            yield from ["\t" + f"*{code}*", "\t\t" + sentence(meaning), ""]


def keys(viaduct):
    for group in topic(viaduct, "fabrics").split("\n\nkeys of ")[1:]:
        name, *lines = group.strip("\n").split("\n")
        yield from [f"## {name}", ""]
        for key, meaning in zip(lines[::2], lines[1::2]):
            key, value = key.strip().split("=")
            value = "_TEXT_" if value == "TEXT" else escape(value)
            yield from [f"*{key}*={value}", "\t" + sentence(meaning.strip()), ""]


def main():
    viaduct, version, details, template = sys.argv[1:]
    page, section = pathlib.Path(template).name.split(".")[:2]
    lines = pathlib.Path(template).read_text(encoding="utf-8").rstrip("\n").split("\n")
    command = page.partition("-")[2] if section == "1" else ""
    text = Help(viaduct, command) if command else None
    summary = prose(text.summary) if text else lines.pop(0)
    out = [f'{page}({section}) "Viaduct {version}" "Viaduct"', "",
           "# NAME", "", f"{page} - {summary}", ""]
    if text:
        out += ["# SYNOPSIS", "", "++\n".join(usage(line) for line in text.usage), ""]
    literal = False
    for line in lines:
        literal ^= line == "```"
        if line == "@options@":
            out += options(command, text, read_details(details))
        elif line == "@commands@":
            out += commands(viaduct)
        elif line == "@errors@":
            out += errors(viaduct)
        elif line == "@keys@":
            out += keys(viaduct)
        else:
            out.append(line.replace("\\", "\\\\") if literal else line)
    print(re.sub(r"\n{3,}", "\n\n", "\n".join(out)).rstrip("\n"))


if __name__ == "__main__":
    main()
