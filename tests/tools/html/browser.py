# SPDX-License-Identifier: BSD-2-Clause
"""A page in headless Chromium, spoken to over two pipes (its DevTools protocol).

Nothing here touches a network or a profile of the user's.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile

import harness

SECONDS = 40


def need():
    """Skip the case where there is no browser."""
    if not shutil.which("chromium"):
        raise harness.Skip("no chromium: scripts/setup --browser")
    if harness.is_sanitized():
        raise harness.Skip("the page is the same without a sanitizer")


class Page:
    """A file as it is shown in a window of @width; for `with`."""

    def __init__(self, path, width, height=900):
        self.url, self.width, self.height = f"file://{path}", width, height
        self.problems, self.requests = [], []
        self.number, self.left, self.session = 0, b"", None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        commands_end, self.commands = os.pipe()
        self.answers, answers_end = os.pipe()

        def place():  # 3 is read, 4 is written; first both out of the way
            a, b = os.dup(commands_end), os.dup(answers_end)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.popen = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-extensions", "--disable-background-networking",
             "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={self.folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=place, pass_fds=(3, 4, commands_end, answers_end), start_new_session=True)
        os.close(commands_end)
        os.close(answers_end)
        try:
            self.open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.folder.cleanup()

    def open(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=self.width, height=self.height,
                  deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=self.url)
        self.wait(lambda m: m.get("method") == "Page.loadEventFired")

    def message(self, deadline):
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.answers], [], [], deadline.left())
            harness.check(ready, "the browser does not answer")
            data = os.read(self.answers, 1 << 16)
            harness.check(data, "the browser has ended")
            self.left += data
        text, _, self.left = self.left.partition(b"\0")
        return json.loads(text)

    def wait(self, wanted):
        deadline = harness.Deadline(SECONDS)
        while True:
            message = self.message(deadline)
            self.note(message)
            if wanted(message):
                return message

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(params["type"])
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"]["text"])

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.commands, json.dumps(request).encode() + b"\0")
        answer = self.wait(lambda m: m.get("id") == self.number)
        harness.check("result" in answer, f"{method}: {answer.get('error')}")
        return answer["result"]

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        harness.check("exceptionDetails" not in answer, f"{expression}: {answer}")
        return answer["result"].get("value")

    def scheme(self, name, media="screen"):
        """ "light" or "dark"; on a "screen" or in "print" """
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": name}])

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def screenshot(self, path, whole=True):
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
                    "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="png", **clip)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
