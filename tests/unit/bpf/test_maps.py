# SPDX-License-Identifier: Apache-2.0
"""Errors of the kernel while a map is read in batches."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest

from ringfence.bpf import maps
from ringfence.bpf.maps import Map, MapType


class Kernel:
    """Answers a batch with an error, and notes for how many entries it was asked."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.asked = list(errors), list[int]()

    def lookup_batch(self, fd: int, token: Any, count: int, key: int, value: int) -> Any:
        """One call. After the errors: an empty last batch."""
        self.asked.append(count)
        if self.errors:
            raise OSError(self.errors.pop(0), "refused")
        return cast(Any, type("Batch", (), {"keys": b"", "values": b"", "token": None}))


@pytest.fixture
def table() -> Map:
    """A map that exists nowhere."""
    return Map(-1, 4, 8, 1000, MapType.HASH, "table")


def test_a_batch_that_does_not_fit_is_asked_for_with_more_room(
    table: Map, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket of a hash map may have more entries than one batch."""
    kernel = Kernel(errno.ENOSPC, errno.ENOSPC)
    monkeypatch.setattr(maps, "_maps", kernel)
    assert list(table.items()) == []
    assert kernel.asked == [kernel.asked[0], kernel.asked[0] * 2, kernel.asked[0] * 4]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.EBADF])
def test_any_other_error_ends_the_reading(table: Map, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """And is not hidden by a slower way, or by asking again."""
    for read in (lambda: list(table.items()), table.fill):
        kernel = Kernel(number)
        monkeypatch.setattr(maps, "_maps", kernel)
        with pytest.raises(OSError, match="refused"):
            read()
        assert len(kernel.asked) == 1
