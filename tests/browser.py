"""A real headless Chromium, spoken to over a pipe in its DevTools protocol; no library needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# the protocol's pipes are file descriptors 3 and 4 of the browser
_ONTO_3_AND_4 = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
for pipe, wanted in zip(pipes, (3, 4)):
    os.dup2(pipe, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page in a browser.

    Args:
        commands: file descriptor that takes messages, each ended by a NUL.
        answers: file descriptor that they come from.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._pending = commands, answers, b""
        self._number, self._session = 0, ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, page: Path | str, *, width: int, dark: bool = False) -> None:
        """Load a file or an address at a width in CSS pixels, and wait for it."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        )

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in an input, as a user does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """One key, by its name and number."""
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        self.evaluate(
            f"new Promise(done => {{ const look = () => {condition} ? done() : setTimeout(look, 50); look(); }})"
        )

    def paper(self) -> None:
        """Show the page as it is printed, the colour scheme left as it was."""
        self.send("Emulation.setEmulatedMedia", media="print")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return base64.b64decode(self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        answer = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def send(self, method: str, **params: Any) -> Mapping[str, Any]:
        """Send a command and wait for the reply; errors that the page logs meanwhile are collected."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: Mapping[str, Any] = answer["result"]
                return result
            self._notice(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser has gone"
            self._pending += read
        text, _, self._pending = self._pending.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _notice(self, event: Mapping[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded" and params["entry"]["level"] in {"warning", "error"}:
            self.complaints.append(params["entry"]["text"])
        if method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and params["type"] != "log"):
            self.complaints.append(str(params))
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    flags = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", _ONTO_3_AND_4, str(to_read), str(from_write), program, *flags],
        pass_fds=(to_read, from_write),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    shown = Browser(to_write, from_read)
    try:
        yield shown
        shown.send("Browser.close")
    finally:
        os.close(to_write)
        os.close(from_read)
        process.terminate()
        process.wait(30)
