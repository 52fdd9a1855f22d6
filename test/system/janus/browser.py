"""A headless Chromium, driven through chromedriver's REST interface."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

from .patience import patient, wait_for
from .programs import Program

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard gives a reference


class Browser(Program):
    def __init__(self, profile, *flags):
        super().__init__(["chromedriver", "--port=0"])
        self.base = "http://127.0.0.1:" + self.wait_log(r"started successfully on port (\d+)").group(1)
        self.session = ""
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium",
                                   "args": [*FLAGS, f"--user-data-dir={profile}", *flags]}}}})
        self.session = "/session/" + answer["sessionId"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.base + (self.session if path != "/session" else "") + path, method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=patient(60)) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None

    def open(self, url, before=""):
        """Opens url, and runs the script `before` ahead of the page's own."""
        added = self.devtools("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("POST", "/url", {"url": url})
        self.devtools("Page.removeScriptToEvaluateOnNewDocument", **added)

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script, *arguments):
        """The value of a function's body."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def element(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return "/element/" + found[ELEMENT]

    def click(self, selector):
        self.call("POST", self.element(selector) + "/click", {})

    def fill(self, selector, text):
        element = self.element(selector)
        self.call("POST", element + "/clear", {})
        self.call("POST", element + "/value", {"text": text})

    def texts(self, selector):
        """Of all such elements."""
        return self.run("return Array.from(document.querySelectorAll(arguments[0]),"
                        " (element) => element.textContent)", selector)

    def wait_text(self, selector, part):
        wait_for(lambda: any(part in text for text in self.texts(selector)),
                 f"{selector} to have {part!r}; there is {self.texts(selector)}")

    def faults(self):
        """What went wrong in the page, since the last time it was asked."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})
                if entry["level"] == "SEVERE"]

    def stop(self):
        try:
            self.call("DELETE", "")
        finally:
            for pid in self.session_pids():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join(patient(10))
