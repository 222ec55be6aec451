# SPDX-License-Identifier: Apache-2.0
"""Taking in what runs, at the start and again after a loss: enroll by name, arm by the kernel's iterator, ask
who they are."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.bpf.kernel import Kernel
from ringfence.config_values import Pattern
from ringfence.containers.adopt import Adopter
from ringfence.containers.hierarchy import Hierarchy, own_cgroups
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.slots import SlotTable
from ringfence.daemon.members import Members

__all__ = ["Adoption"]

_ROUNDS = 4


class Adoption:
    """`take_in` is for the loop, or for before it runs."""

    def __init__(
        self,
        kernel: Kernel,
        hierarchy: Hierarchy,
        patterns: Sequence[Pattern],
        slots: SlotTable,
        registry: Registry,
        members: Members,
    ) -> None:
        self._kernel, self._members = kernel, members
        self.never = own_cgroups(hierarchy)  # what holds the agent is no container
        self._adopter = Adopter(hierarchy, patterns, slots, registry, self.never)

    def take_in(self) -> None:
        """Everything that runs in a container and is not known yet."""
        self._members.adopt(self._adopter)
        for _ in range(_ROUNDS):  # a task that was forked meanwhile is bound by the next round
            if not self._kernel.adopt():
                break
        self._members.adopted(self._adopter)

    def pids(self, container: Container) -> list[int]:
        """The processes of a container, of any thread."""
        return self._adopter.pids(container)
