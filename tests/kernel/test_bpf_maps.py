# SPDX-License-Identifier: Apache-2.0
"""Maps of every type in use, on this kernel."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence

import pytest

from ringfence.bpf.maps import Map, MapType, create_map, open_map

pytestmark = pytest.mark.root
NO_PREALLOC = 1
MMAPABLE = 1 << 10


@pytest.fixture
def table() -> Iterator[Map]:
    """A hash map u64 -> u32."""
    with create_map(MapType.HASH, "rftest_hash", 8, 4, 5000, flags=NO_PREALLOC) as made:
        yield made


def key(number: int) -> bytes:
    """Returns the key as stored in the map."""
    return number.to_bytes(8, "little")


def test_values_are_set_and_deleted(table: Map) -> None:
    """set, get, delete; a missing key gives None or False, not an error."""
    assert table.get(7) is None
    assert table.delete(7) is False
    table.set(7, 99)
    assert table.get(key(7)) == (99).to_bytes(4, "little")
    assert table.get_int(7) == 99
    assert table.delete(7) is True
    assert table.get_int(7) == 0


def test_wrong_sizes_never_reach_the_kernel(table: Map) -> None:
    """The kernel would read beyond the end of a buffer that is too short."""
    with pytest.raises(ValueError, match="a key must have 8 bytes, not 4"):
        table.get(bytes(4))
    with pytest.raises(ValueError, match="a value must have 4 bytes, not 5"):
        table.set(1, bytes(5))
    with pytest.raises(OverflowError):
        table.set(1, 2**32)


def test_batches_hold_what_was_stored(table: Map) -> None:
    """More entries than one batch call takes; iterating over keys gives the same."""
    stored = {key(n): (n * 3).to_bytes(4, "little") for n in range(3000)}
    table.update_batch(stored)
    assert dict(table.items()) == stored
    assert set(table.keys()) == set(stored)
    assert table.fill() == 3000
    assert table.delete_all() == 3000
    assert dict(table.items()) == {}


def test_full_map_is_an_error(table: Map) -> None:
    """OSError with the kernel's errno and the name of the call."""
    with create_map(MapType.HASH, "rftest_small", 8, 4, 1) as small:
        small.set(1, 1)
        with pytest.raises(OSError, match="bpf_map_update_elem") as caught:
            small.set(2, 1)
    assert caught.value.errno == errno.E2BIG


def test_trie_finds_the_longest_prefix() -> None:
    """Keys of a trie are iterated and deleted like those of a hash."""
    with create_map(MapType.LPM_TRIE, "rftest_trie", 8, 4, 16, flags=NO_PREALLOC) as trie:
        trie.set((8).to_bytes(4, "little") + bytes([10, 0, 0, 0]), 1)
        trie.set((16).to_bytes(4, "little") + bytes([10, 1, 0, 0]), 2)
        assert trie.get_int((32).to_bytes(4, "little") + bytes([10, 1, 2, 3])) == 2
        assert trie.get_int((32).to_bytes(4, "little") + bytes([10, 9, 2, 3])) == 1
        assert trie.fill() == 2
        assert trie.delete_all() == 2


def test_stack_pops_in_reverse_order() -> None:
    """push and pop; empty is None, full is E2BIG."""
    with create_map(MapType.STACK, "rftest_stack", 0, 4, 2) as stack:
        assert stack.pop() is None
        stack.push(5)
        stack.push(6)
        with pytest.raises(OSError) as caught:
            stack.push(7)
        assert caught.value.errno == errno.E2BIG
        assert [stack.pop(), stack.pop(), stack.pop()] == [6, 5, None]


def test_sums_add_up_the_cpus() -> None:
    """A per-CPU value is a row of the CPUs' values; elements are added, not bytes."""
    cpus = len(os.sched_getaffinity(0))
    with create_map(MapType.PERCPU_ARRAY, "rftest_percpu", 4, 24, 3) as counters:
        rows = counters.get(1)
        assert rows is not None
        assert len(rows) >= 24 * cpus
        width = len(rows) // 24
        values = b"".join((10**12 + cpu).to_bytes(8, "little") + bytes(15) + b"\1" for cpu in range(width))
        counters.set(1, values)
        last = 1 << 56
        assert counters.sums(1) == (width * 10**12 + sum(range(width)), 0, width * last)
        assert counters.sum(1) == width * 10**12 + sum(range(width))
        assert dict(counters.all_sums())[(0).to_bytes(4, "little")] == (0, 0, 0)


@pytest.mark.parametrize(
    "keys", [[], [0], [0, 1, 2], [7, 3, 3], [0, 17, 18, 699], range(700), range(5, 700, 40), [698, 699]]
)
def test_batched_sums_equal_single_sums(keys: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in ranges, with gaps between; and one by one on a kernel without the batch call."""
    with create_map(MapType.PERCPU_ARRAY, "rftest_percpu", 4, 16, 700) as counters:
        for key in range(700):
            row = counters.get(key)
            assert row is not None
            counters.set(key, b"".join(struct.pack("=2Q", key, 10**9 + key) for _ in range(len(row) // 16)))
        expected = {key: counters.sums(key) for key in keys}
        assert counters.sums_of(keys) == expected

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no batches here")

        monkeypatch.setattr("ringfence.bpf._maps.lookup_batch", refuse)
        assert counters.sums_of(keys) == expected


def test_array_is_shared_with_its_mapping() -> None:
    """The memory has what the map has, and cannot be written."""
    with create_map(MapType.ARRAY, "rftest_mmap", 4, 12, 4, flags=MMAPABLE) as array:
        with array.mapped() as memory:
            with pytest.raises(TypeError):
                memory[16:20] = (77).to_bytes(4, "little")
            array.set(3, bytes([9]) * 12)
            assert memory[48:60] == bytes([9]) * 12


def test_map_of_maps_swaps_its_inner_map() -> None:
    """The value of an outer map is a descriptor; the template decides which inner maps fit."""
    with (
        create_map(MapType.HASH, "rftest_in", 4, 4, 8) as first,
        create_map(MapType.HASH, "x", 4, 8, 8) as other,
    ):
        with create_map(MapType.ARRAY_OF_MAPS, "rftest_out", 4, 4, 2, inner=first) as outer:
            outer.set(0, first.fd)
            assert outer.get_int(0) > 0  # its id
            with pytest.raises(OSError):
                outer.set(1, other.fd)


def test_map_is_known_by_its_descriptor(table: Map) -> None:
    """A descriptor opened from a pin gives its sizes, type and name."""
    with open_map(os.dup(table.fd)) as again:
        table.set(3, 4)
        assert again.get_int(3) == 4
        assert (again.key_size, again.value_size, again.max_entries) == (8, 4, 5000)
        assert (again.type, again.name) == (MapType.HASH, "rftest_hash")
