# SPDX-License-Identifier: Apache-2.0
"""The kernel's memory for each task of a container."""

from __future__ import annotations

from ringfence.abi.generated import MAPS, TASK

SLAB = 2048  # kmalloc-2k: what follows is kmalloc-4k, twice as much for each thread of a container
#: struct bpf_local_storage_elem up to its data: two cache lines, and a pointer; and the allocator's
#: list (LLIST_NODE_SZ in kernel/bpf/memalloc.c)
HEAD = 2 * 64 + 8 + 8


def test_a_tasks_entry_fits_its_slab() -> None:
    """Its buffer for texts is most of it."""
    assert MAPS["tasks"].value + HEAD <= SLAB


def test_another_build_can_read_what_a_task_is_bound_to() -> None:
    """The kernel lends a table of another size to no agent: see RF_ARMED_BYTES."""
    assert MAPS["tasks"].value == 1904
    assert MAPS["processes"].value == TASK.size == 32
    assert [field.name for field in TASK.fields] == ["container", "slot", "facts", "exe_hash", "start_ns"]
