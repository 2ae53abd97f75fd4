# SPDX-License-Identifier: BSD-2-Clause
"""The public headers, read: what each declares, and what the comment in front of it says.

A header's first comment is `name.h -- summary` and paragraphs, one of which begins with "Threads:".
A comment belongs to the declaration right behind it:

    /*
     * The summary, one sentence.
     *
     * Paragraphs. Parameters are written @name.
     *
     * Returns what it returns, to the end of the paragraph.
     *
     *  -ENOENT  an error and its cause; lines that go on are
     *           indented further
     *  else     what is left
     */

Declarations with no blank line between them share their comment.
"""

import pathlib
import re

COMMENT = re.compile(r"/\*(.*?)\*/", re.S)
ERROR_ENTRY = re.compile(r'^\tX\((E\w+), (\w+), "([^"]*)"\)', re.M)
# Behind a full stop, where a sentence begins.
SENTENCE = re.compile(r"(?<=[.?])\s+(?=[A-Z*@\"`(])")


class Comment:
    """What is in front of a declaration."""

    def __init__(self, lines):
        blocks, self.errors = [[]], []
        for line in lines:
            if line.startswith("  ") and self.errors and not blocks[-1]:
                self.errors[-1][1] += " " + line.strip()
            elif line.startswith(" "):
                blocks.append([])
                tag, _, text = line.strip().partition("  ")
                self.errors.append([tag, text.strip()])
            elif line.strip():
                blocks[-1].append(line.strip())
            else:
                blocks.append([])
        sentences = [SENTENCE.split(" ".join(block)) for block in blocks if block]
        self.summary = sentences[0].pop(0) if sentences else ""
        self.paragraphs, self.returns = [], []
        for block in sentences:
            at = next((i for i, s in enumerate(block) if s.startswith("Returns ")), len(block))
            self.paragraphs += [block[:at]] if block[:at] else []
            self.returns += block[at:]

    def text(self):
        """All of it, as one string."""
        parts = [self.summary] + [s for p in self.paragraphs for s in p] + self.returns
        return " ".join(parts + [text for _, text in self.errors])


class Item:
    """A function, a type, or a constant."""

    def __init__(self, header, kind, name, code, comment):
        self.header, self.kind, self.name = header, kind, name
        self.code, self.comment = code, comment

    def returns_nothing(self):
        return re.match(r"void \w", self.code) is not None

    def returns_code(self):
        return re.match(r"(int|ssize_t) ", self.code) is not None


class Header:
    def __init__(self, root, path):
        path = pathlib.Path(path).resolve().relative_to(pathlib.Path(root).resolve())
        self.path = path.name if path.parts[0] == "library" else str(path)
        text = (pathlib.Path(root) / path).read_text(encoding="utf-8")
        self.text = text
        lines = text.split("\n")
        about, at = _comment(lines, 1)
        first = about[0].partition(" -- ")[2]
        self.summary, self.paragraphs = _paragraphs([first] + about[1:])
        self.threads = next((" ".join(p)[len("Threads: "):] for p in self.paragraphs
                             if p[0].startswith("Threads:")), "")
        self.items = list(_items(self.path, lines[at:]))


def _paragraphs(lines):
    """Paragraphs as lists of lines; the first sentence apart. What is indented keeps its form."""
    found = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        else:
            found.append([])
    found = [p for p in found if p]
    words = SENTENCE.split(" ".join(line.strip() for line in found[0]))
    return words[0], ([[" ".join(words[1:])]] if words[1:] else []) + found[1:]


def _comment(lines, at):
    """The lines of the comment that begins at lines[at], and where what follows it begins."""
    end = at
    while "*/" not in lines[end]:
        end += 1
    body = lines[at:end + 1]
    body[0] = body[0].replace("/*", "", 1)
    body[-1] = body[-1].rpartition("*/")[0]
    stripped = [re.sub(r"^ \* ?", "", line) for line in body]
    if len(stripped) == 1:
        stripped = [stripped[0].strip()]
    while stripped and not stripped[0].strip():
        stripped.pop(0)
    while stripped and not stripped[-1].strip():
        stripped.pop()
    return stripped, end + 1


def _declaration(lines, at):
    """The text of the declaration that begins at lines[at], and where it ends."""
    depth, end = 0, at
    while True:
        code = COMMENT.sub("", lines[end])
        if not code.lstrip().startswith(("*", "/*", "#")):
            depth += code.count("{") - code.count("}")
            if depth == 0 and code.rstrip().endswith(";"):
                return "\n".join(lines[at:end + 1]), end + 1
        end += 1


def _named(code):
    """What kind of thing @code declares, and its name."""
    match = re.match(r"(struct|enum) (\w+) \{", code)
    if match:
        return match.group(1), match.group(2)
    match = re.match(r"(typedef )?[^(]*?(\w+)\(", code)
    if match:
        return "typedef" if match.group(1) else "function", match.group(2)
    return "opaque", code


def _items(path, lines):
    comment, at = None, 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("/*"):
            text, at = _comment(lines, at)
            comment = None if text[0].startswith("-- ") else Comment(text)
        elif line.startswith("#define VIA_") and not line.endswith("_H"):
            name, _, value = line[len("#define "):].partition(" ")
            if "(" not in name:
                yield Item(path, "constant", name, value.strip(), comment)
            while lines[at].endswith("\\"):
                at += 1
            at += 1
        elif not line or line.startswith(("#", "}", 'extern "C"')):
            comment = None if not line else comment
            at += 1
        else:
            code, at = _declaration(lines, at)
            kind, name = _named(code)
            if kind != "opaque":
                yield Item(path, kind, name, code, comment)


def read(root, paths):
    return [Header(root, path) for path in paths]


def error_list(headers):
    """(code, scope, text) of VIA_ERROR_LIST."""
    return [entry for header in headers for entry in ERROR_ENTRY.findall(header.text)]
