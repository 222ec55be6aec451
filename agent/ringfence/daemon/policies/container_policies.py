# SPDX-License-Identifier: Apache-2.0
"""Policy files of single containers (`ringfence run --policy FILE`): in force for those containers
alone.

A file is identified by the digest of its text, so a thousand containers with the same file need
its rules once. Its selector is ignored: the container that came with it has chosen it. Its names
may collide with those of other files.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ringfence.containers.model import Container
from ringfence.policy import Policy, PolicySet
from ringfence.policy.load import load_bytes

__all__ = ["WAITING_MAX", "ContainerPolicies", "PolicyFile"]

WAITING_MAX = 64


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file that waits. `done(key, problem)` is called with its key, or with a problem."""

    name: str
    data: bytes
    done: Callable[[str, str], None]

    @property
    def key(self) -> str:
        """The name by which a container chooses it. No policy's name has a colon."""
        return "file:" + hashlib.sha256(self.data).hexdigest()[:24]

    def read(self) -> tuple[Policy, ...]:
        """Its policies, bound to such containers. Raises PolicyError with every mistake."""
        loaded = load_bytes({self.name: self.data})
        return tuple(replace(policy, bound=self.key) for policy in loaded.policies)


class ContainerPolicies:
    """The files in force, and those that wait. Used by the loop only."""

    def __init__(self) -> None:
        self._waiting: deque[PolicyFile] = deque()
        self._in_force: tuple[Policy, ...] = ()

    def knows(self, key: str) -> bool:
        """Returns True if the policies of this file are in force already."""
        return any(policy.bound == key for policy in self._in_force)

    @property
    def capacity(self) -> tuple[int, int]:
        """Files that wait, and the maximum."""
        return len(self._waiting), WAITING_MAX

    def wait(self, file: PolicyFile) -> None:
        """Queue a file. If the queue is full, `done` is called with that problem."""
        if len(self._waiting) >= WAITING_MAX:
            file.done("", "too many policy files wait: try again")
            return
        self._waiting.append(file)

    def next(self) -> PolicyFile | None:
        """The next file. If the same text came into force meanwhile, `done` is called here."""
        while self._waiting:
            file = self._waiting.popleft()
            if not self.knows(file.key):
                return file
            file.done(file.key, "")
        return None

    def kept(self, containers: Iterable[Container | None]) -> PolicySet:
        """The policies that a container still has, without those of containers that ended."""
        wanted = {key for container in containers if container is not None for key in container.chosen}
        return PolicySet(tuple(policy for policy in self._in_force if policy.bound in wanted))

    def settle(self, policies: PolicySet) -> None:
        """Take this set as the one in force."""
        self._in_force = tuple(policy for policy in policies.policies if policy.bound)
