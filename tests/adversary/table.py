# SPDX-License-Identifier: Apache-2.0
"""All attacks of the adversary, by class."""

from __future__ import annotations

from tests.adversary import table_files, table_node, table_processes
from tests.adversary.attack import Attack

__all__ = ["ATTACKS", "CLASSES", "STARTED"]

ATTACKS: tuple[Attack, ...] = (*table_files.ATTACKS, *table_processes.ATTACKS, *table_node.ATTACKS)

#: classes whose attacks begin before the agent or need an agent of their own (test_starting.py)
STARTED = {"A1", "A2", "A6"}

#: class -> what it is about
CLASSES = {
    "A1": "containers that were there before the agent",
    "A2": "tasks that start when the agent's memory is full",
    "A3": "namespaces of host services",
    "A4": "the host's own namespaces, also by races",
    "A5": "the maps that hold the rules",
    "A6": "deciding programs that are kept busy",
    "B1": "writing the host's files",
    "B2": "sockets of the host",
    "B3": "memory of host processes",
    "B4": "character devices",
    "B5": "calls on the whole node: swap, clock, accounting",
    "B6": "module parameters, PCI and power by sysfs",
    "B7": "packets to the metadata service",
    "B8": "files of the host through its processes",
    "B9": "fanotify",
    "B10": "ioctls that act on a filesystem",
    "C1": "forged device events",
    "C2": "exceptions for a program",
    "C3": "file capabilities on shared files",
    "C4": "signals to host processes",
    "C5": "FIFOs of the host",
    "C6": "helpers that the kernel starts for keys",
    "C10": "namespaces of other containers",
}
