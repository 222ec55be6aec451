# SPDX-License-Identifier: Apache-2.0
"""An agent of the test's own: it looks only at cgroups with the test's names, and ends with the test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ringfence.errors import Error

__all__ = ["Ask", "PrivateAgent", "private_agent"]

Record = dict[str, Any]
#: (socket, operation) -> the agent's answer; ringfence.cli.client.request is one
Ask = Callable[[Path, str], Any]


class PrivateAgent:
    """`ringfence agent` as a child process, its lines read as they come."""

    def __init__(
        self, directory: Path, ask: Ask, *, policies: Sequence[Path], mode: str, patterns: Sequence[str]
    ) -> None:
        directory.mkdir(parents=True)
        self.socket, self.log, self._ask = directory / "agent.sock", directory / "agent.log", ask
        self.argv = [
            sys.executable, "-m", "ringfence", "agent", "--mode", mode, "--http-listen", "off",
            "--containers-known", "no", "--containers-adopt", "no", "--pins", "off",
            "--socket", str(self.socket), "--state-dir", str(directory / "state"),
        ]  # fmt: skip
        for path in policies:
            self.argv += ["--policies", str(path)]
        for pattern in patterns:
            self.argv += ["--containers-patterns", pattern]
        self.records: list[Record] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float) -> None:
        """Start it and wait until it is ready. Raises Error with the end of its log."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RINGFENCE_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        threading.Thread(target=self._read, daemon=True).start()
        end = time.monotonic() + seconds
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise Error("the agent of the test did not start", hint=self.log.read_text()[-2000:])
            time.sleep(0.02)

    def _ready(self) -> bool:
        with contextlib.suppress(Error):
            return not any(text.startswith("not ready") for text in self.ask("status")["problems"])
        return False

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.records.append(json.loads(line))

    def ask(self, operation: str) -> Any:
        """Its answer on its own socket."""
        return self._ask(self.socket, operation)

    def alerts(self, container: str | None, rule: str) -> list[Record]:
        """What it has told of one rule about one container (None: of none) so far, in order."""
        return [
            record
            for record in list(self.records)
            if record.get("kind") == "alert"
            and record["container"].get("id") == container
            and (not rule or record["rule"].get("id") == rule)
        ]

    def last_alert(self, container: str | None, rule: str) -> float:
        """When it last told of that rule about that container, as time of day; 0: never."""
        found = self.alerts(container, rule)
        return datetime.fromisoformat(found[-1]["time"]).timestamp() if found else 0.0

    def claims(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """Rule -> {(what it comes to here when enforced, by which mechanism)}, as the agent says."""
        found: dict[str, frozenset[tuple[str, str]]] = {}
        for row in self.ask("policies"):
            claim = frozenset({(str(row["enforced"]), str(row["mechanism"]))})
            found[row["rule"]] = found.get(row["rule"], frozenset()) | claim
        return found

    def verdicts(self, container: str) -> Mapping[str, int]:
        """The kernel's own count of verdicts for a container: no rate limit, no delay."""
        for row in self.ask("top")["containers"]:
            if row["id"] == container:
                return {kind: row["counts"][kind] for kind in ("alert", "kill", "deny")}
        return {}

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def private_agent(
    directory: Path, ask: Ask, *, seconds: float = 60.0, **options: Any
) -> Iterator[PrivateAgent]:
    """An agent that is ready, for the time of a `with` block."""
    agent = PrivateAgent(directory, ask, **options)
    try:
        agent.start(seconds)
        yield agent
    finally:
        agent.stop()
