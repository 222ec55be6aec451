# SPDX-License-Identifier: Apache-2.0
"""An agent of a run's own, which watches one sandbox and nothing else, and tells all that it saw.

The node's agent, if there is one, goes on undisturbed: that one neither counts every call nor reports every
file. Ours knows the sandbox by the hand-shake alone, so nobody else's container is ever looked at.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ringfence.child_agent import Ask, ChildAgent
from ringfence.config import ENROLL_SOCKET
from ringfence.errors import Error

__all__ = ["Record", "Watcher", "records_lost"]

Record = dict[str, Any]
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
_QUIET_SECONDS = 0.3


class Watcher:
    """Use as a context: the agent is ready within, and ends with it. `ask` and `follow` speak to a socket."""

    def __init__(self, ask: Ask, follow: Follow) -> None:
        self._ask, self._follow = ask, follow
        self.records: list[Record] = []
        self._last = 0.0

    def __enter__(self) -> Watcher:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-learn-")))
            self._agent = stack.enter_context(ChildAgent(directory / "agent", self._ask, _flags(directory)))
            threading.Thread(target=self._read, daemon=True).start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def enroll(self) -> Path:
        """Where the runtime shakes hands with it."""
        return self._agent.socket.with_name(ENROLL_SOCKET)

    def _read(self) -> None:
        with suppress(Error, OSError):
            for record in self._follow(self._agent.socket, follow=True, activity=True):
                self.records.append(record)
                self._last = time.monotonic()

    def finish(self) -> tuple[list[list[Any]], int]:
        """The rows of `learned` (ringfence.daemon.queries.status), and how many records were lost.

        Waits until no record has come for a while.
        """
        time.sleep(_QUIET_SECONDS)
        while time.monotonic() - self._last < _QUIET_SECONDS:
            time.sleep(0.05)
        return self._agent.ask("learned"), records_lost(self._agent.ask("status"))


def records_lost(status: Mapping[str, Any]) -> int:
    """Records that the socket's clients did not get, by the agent's status; lines to its output are apart."""
    return sum(n for reason, n in status["lost"].items() if not reason.startswith("output: "))


def _flags(directory: Path) -> Sequence[str]:
    policies = directory / "policies"
    policies.mkdir()
    (policies / "learning.yaml").write_text(_NOTHING)
    words = ["--policies", str(policies), "--mode", "policy", "--syscalls-learn", "yes"]
    words += ["--activity-rate", "0", "--rings-activity", "64M"]
    for label in _OBSERVED:
        words += ["--observe", f"{label}=activity"]
    return words
