# SPDX-License-Identifier: Apache-2.0
"""The kernel's memory for each task of a container."""

from __future__ import annotations

from ringfence.abi.generated import MAPS

SLAB = 2048  # kmalloc-2k: what follows is kmalloc-4k, twice as much for each thread of a container
#: struct bpf_local_storage_elem up to its data: two cache lines, and a pointer
HEAD = 2 * 64 + 8


def test_a_tasks_entry_fits_its_slab() -> None:
    """Its buffer for texts is most of it."""
    assert MAPS["tasks"].value + HEAD <= SLAB
