# SPDX-License-Identifier: Apache-2.0
"""More runtimes connect at once than are served, or than there are descriptors for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from ringfence.daemon.loop import Loop
from ringfence.daemon.tracking.enroll_socket import EnrollSocket
from ringfence.faults import ACCEPT_PAUSE
from tests.support.descriptors import no_descriptors
from tests.support.waiting import wait_for
from tests.unit.daemon.test_loop import FakeRing


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that the test turns."""
    made = Loop(cast(Any, FakeRing()), cast(Any, FakeRing()))
    yield made
    made.close()


@pytest.fixture
def enroll_socket(tmp_path: Path, loop: Loop) -> Iterator[EnrollSocket]:
    """It listens; nothing is enrolled."""
    nobody = cast(Any, mock.Mock())
    made = EnrollSocket(tmp_path / "enroll.sock", loop, nobody, nobody, nobody, lambda connection: False)
    made.start()
    yield made
    made.close()


def no_records(_alerts: Sequence[bytes], _activity: Sequence[bytes]) -> None:
    """The rings are empty."""


def counted(enroll_socket: EnrollSocket) -> dict[str, float]:
    """Requests by result."""
    results = next(iter(enroll_socket.samples()))
    return {sample.labels["result"]: sample.value for sample in results.samples}


def call(directory: Path) -> socket.socket:
    """A runtime that has connected."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(str(directory / "enroll.sock"))
    return caller


def test_a_caller_above_the_limit_is_rejected(
    tmp_path: Path, loop: Loop, enroll_socket: EnrollSocket
) -> None:
    """It sees the end of its connection, and is counted; the callers that wait are still there."""
    callers: list[socket.socket] = []
    try:
        _, most = enroll_socket.capacity
        for _ in range(most + 1):
            callers.append(call(tmp_path))
            loop.turn(no_records)
        assert enroll_socket.capacity == (most, most)
        assert counted(enroll_socket)["busy"] == 1
        callers[-1].settimeout(5)
        assert callers[-1].recv(10) == b""
        callers[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            callers[0].recv(10)
    finally:
        for caller in callers:
            caller.close()


def test_without_descriptors_the_loop_is_not_woken_for_nothing(
    tmp_path: Path, loop: Loop, enroll_socket: EnrollSocket
) -> None:
    """EMFILE: a caller waits, and is served as soon as there is a descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        with no_descriptors():
            caller.connect(str(tmp_path / "enroll.sock"))
            loop.turn(no_records)
            began, turns = time.monotonic(), 0
            while time.monotonic() - began < ACCEPT_PAUSE / 2:
                loop.turn(no_records, ACCEPT_PAUSE / 4)
                turns += 1
            assert turns <= 3
            assert enroll_socket.capacity[0] == 0

        def served() -> bool:
            loop.turn(no_records, 0.01)
            return enroll_socket.capacity[0] == 1

        wait_for(served, "the caller to be served")


def test_a_deleted_socket_comes_back(tmp_path: Path, loop: Loop, enroll_socket: EnrollSocket) -> None:
    """Runtimes find it again at its path."""
    assert enroll_socket.as_left()
    (tmp_path / "enroll.sock").unlink()
    assert not enroll_socket.as_left()
    enroll_socket.renew()
    assert enroll_socket.as_left()
    with call(tmp_path) as caller:
        caller.send(b"nonsense")
        loop.turn(no_records, 1.0)
        assert counted(enroll_socket)["refused"] == 1
