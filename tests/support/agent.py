# SPDX-License-Identifier: Apache-2.0
"""A real, private agent: it enrolls only cgroups named `rftest-...`, and ends with the test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ringfence.bpf.capabilities import mounts_of
from tests.support.alert_schema import problems
from tests.support.cgroups import PREFIX
from tests.support.waiting import end, patience, wait_for

__all__ = [
    "INVALID",
    "Agent",
    "Record",
    "Sample",
    "cli",
    "environment",
    "free_port",
    "pinned_agent",
    "running_agent",
]

Record = dict[str, Any]
_CHECKED = 2000  # lines of an agent that are compared with the published schema
SCRAPE_FRESH_S = 1.0  # maximum age of an answer of /metrics
Sample = tuple[str, tuple[tuple[str, str], ...]]
#: What is wrong, by the published schema, with lines of the agents of this process. tests/conftest.py looks
#: at it after each test: to raise where an agent is stopped would leave what comes after that undone.
INVALID: list[str] = []


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that is unused now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """Returns the environment of an agent: without the variables of the tests, which it would refuse."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RINGFENCE_")}


def cli(agent: Agent, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a `ringfence` command against that agent."""
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *words, "--socket", str(agent.socket)],
        capture_output=True, text=True, timeout=patience(60), env=environment(), check=False,
    )  # fmt: skip


class Agent:
    """`ringfence agent` as a child process; its lines are read as they are written."""

    def __init__(
        self,
        directory: Path,
        *,
        policies: Sequence[Path],
        mode: str = "enforce",
        patterns: Sequence[str] = (f"{PREFIX}*",),
        flags: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.socket = directory / "agent.sock"
        self.log = directory / "agent.log"
        chosen: dict[str, str | Sequence[str]] = {
            "mode": mode,
            "policies": [str(path) for path in policies],
            "containers-patterns": list(patterns),
            "containers-known": "no",
            "containers-adopt": "no",
            "http-listen": f"127.0.0.1:{self.port}",
            "socket": str(self.socket),
            "state-dir": str(directory / "state"),
            "pins": "off",
            "canary": "no",
            **({"containers-grace": "30"} if patience(1) > 1 else {}),
            **(flags or {}),
        }
        self.argv = [sys.executable, "-m", "ringfence", "agent"]
        for key, value in chosen.items():
            for word in [value] if isinstance(value, str) else value:
                self.argv += [f"--{key}", word]
        self.records: list[Record] = []
        self.arrived: list[int] = []  # CLOCK_BOOTTIME of each record's line, in ns
        self.ready_seconds = 0.0
        self._scraped_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready: programs attached, policies in the kernel."""
        started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment()
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            try:
                # a look takes an emulated CPU's time from the agent: as rarely as the guest is slow
                wait_for(self._is_ready, "the agent to be ready", every=patience(0.01))
            except AssertionError as error:
                raise AssertionError(f"{error}; its log ends:\n{self.tail(1500)}") from None
            self.ready_seconds = time.monotonic() - started

    def _is_ready(self) -> bool:
        if self.status is not None:
            raise AssertionError(f"the agent ended with status {self.status}:\n{self.tail()}")
        with contextlib.suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            record = json.loads(line)
            self.arrived.append(now)
            self.records.append(record)
            if len(self.records) <= _CHECKED:
                INVALID.extend(problems(record))

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll() if self._process else None

    def tail(self, size: int = 4000) -> str:
        """Returns the end of its log."""
        return self.log.read_text(errors="replace")[-size:]

    def get(self, path: str) -> tuple[int, str]:
        """Returns status and body of an HTTP request to it."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=patience(30)
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[Sample, float]:
        """Returns every current sample of /metrics: (name, sorted labels) -> value.

        The agent may answer with samples that are up to a second old, so this waits until they
        have expired.
        """
        time.sleep(max(0.0, self._scraped_at + SCRAPE_FRESH_S - time.monotonic()))
        page = self.get("/metrics")[1]
        self._scraped_at = time.monotonic()
        samples: dict[Sample, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return samples

    def alerts(self, container: str = "", rule: str = "") -> list[Record]:
        """Returns the alerts so far, of one container and one rule if named."""
        return [
            record
            for record in list(self.records)
            if record.get("kind") == "alert"
            and container in ("", record["container"].get("id"))
            and rule in ("", record["rule"]["id"])
        ]

    def wait_record(self, wanted: Callable[[Record], bool], what: str, *, seconds: float = 20.0) -> Record:
        """Wait for the first record for which `wanted` is true, and return it."""

        def look() -> Record | None:
            return next((record for record in list(self.records) if wanted(record)), None)

        try:
            return wait_for(look, what, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the agent's log ends:\n{self.tail(1500)}") from None

    def wait_alert(self, rule: str, container: str = "", *, seconds: float = 20.0) -> Record:
        """Wait for the first alert of a rule, and return it."""
        return self.wait_record(
            lambda record: record in self.alerts(container, rule), f"an alert of {rule}", seconds=seconds
        )

    def stop(self, seconds: float = 10.0) -> int:
        """Send SIGTERM and return the exit status; SIGKILL if it does not end in time."""
        if self._process is None:
            return 0
        status = end(self._process, seconds=seconds)
        if self._reader is not None:
            self._reader.join(5)
        return status


@contextlib.contextmanager
def running_agent(directory: Path, **options: Any) -> Iterator[Agent]:
    """An agent that is ready, for the time of a `with` block."""
    agent = Agent(directory, **options)
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()


@contextlib.contextmanager
def pinned_agent(directory: Path, **options: Any) -> Iterator[Agent]:
    """An agent that is not started, with a private
    bpffs; nothing of it is left after the `with` block.
    """
    pins = str(directory / "bpf")
    agent = Agent(directory / "agent", flags={"pins": pins, "containers-adopt": "yes"}, **options)
    try:
        yield agent
    finally:
        agent.stop()
        subprocess.run(
            [*agent.argv, "--uninstall"],
            capture_output=True,
            timeout=patience(60),
            env=environment(),
            check=True,
        )
    assert pins not in mounts_of("bpf")
