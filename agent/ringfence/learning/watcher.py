# SPDX-License-Identifier: Apache-2.0
"""An agent of a run's own, which watches one sandbox and nothing else, and tells all that it saw.

The node's agent, if there is one, goes on undisturbed: that one neither counts every call nor reports every
file. Ours knows the sandbox by the hand-shake alone, so nobody else's container is ever looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.config import ENROLL_SOCKET
from ringfence.errors import Error

__all__ = ["Record", "Watcher", "records_lost"]

Record = dict[str, Any]
Ask = Callable[..., Any]
Follow = Callable[..., Iterator[Record]]
# Reported without a rule, without a limit on how many.
_OBSERVED = (
    "process.exec", "file.open", "network.connect", "network.sendmsg", "network.bind", "unix.connect",
    "socket"
)  # fmt: skip
# An agent wants a policy; this one is about nobody.
_NOTHING = """apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: learning}
spec:
  selector: {names: ["no:one"]}
  rules:
    - {id: learning, title: nothing, severity: info, event: reboot, match: any, action: alert}
"""
_START_SECONDS, _QUIET_SECONDS = 30.0, 0.3


class Watcher:
    """Use as a context: the agent is ready within, and ends with it. `ask` and `follow` speak to a socket."""

    def __init__(self, ask: Ask, follow: Follow) -> None:
        self._ask, self._follow = ask, follow
        self.records: list[Record] = []
        self._last = 0.0

    def __enter__(self) -> Watcher:
        self.directory = Path(tempfile.mkdtemp(prefix="ringfence-learn-"))
        self.socket = self.directory / "agent.sock"
        self._log = (self.directory / "log").open("wb")
        self._agent = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
            env={key: value for key, value in os.environ.items() if not key.startswith("RINGFENCE_")},
            start_new_session=True,  # ctrl-C is the workload's
        )  # fmt: skip
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.terminate()
        try:
            self._agent.wait(10)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def enroll(self) -> Path:
        """Where the runtime shakes hands with it."""
        return self.socket.with_name(ENROLL_SOCKET)

    def _command(self) -> Sequence[str]:
        policies = self.directory / "policies"
        policies.mkdir()
        (policies / "learning.yaml").write_text(_NOTHING)
        words = [sys.executable, "-m", "ringfence", "agent", "--policies", str(policies), "--mode", "policy"]
        words += ["--containers-known", "no", "--containers-adopt", "no", "--pins", "off"]
        words += [
            "--http-listen",
            "off",
            "--socket",
            str(self.socket),
            "--state-dir",
            str(self.directory / "state"),
        ]
        words += ["--syscalls-learn", "yes", "--activity-rate", "0", "--rings-activity", "64M"]
        for label in _OBSERVED:
            words += ["--observe", f"{label}=activity"]
        return words

    def _wait_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self.enroll.exists():
            if self._agent.poll() is not None or time.monotonic() > end:
                said = (self.directory / "log").read_text(errors="replace").strip().splitlines()
                raise Error("the agent that watches the run did not start", hint=said[-1] if said else "")
            time.sleep(0.02)

    def _read(self) -> None:
        try:
            for record in self._follow(self.socket, follow=True, activity=True):
                self.records.append(record)
                self._last = time.monotonic()
        except (Error, OSError):
            return

    def finish(self) -> tuple[list[list[Any]], int]:
        """The rows of `learned` (ringfence.daemon.snapshots), and how many records were lost.

        Waits until no record has come for a while.
        """
        time.sleep(_QUIET_SECONDS)
        while time.monotonic() - self._last < _QUIET_SECONDS:
            time.sleep(0.05)
        return self._ask(self.socket, "learned"), records_lost(self._ask(self.socket, "status"))


def records_lost(status: Mapping[str, Any]) -> int:
    """Records that the socket's clients did not get, by the agent's status; lines to its output are apart."""
    return sum(n for reason, n in status["lost"].items() if not reason.startswith("output: "))
