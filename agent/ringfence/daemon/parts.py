# SPDX-License-Identifier: Apache-2.0
"""Values that several parts of the agent need together. They are made once, at the start, and
never change.

This module is imported before the kernel has loaded the programs, so it imports little at run
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ringfence.config import Config
from ringfence.containers.hierarchy import Hierarchy
from ringfence.daemon.startup.resource_limits import ResourceLimits

if TYPE_CHECKING:
    from ringfence.bpf.capabilities import NodeCapabilities
    from ringfence.bpf.kernel import Kernel
    from ringfence.containers.registry import Registry
    from ringfence.containers.slots import KernelSlots
    from ringfence.containers.tree import ProcessTree
    from ringfence.export.stats import Stats
    from ringfence.policy.install import Generations

__all__ = ["Loaded", "Node", "Picture"]


@dataclass(frozen=True, slots=True)
class Node:
    """The configuration, and what the start found out about this node.

    `handover`: how the pins of an earlier agent were passed (daemon.startup.handover).
    `assumptions`: facts about the host that could not be read.
    """

    config: Config
    hierarchy: Hierarchy
    capabilities: NodeCapabilities
    limits: ResourceLimits
    handover: str
    assumptions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in the kernel: programs and maps, the table of containers, the policies in force."""

    kernel: Kernel
    slots: KernelSlots
    generations: Generations


@dataclass(frozen=True, slots=True)
class Picture:
    """What the agent knows: the node's name, its containers and processes, and the counters."""

    node: str
    registry: Registry
    tree: ProcessTree
    stats: Stats
