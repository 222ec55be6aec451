# SPDX-License-Identifier: Apache-2.0
"""Policy files that containers bring (`ringfence run --policy FILE`): in force for those containers alone.

A file is identified by the digest of its text, so a thousand containers with the same file need its rules
once. Its selector is ignored: the container that brought it has chosen it. Its names may collide with other
files'.
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
    """One file that waits. `done` gets its key, or what is wrong with it."""

    name: str
    data: bytes
    done: Callable[[str, str], None]

    @property
    def key(self) -> str:
        """What a container chooses it by. No policy's name has a colon."""
        return "file:" + hashlib.sha256(self.data).hexdigest()[:24]

    def read(self) -> tuple[Policy, ...]:
        """Its policies, for such containers alone. Raises PolicyError with every mistake."""
        loaded = load_bytes({self.name: self.data})
        return tuple(replace(policy, bound=self.key) for policy in loaded.policies)


class ContainerPolicies:
    """Which files are in force, and which wait. Of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[PolicyFile] = deque()
        self._seated: tuple[Policy, ...] = ()

    def knows(self, key: str) -> bool:
        """Whether its policies are in force already."""
        return any(policy.bound == key for policy in self._seated)

    @property
    def room(self) -> tuple[int, int]:
        """How many wait, and may."""
        return len(self._waiting), WAITING_MAX

    def wait(self, file: PolicyFile) -> None:
        """Queue up. Who finds the queue full is told so at once."""
        if len(self._waiting) >= WAITING_MAX:
            file.done("", "too many policy files wait: try again")
            return
        self._waiting.append(file)

    def next(self) -> PolicyFile | None:
        """The next that waits; one whose twin came in meanwhile is told so here."""
        while self._waiting:
            file = self._waiting.popleft()
            if not self.knows(file.key):
                return file
            file.done(file.key, "")
        return None

    def kept(self, containers: Iterable[Container | None]) -> PolicySet:
        """The policies that some container still has; those of containers that ended go."""
        wanted = {key for container in containers if container is not None for key in container.chosen}
        return PolicySet(tuple(policy for policy in self._seated if policy.bound in wanted))

    def settle(self, policies: PolicySet) -> None:
        """This set is in force now."""
        self._seated = tuple(policy for policy in policies.policies if policy.bound)
