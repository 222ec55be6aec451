# SPDX-License-Identifier: Apache-2.0
"""The ring's reader, on a ring that the test writes: a memfd with the kernel's layout."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from ringfence.bpf.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARD = 1 << 31, 1 << 30


class FakeRing:
    """The producers' side. The data is written at both places of the kernel's double mapping."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.position = 0

    def _store(self, offset: int, data: bytes) -> None:
        offset %= SIZE
        for place in (offset, offset + SIZE):
            os.pwrite(self.fd, data[: 2 * SIZE - place], 2 * PAGE + place)
        if offset + len(data) > SIZE:  # what runs over the end is the beginning, too
            os.pwrite(self.fd, data[SIZE - offset :], 2 * PAGE)

    def reserve(self, length: int) -> int:
        """A record that is not committed; gives where it is."""
        at = self.position
        self._store(at, (length | BUSY).to_bytes(4, "little"))
        self.position += (length + 15) // 8 * 8
        os.pwrite(self.fd, self.position.to_bytes(8, "little"), PAGE)
        return at

    def commit(self, at: int, data: bytes, flags: int = 0) -> None:
        self._store(at + 8, data)
        self._store(at, (len(data) | flags).to_bytes(4, "little"))

    def send(self, data: bytes) -> None:
        self.commit(self.reserve(len(data)), data)

    def consumed(self) -> int:
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")


@pytest.fixture
def producer() -> Iterator[FakeRing]:
    """A ring that frees its pages at the end."""
    fake = FakeRing()
    yield fake
    os.close(fake.fd)


@pytest.fixture
def ring(producer: FakeRing) -> Iterator[Ring]:
    """The reader of the producer's ring."""
    with Ring(producer.fd, SIZE) as made:
        yield made


def test_empty_ring_gives_nothing(ring: Ring, producer: FakeRing) -> None:
    """Without a record the position does not change."""
    assert ring.read() == []
    assert (ring.pending(), producer.consumed()) == (0, 0)


def test_records_come_in_order_and_whole(ring: Ring, producer: FakeRing) -> None:
    """Lengths that are not a multiple of 8 are exact."""
    sent = [bytes([n]) * n for n in (1, 7, 8, 9, 100)]
    for record in sent:
        producer.send(record)
    assert ring.pending() == producer.position
    assert ring.read() == sent
    assert ring.pending() == 0
    assert producer.consumed() == producer.position


def test_busy_record_holds_back_what_follows(ring: Ring, producer: FakeRing) -> None:
    """Order is kept: no record is read before an earlier one that is being written."""
    producer.send(b"first")
    busy = producer.reserve(5)
    producer.send(b"third")
    assert ring.read() == [b"first"]
    assert ring.read() == []
    assert ring.pending() == producer.position - 16
    producer.commit(busy, b"secnd")
    assert ring.read() == [b"secnd", b"third"]


def test_discarded_record_is_skipped(ring: Ring, producer: FakeRing) -> None:
    """Its space is freed, and it is not returned."""
    producer.commit(producer.reserve(24), bytes(24), DISCARD)
    producer.send(b"kept")
    assert ring.read() == [b"kept"]
    producer.commit(producer.reserve(8), bytes(8), DISCARD)
    assert ring.read() == []
    assert ring.pending() == 0


def test_record_across_the_end_is_one_piece(ring: Ring, producer: FakeRing) -> None:
    """The second mapping of the data makes the end and the beginning neighbours."""
    for turn in range(50):
        record = bytes([turn]) * 1000
        producer.send(record)
        assert ring.read() == [record]
    assert producer.position > 10 * SIZE


def test_batch_is_bounded(ring: Ring, producer: FakeRing) -> None:
    """At most the requested number; the rest stays."""
    for number in range(10):
        producer.send(bytes([number]))
    assert [record[0] for record in ring.read(4)] == [0, 1, 2, 3]
    assert [record[0] for record in ring.read(100)] == [4, 5, 6, 7, 8, 9]


def test_records_outlive_the_ring(producer: FakeRing) -> None:
    """A read record is a copy: the kernel may overwrite its place immediately."""
    with Ring(producer.fd, SIZE) as ring:
        producer.send(b"mine")
        (record,) = ring.read()
        for _ in range(300):
            producer.send(b"other")
            ring.read()
    assert record == b"mine"


def test_fences_keep_the_result(ring: Ring, producer: FakeRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fences of arm64 do not change the result."""
    monkeypatch.setattr("ringfence.bpf.ring._IN_ORDER", False)
    producer.send(b"one")
    producer.send(b"two")
    assert ring.read() == [b"one", b"two"]
