# SPDX-License-Identifier: Apache-2.0
"""`linux.memoryPolicy`: the NUMA nodes of the workload's memory (set_mempolicy(2))."""

from __future__ import annotations

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.spec.node import Node, choice
from ringfence_runtime.spec.process import cpu_list

__all__ = ["FLAGS", "MODES", "parse_policy", "set_policy"]

MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}


def parse_policy(node: Node) -> tuple[int, frozenset[int]]:
    """(mode and flags, nodes)."""
    mode = MODES[node.choice("mode", MODES)]
    for index, name in enumerate(node.texts("flags")):
        mode |= FLAGS[choice(f"{node.at('flags')}[{index}]", name, FLAGS)]
    nodes = cpu_list(node, "nodes") or frozenset()
    if max(nodes, default=0) > 1023:
        raise node.error("nodes", "the highest node is 1023")
    base = mode & 0xFFF
    if base in (0, 4) and (nodes or mode & ~0xFFF):
        raise node.error("nodes", "MPOL_DEFAULT and MPOL_LOCAL take neither nodes nor flags")
    if base in (2, 3, 5, 6) and not nodes:
        raise node.error("nodes", "this mode needs nodes")
    return mode, nodes


def set_policy(mode: int, nodes: frozenset[int]) -> None:
    """Sets it for this process."""
    mask = sum(1 << number for number in nodes)
    try:
        syscalls.set_mempolicy(mode, mask.to_bytes(136, "little") if nodes else b"", 1025 if nodes else 0)
    except OSError as error:
        raise Error(f"config: linux.memoryPolicy: {error.strerror}") from None
