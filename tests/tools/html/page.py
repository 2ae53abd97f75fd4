#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: BSD-2-Clause
"""The page of --report, as a browser shows it.

    page.py VIADUCT [PART OF A CASE'S NAME]

Without Chromium the cases that need it are skipped: `scripts/setup --browser` installs it.
"""

import html.parser
import json
import os
import re
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

sys.path.insert(0, os.path.join(sys.path[0], "screen"))

# pylint: disable=wrong-import-position
import browser
import harness
from harness import Run, check, equal, test, test_each
from relay_ends import HEADER, RelayEnds

RUNS = {
    "precopy": ["--memory", "48M", "--max-bandwidth", "64M/s", "--dirty-rate", "20M/s"],
    "postcopy": ["--memory", "32M", "--dirty-rate", "unlimited", "--downtime-limit", "1us", "--postcopy",
                 "--max-postcopy-bandwidth", "64M/s"],
    "resumed": ["--memory", "32M", "--dirty-rate", "unlimited", "--downtime-limit", "1us", "--postcopy",
                "--pull-link", 2],
    "of no page": ["--memory", "4K", "--vcpus", 0],
}

VOID = {"meta", "br", "hr", "img", "input", "link"}
# What SVG closes in its tag comes as one event and is not counted.
LOADS = {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "formaction", "background"}


class Page(html.parser.HTMLParser):
    """Elements that are closed as they were opened, numbers by key, and nothing that loads or runs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.values, self.texts = [], {}, []
        self.key = self.script = None
        self.feed(text)
        self.close()
        equal(self.open, [], "the elements that are not closed")

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            check(name not in LOADS, f"<{tag}> loads {value!r}")
            check(not name.startswith("on"), f"<{tag}> runs {value!r}")
            check("url(" not in (value or ""), f"<{tag}> loads by its style: {value!r}")
        attrs = dict(attrs)
        if tag == "script":
            equal(attrs.get("type"), "application/json", "the type of a script")
        if tag not in VOID:
            self.open.append(tag)
        if "data-key" in attrs:
            self.key = attrs["data-key"]
            self.values[self.key] = ""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        check(self.open and self.open[-1] == tag, f"</{tag}> in {self.open}")
        self.open.pop()
        self.key = None

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script = json.loads(data)
        elif self.key is not None:
            self.values[self.key] += data
        if "style" in self.open:
            check("url(" not in data and "@import" not in data, "a style that loads")
        else:
            self.texts.append(data)


def leaves(value, path=""):
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from leaves(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def check_numbers(values, report):
    """Every number of --json is on the page, and no other."""
    wanted = dict(leaves(report))
    equal(sorted(values), sorted(wanted), "the names of the numbers")
    for key, value in wanted.items():
        seen = values[key] if isinstance(value, str) else json.loads(values[key])
        equal(seen, value, key)


def report_of(*args, status=0):
    """(the page's path, what --json says) of a demo."""
    path = os.path.join(harness.case.folder(), "report.html")
    run = Run("demo", *args, "--report", path, "--json").ends(status)
    return path, run.json()


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


# -- the file ---------------------------------------------------------------------------------


@test_each("a migration, {}: a page that is whole, loads nothing, and says what --json says", list(RUNS))
def _(name):
    path, report = report_of(*RUNS[name])
    page = Page(read(path))
    check_numbers(page.values, report)
    equal(page.script["result"], report, "the data for programs")
    points = page.script["points"]
    check(points and len(points) <= 2000, f"{len(points)} points")
    check(all(a[0] <= b[0] and a[3] <= b[3] for a, b in zip(points, points[1:])), "points out of order")
    equal(points[-1][3], report["bytes_sent"], "bytes of the last point")
    for text in ("Over time", "Latency", "Channels", "What the two sides agreed on", "Settings"):
        check(text in page.texts, f"no {text}")


@test("a relay: what it has carried, with the numbers of --json")
def _():
    path = os.path.join(harness.case.folder(), "relay.html")
    ends = RelayEnds()
    relay = Run(*ends.args, "--report", path, "--json")
    relay.says("listening on")
    ends.begin(HEADER)
    ends.source.close()
    ends.connection.close()
    report = relay.ends(1).json()
    page = Page(read(path))
    check_numbers(page.values, report)
    equal(page.script["result"], report, "the data for programs")
    equal(report["forward_bytes"], len(HEADER), "what it has carried")
    check("Relay, source: broken" in page.texts, "the heading")


@test("names and errors stay text")
def _():
    path = os.path.join(harness.case.folder(), "report.html")
    evil = "<img src=x onerror=alert(1)>&amp;\"'"
    run = Run("send", "--peer", "127.0.0.1:1", "--psk", evil, "--memory", "4K", "--report", path,
              "--json").ends(1)
    page = Page(read(path))
    check(evil in "".join(page.texts), "it is not on the page")
    check_numbers(page.values, run.json())
    equal(page.values["result"], "aborted", "result")


@test("a page that cannot be written: said before anything begins")
def _():
    folder = harness.case.folder()
    run = Run("demo", "--memory", "4K", "--report", f"{folder}/none/report.html").ends(1)
    line, remedy = run.error()
    equal(line, f"write the report: {folder}/none/report.html: No such file or directory", "the message")
    check("--report FILE" in remedy, "no remedy")
    equal(run.out.text, "", "stdout")


@test("a page for which there is no room: said, and the migration's own status")
def _():
    run = Run("demo", "--memory", "4K", "--report", "/dev/full").ends(0)
    check("write the report: /dev/full: " in run.err.text, "it is not said")


@test("a page takes the place of a longer file, and none is left behind a usage error")
def _():
    path = os.path.join(harness.case.folder(), "report.html")
    with open(path, "w", encoding="ascii") as f:
        f.write("x" * 1000000)
    os.chmod(path, 0o640)
    Run("demo", "--memory", "4K", "--report", path).ends(0)
    check(read(path).endswith("</html>\n"), "something is left of it")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o640, "its mode")
    Run("demo", "--memory", "5000", "--report", path + "2").ends(2)
    check(not os.path.exists(path + "2"), "a file")


# -- in a browser -------------------------------------------------------------------------------


def check_in_browser(path, report):
    with browser.Page(path, width=1000) as page:
        values = page.evaluate("Object.fromEntries([...document.querySelectorAll('[data-key]')]"
                               ".map(e => [e.dataset.key, e.textContent]))")
        check_numbers(values, report)
        equal(page.evaluate("document.documentElement.scrollWidth"), 1000, "the width of it all")
        wide = page.evaluate("[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect()"
                             ".right > 1000.5).map(e => e.outerHTML.slice(0, 80))")
        equal(wide, [], "what is wider than the window")
        charts = page.evaluate("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect()"
                               ".height)")
        check(all(height > 100 for height in charts), f"charts of these heights: {charts}")
        texts = page.evaluate("[...document.querySelectorAll('svg text')].filter(t => { const a = "
                              "t.getBoundingClientRect(), b = t.closest('svg').getBoundingClientRect(); "
                              "return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || "
                              "a.bottom > b.bottom + 1 }).map(t => t.textContent)")
        equal(texts, [], "texts that are cut off")
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            equal(page.evaluate(CONTRAST), [], f"what cannot be read in a {scheme} scheme")
        page.scheme("dark", media="print")
        equal(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)",
              "the paper")
        equal(page.evaluate(CONTRAST), [], "what cannot be read on paper")
        check(len(page.pdf()) > 10000, "nothing is printed")
        equal(page.problems, [], "what the console says")
        equal(page.requests, [f"file://{path}"], "what was loaded")
        return len(charts)


# Texts whose contrast with what is behind them is below 4.5 to 1.
CONTRAST = """(() => {
  const parse = c => (c.match(/[0-9.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(
    v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] };
  return [...document.querySelectorAll('h1,h2,p,b,span,th,td,figcaption,text')].filter(e => {
    if (!e.textContent.trim()) return false;
    const style = getComputedStyle(e), ink = parse(e.tagName == 'text' ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5 }).map(e => e.textContent.slice(0, 40)) })()"""


@test_each("in Chromium: a migration, {}, with {} charts", [("precopy", 2), ("resumed", 3)])
def _(name, charts):
    browser.need()
    equal(check_in_browser(*report_of(*RUNS[name])), charts, "the charts")


@test("in Chromium: a migration that failed")
def _():
    browser.need()
    path, report = report_of("--fabric", "ofi:nosuch", "--memory", "4K", status=1)
    with browser.Page(path, width=1000) as page:
        equal(page.evaluate("document.querySelector('h1').textContent"), "Migration aborted", "heading")
        box = page.evaluate("document.querySelector('.box').textContent")
        check(report["error"]["remedy"] in box, "no remedy")
        equal(page.problems, [], "what the console says")


if __name__ == "__main__":
    sys.exit(harness.main(*sys.argv[1:]))
