"""A real browser for tests: Chromium, told what to do over a pipe, in the words of its DevTools protocol.

with Browser(folder) as browser:
    page = browser.open("http://127.0.0.1:8000/")
    page.wait("document.querySelector('h1')")
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from tests.patience import LONGEST_S

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, "Enter": 13}

WITH_PIPES = """
import os, sys
for given, wanted in ((int(sys.argv[1]), 203), (int(sys.argv[2]), 204), (203, 3), (204, 4)):
    os.dup2(given, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Become a browser that reads from 3 and writes to 4. A process of many threads must not do so in a fork."""

SERVER_ENDED = (
    "ERR_CONNECTION_", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONTENT_LENGTH_MISMATCH",
    "ERR_SOCKET_NOT_CONNECTED",
)  # fmt: skip
"""What a browser notes of a page whose server is gone, which is no mistake of the page."""


def find() -> str | None:
    """The browser of this machine, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """A browser without a window; keeps what its pages complain of, and the addresses that they ask for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (to_child, to_browser), (from_browser, from_child) = os.pipe(), os.pipe()
        self._write, self._read = to_browser, from_browser
        program = find()
        assert program is not None
        flags = (
            "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            "--disable-dev-shm-usage",  # which all of a machine share
            f"--user-data-dir={folder / 'profile'}",
        )  # fmt: skip

        pipes = (to_child, from_child)
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", WITH_PIPES, *map(str, pipes), program, *flags, *arguments],
            pass_fds=pipes, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        self._rest, self._number = b"", 0
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._answers: dict[int, Any] = {}
        self._targets: list[str] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Tell the browser something and return what it answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        deadline = time.monotonic() + LONGEST_S
        while number not in self._answers:
            self._listen(deadline)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]  # type: ignore[no-any-return]

    def _listen(self, deadline: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "the browser says nothing"
        data = os.read(self._read, 1 << 20)
        assert data, "the browser has ended"
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"])[:600])
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            text = json.dumps(said["entry"])
            if not any(end in text for end in SERVER_ENDED):
                self.complaints.append(text[:600])
        elif method == "Network.requestWillBeSent":
            self.asked.append(said["request"]["url"])

    def open(self, url: str, width: int = 1280, height: int = 800, **how: Any) -> Page:
        """A new page at an address."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._targets.append(target)
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height, **how)
        page.call("Page.navigate", url=url)
        return page

    def close_pages(self) -> None:
        """Close all pages."""
        while self._targets:
            self.call("Target.closeTarget", targetId=self._targets.pop())

    def forget(self) -> None:
        """Close all pages, and forget what they complained of."""
        self.close_pages()
        self.complaints.clear()

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        try:
            self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()


class Page:
    """One page of the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Tell the page something."""
        return self.browser.call(method, self.session, **parameters)

    def resize(self, width: int, height: int, *, is_phone: bool = False, is_dark: bool = False) -> None:
        """Give the page a size, and what a phone or a dark setting makes of it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if is_phone else 1, mobile=is_phone,
        )  # fmt: skip
        if is_phone:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def eval(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = LONGEST_S) -> Any:
        """Wait until an expression is true, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.eval(f"(() => {{ try {{ return {script} }} catch (e) {{ return null }} }})()")
            except AssertionError:  # the page was being left
                found = None
            is_so = found not in (None, False, 0, "")
            if is_so or time.monotonic() > deadline:
                assert is_so, f"{script} within {seconds} s; the page says: {self.text()[:1500]}"
                return found
            time.sleep(0.03)

    def text(self) -> str:
        """What the page says."""
        return str(self.eval("document.body.innerText"))

    def press(self, key: str, text: str = "") -> None:
        """Press a key."""
        code = KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        typed = text or (key if len(key) == 1 else "")
        about = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        if typed:
            about |= {"text": typed}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in about.items() if k != "text"})

    def type(self, text: str) -> None:
        """Type a text where the cursor is."""
        self.call("Input.insertText", text=text)

    def draw(self, corners: Sequence[tuple[float, float]], *, finger: bool = False) -> None:
        """Draw along lines from corner to corner, with the mouse or a finger."""
        places = [corners[0]]
        for start, end in pairwise(corners):
            way = [b - a for a, b in zip(start, end, strict=True)]
            places += [(start[0] + way[0] * part / 8, start[1] + way[1] * part / 8) for part in range(1, 9)]
        for number, (x, y) in enumerate(places):
            if finger:
                kind = "touchStart" if number == 0 else "touchMove"
                self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
            else:
                self._mouse("mousePressed" if number == 0 else "mouseMoved", x, y)
        if finger:
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            self._mouse("mouseReleased", *corners[-1])

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
