# SPDX-License-Identifier: Apache-2.0
"""An agent that belongs to one command, as a child process. It leaves the node's agent and its
containers alone.

It knows only containers that match the given names or are enrolled over its socket, pins nothing
and serves no HTTP. It has a socket and a state directory of its own, and ends with the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ringfence.errors import Error

__all__ = ["Ask", "ChildAgent"]

#: (socket, operation) -> the agent's answer, or Error; ringfence.cli.client.request is one
Ask = Callable[..., Any]
_APART = ("--containers-known", "no", "--containers-adopt", "no", "--pins", "off", "--http-listen", "off")
_END_SECONDS = 30.0


class ChildAgent:
    """`ringfence agent` as a child process: ready inside a `with` block, ended after it.

    `records` are its lines of output so far. Environment variables do not configure it.
    """

    def __init__(self, directory: Path, ask: Ask, flags: Sequence[str], *, seconds: float = 60.0) -> None:
        """`flags` are added to its command line; `seconds` is the maximum time of the start."""
        directory.mkdir(parents=True, exist_ok=True)
        self.socket, self._log = directory / "agent.sock", directory / "agent.log"
        self._ask, self._seconds = ask, seconds
        own = ("--socket", str(self.socket), "--state-dir", str(directory / "state"))
        self._argv = [sys.executable, "-m", "ringfence", "agent", *_APART, *own, *flags]
        self.records: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready. Raises Error with the end of its log."""
        # It finds the package where this process did: a Debian package has it outside of Python's own path.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RINGFENCE_")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,  # ctrl-C goes to the command alone, which ends it
            )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, operation: str) -> Any:
        """Its answer to a request on its own socket. Raises Error."""
        return self._ask(self.socket, operation)

    def _wait_ready(self) -> None:
        end = time.monotonic() + self._seconds
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                text = self._log.read_text(errors="replace")
                raise Error("the agent of this command did not start", hint=text[-2000:].strip())
            time.sleep(0.02)

    def _ready(self) -> bool:
        with contextlib.suppress(Error):
            return not any(text.startswith("not ready") for text in self.ask("status")["problems"])
        return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.records.append(json.loads(line))

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
