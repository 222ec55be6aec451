# SPDX-License-Identifier: Apache-2.0
"""All attacks of the adversary, by class."""

from __future__ import annotations

from tests.adversary import table_files, table_processes
from tests.adversary.attack import Attack

__all__ = ["ATTACKS", "CLASSES"]

ATTACKS: tuple[Attack, ...] = (*table_files.ATTACKS, *table_processes.ATTACKS)

#: class -> what it is about
CLASSES = {
    "A3": "namespaces of host services",
    "B3": "memory of host processes",
    "B8": "names of the host's files, by calls that open nothing",
    "C4": "signals to host processes",
}
