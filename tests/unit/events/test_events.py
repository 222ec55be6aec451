# SPDX-License-Identifier: Apache-2.0
"""Texts of events are truncated at their end, and numbers have names."""

from __future__ import annotations

import pytest

from ringfence.abi import Counter, EventKind
from ringfence.events import ExecEvent, FileEvent, NetEvent, UnixEvent


def test_path_ends_at_its_length_or_at_a_nul() -> None:
    """Whichever comes first: bytes after it are of an earlier record."""
    assert FileEvent(path_raw=b"/etc/passwd", path_len=4).path == b"/etc"
    assert FileEvent(path_raw=b"/etc\0passwd", path_len=11).path == b"/etc"
    assert FileEvent(path_raw=b"/etc", path_len=0).path == b""


def test_arguments_keep_their_separators() -> None:
    """argv is NUL separated; only the NUL after the last one is removed."""
    assert ExecEvent(args_raw=b"sh\0-c\0\0rest", args_len=6).args == b"sh\0-c"
    assert ExecEvent(args_raw=b"sh\0\0", args_len=4).args == b"sh\0"


def test_abstract_socket_names_keep_their_nuls() -> None:
    """An abstract name is bytes of a given length; a path ends at its NUL."""
    assert UnixEvent(path_raw=b"\0a\0b\0\0", path_len=4).path == b"\0a\0b"
    assert UnixEvent(path_raw=b"/run/x\0junk", path_len=11).path == b"/run/x"
    assert UnixEvent(path_raw=b"\0\0\0\0", path_len=0).path == b""


def test_address_is_as_long_as_its_family() -> None:
    """IPv4 is in the first four bytes."""
    raw = bytes(range(16))
    assert NetEvent(family=2, address_raw=raw).address == raw[:4]
    assert NetEvent(family=10, address_raw=raw).address == raw


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (EventKind.CONTAINER_START, "container.start"),
        (EventKind.PROCESS_EXEC, "process.exec"),
        (EventKind.FILE_OPEN, "file.open"),
        (EventKind.NET_CONNECT, "network.connect"),
        (EventKind.UNIX_CONNECT, "unix.connect"),
        (EventKind.SYS_OPEN_BY_HANDLE_AT, "open_by_handle_at"),
    ],
)
def test_labels_are_the_names_in_policies(kind: EventKind, label: str) -> None:
    """The label of a kind gives the kind back."""
    assert kind.label == label
    assert EventKind.from_label(label) is kind


def test_labels_are_unique() -> None:
    """No two kinds and no two counters share a name in JSON or a metric."""
    assert len({kind.label for kind in EventKind}) == len(EventKind)
    assert len({counter.label for counter in Counter}) == len(Counter)
