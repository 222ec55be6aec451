# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer directly from its pages: no callback and no system call per record.

The layout (kernel/bpf/ringbuf.c): one page with the consumer's position, which is writable; one page
with the producers' position; the data, mapped twice in a row, so that a record never wraps. Positions
only grow. Each record has a header of 8 bytes, of which the first word is the length with two flags,
and is padded to 8.

Memory order: a producer advances its position after it wrote the header with the busy bit, and clears
that bit (xchg) after the data. So the reader loads the position, then the header, then the data, and
stores its own position last. x86 keeps that order itself (no load passes a load, no store passes an
earlier load). arm64 does not: there `_fence` does, by the release and then the acquire of a lock, in
that order a full barrier. A position is read and written as one aligned access, because an item of a
memoryview of format Q is one memcpy of 8 bytes.
"""

from __future__ import annotations

import mmap
import threading

from ringfence_linux.architecture import architecture

__all__ = ["Ring"]

_BUSY = 1 << 31
_DISCARD = 1 << 30
_HEADER = 8
_IN_ORDER = architecture().loads_in_order


class Ring:
    """The only reader of one ring. It maps the ring's pages; the caller keeps the descriptor."""

    def __init__(self, map_fd: int, size: int) -> None:
        """`size` is the map's max_entries in bytes: a power of two, and a multiple of the page size."""
        page = mmap.PAGESIZE
        self._fd = map_fd
        self._size = size
        self._mask = size - 1
        self._consumer_map = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_map = mmap.mmap(map_fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._position = self._consumer[0]  # of the next record to read
        self._producer = memoryview(self._producer_map)[:page].cast("Q")
        self._words = memoryview(self._producer_map)[page:].cast("I")
        self._page = page
        self._lock = threading.Lock()
        self._lock.acquire()

    def fileno(self) -> int:
        """Returns a descriptor for epoll: readable while records wait."""
        return self._fd

    def pending(self) -> int:
        """Returns the number of bytes that are reserved or committed and not yet read."""
        return self._producer[0] - self._consumer[0]

    def read(self, max_records: int = 4096, *, keep: bool = False) -> list[bytes]:
        """Returns copies of up to `max_records` committed records, the oldest first; empty: none ready.

        `keep`: they stay in the ring until `commit`, and a later reader of the ring finds them.

        A record that is reserved and not yet committed holds back later ones.
        """
        begin = position = self._position
        end = self._producer[0]
        self._fence()
        words, mask, base = self._words, self._mask, self._page + _HEADER
        spans: list[tuple[int, int]] = []
        while position < end and len(spans) < max_records:
            offset = position & mask
            length = words[offset >> 2]
            if length >= _DISCARD:
                if length & _BUSY:
                    break
                length &= ~_DISCARD
            else:
                spans.append((base + offset, base + offset + length))
            position += (length + _HEADER + 7) & ~7
        if position == begin:
            return []
        self._fence()
        pages = self._producer_map
        records = [pages[first:last] for first, last in spans]
        self._position = position
        if not keep:
            self.commit()
        return records

    def commit(self) -> None:
        """Frees the space of everything that was read."""
        self._fence()
        self._consumer[0] = self._position  # the kernel may now write there

    def _fence(self) -> None:
        if not _IN_ORDER:
            self._lock.release()
            self._lock.acquire()

    def close(self) -> None:
        """Unmaps the pages. Records already read stay valid; no more can be read."""
        for view in (self._consumer, self._producer, self._words):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
