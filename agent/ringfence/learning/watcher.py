# SPDX-License-Identifier: Apache-2.0
"""A private agent that watches one sandbox, and reports everything that it observes.

The node's agent, if there is one, is not affected: it neither counts every call nor reports every file. The
private agent enrols containers by request only, so it never observes other containers.
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
from ringfence.errors import Error
from ringfence_linux.enroll import SOCKET_NAME

__all__ = ["Record", "Watcher", "records_lost"]

Record = dict[str, Any]
Follow = Callable[..., Iterator[Record]]
# Reported without a rule, and without a rate limit.
_OBSERVED = (
    "process.exec", "file.open", "network.connect", "network.sendmsg", "network.bind", "unix.connect",
    "socket"
)  # fmt: skip
# An agent needs a policy; this one applies to no container.
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
    """A context manager: the agent runs within it. `ask` and `follow` use the agent's socket."""

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
        """The socket for enrolment requests."""
        return self._agent.socket.with_name(SOCKET_NAME)

    def _read(self) -> None:
        with suppress(Error, OSError):
            for record in self._follow(self._agent.socket, follow=True, activity=True):
                self.records.append(record)
                self._last = time.monotonic()

    def finish(self) -> tuple[list[list[Any]], int]:
        """Returns the rows of `learned` (ringfence.daemon.queries.status), and the number of lost records.

        Waits until no record has arrived for a while.
        """
        time.sleep(_QUIET_SECONDS)
        while time.monotonic() - self._last < _QUIET_SECONDS:
            time.sleep(0.05)
        return self._agent.ask("learned"), records_lost(self._agent.ask("status"))


def records_lost(status: Mapping[str, Any]) -> int:
    """Returns the number of records that the socket's clients lost, without lost lines of the output."""
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
