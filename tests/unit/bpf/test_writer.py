# SPDX-License-Identifier: Apache-2.0
"""How entries are handed to the program that writes maps."""

from __future__ import annotations

import errno
from struct import unpack

import pytest

from ringfence.abi import WRITE_BATCH, WRITE_DELETE, WRITE_SET, WRITE_TICKETS
from ringfence.bpf import writer
from ringfence.bpf.writer import Writer


class Program:
    """Answers runs in order, and keeps what it was asked."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int, int]] = []  # operation, number of entries, flags

    def run(self, _fd: int, context: bytes) -> int:
        what, _, _, count, flags = unpack("=5Q", context)
        assert what & 0xFF == WRITE_TICKETS
        self.asked.append((what >> 8 & 0xFF, count, flags))
        return self.answers.pop(0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_PAUSE", 0.0)


def writes(monkeypatch: pytest.MonkeyPatch, *answers: int) -> tuple[Writer, Program]:
    """A writer, and its program."""
    program = Program(*answers)
    monkeypatch.setattr("ringfence.bpf._syscalls.run_program", program.run)
    return Writer(-1), program


def test_many_entries_are_written_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that wrote a part is continued after it."""
    made, program = writes(monkeypatch, WRITE_BATCH, 10, 34)
    made.set(WRITE_TICKETS, bytes(4 * 300), bytes(16 * 300), 300, flags=1)
    assert program.asked == [
        (WRITE_SET, WRITE_BATCH, 1),
        (WRITE_SET, 44, 1),
        (WRITE_SET, 34, 1),
    ]


def test_no_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a page that the program could not read."""
    made, program = writes(monkeypatch, -errno.ENOMEM, -errno.EBUSY, -errno.EFAULT, 1)
    made.set(WRITE_TICKETS, bytes(4), bytes(16), 1)
    assert len(program.asked) == 4


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EEXIST, FileExistsError), (errno.EPERM, PermissionError), (errno.E2BIG, OSError)],
)
def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch, code: int, kind: type[OSError]) -> None:
    """At once, as the call would raise them."""
    made, program = writes(monkeypatch, -code)
    with pytest.raises(kind) as caught:
        made.set(WRITE_TICKETS, bytes(4), bytes(16), 1)
    assert caught.value.errno == code
    assert len(program.asked) == 1


def test_absent_keys_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four keys were there."""
    made, program = writes(monkeypatch, 1, -errno.ENOENT, -errno.ENOENT, 1)
    assert made.delete(WRITE_TICKETS, bytes(16), 4) == 2
    assert program.asked == [(WRITE_DELETE, count, 0) for count in (4, 3, 2, 1)]


def test_a_stack_gives_its_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """None if it is empty; 0 is a value."""
    made, _ = writes(monkeypatch, 7, 0, -errno.ENOENT)
    assert [made.pop(WRITE_TICKETS) for _ in range(3)] == [7, 0, None]
