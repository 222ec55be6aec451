# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, driven over a pipe by its DevTools protocol: no library, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support import force
from tests.support.waiting import patience

__all__ = ["Browser", "Tab", "chromium"]

_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38,
         "ArrowRight": 39, "ArrowDown": 40, " ": 32}  # fmt: skip
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--lang=en-GB", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """The process and its pipe."""

    def __init__(self, process: subprocess.Popen[bytes], send: int, receive: int) -> None:
        self._process, self._send, self._receive = process, send, receive
        self._number, self._rest = 0, b""
        self.faults: list[str] = []  # exceptions of pages, and what their security policies refused

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The answer to one command. Raises AssertionError with the browser's words if it refuses."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        until = time.monotonic() + patience(60)
        while True:
            answer = self._next(until)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._note(answer)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self._receive, 1 << 20)
            assert more, f"Chromium ended with {self._process.wait(10)}"
            self._rest += more
        first, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(first))

    def _note(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.faults.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["source"] == "security":
            self.faults.append(parameters["entry"]["text"])

    @contextlib.contextmanager
    def tab(
        self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False, before: str = ""
    ) -> Iterator[Tab]:
        """A new tab of this size. `before` is a script that runs ahead of the page's."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        made = Tab(self, session)
        for name in ("Page", "Runtime", "Log"):
            made.call(f"{name}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        made.call("Emulation.setEmulatedMedia", features=[scheme])
        made.call("Emulation.setTimezoneOverride", timezoneId="Europe/Berlin")
        made.call("Emulation.setFocusEmulationEnabled", enabled=True)
        made.size(width, height)
        if before:
            made.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        made.call("Page.navigate", url=url)
        made.wait("location.href != 'about:blank' && document.readyState == 'complete'", url)
        try:
            yield made
        finally:
            self.call("Target.closeTarget", targetId=target)


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command."""
        return self._browser.call(method, self._session, **parameters)

    def size(self, width: int, height: int) -> None:
        """Change the size of the window's content, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=False)  # fmt: skip

    def run(self, expression: str) -> Any:
        """The value of an expression; a promise is awaited. Raises AssertionError for an exception."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, json.dumps(got["exceptionDetails"])[:2000]
        return got["result"].get("value")

    def wait(self, expression: str, what: str) -> Any:
        """Wait until the expression is true; returns its value."""
        until = time.monotonic() + patience(30)
        while not (value := self.run(expression)):
            assert time.monotonic() < until, f"waited in vain for {what}"
            time.sleep(0.05)
        return value

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press and release one key."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 8 * shift}
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Insert text where the focus is."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write what is visible, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[Browser]:
    """A headless Chromium with a profile of its own."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        force.missing("browser", "needs the program chromium")
    to_it, send = os.pipe()
    receive, from_it = os.pipe()
    # The protocol is on descriptors 3 and 4.
    argv = ["bash", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "-", binary, *_FLAGS]
    argv += [f"--user-data-dir={directory}/profile", "about:blank"]
    log = (directory / "chromium.log").open("wb")
    with log, subprocess.Popen(argv, pass_fds=(to_it, from_it), stdout=log, stderr=log) as process:
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(process, send, receive)
        finally:
            os.close(send)  # its end
            os.close(receive)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
