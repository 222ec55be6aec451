# SPDX-License-Identifier: Apache-2.0
"""More runtimes ask at once than are heard, or than there are descriptors for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
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
    made = Loop(FakeRing(), FakeRing(), lambda alerts, activity: None)
    yield made
    made.close()


@pytest.fixture
def enroll_socket(tmp_path: Path, loop: Loop) -> Iterator[EnrollSocket]:
    """It listens; nothing is entered anywhere."""
    nobody = cast(Any, mock.Mock())
    made = EnrollSocket(tmp_path / "enroll.sock", loop, nobody, nobody, nobody, lambda connection: False)
    made.start()
    yield made
    made.close()


def call(directory: Path) -> socket.socket:
    """A runtime that has connected."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(str(directory / "enroll.sock"))
    return caller


def test_a_caller_too_many_is_turned_away(tmp_path: Path, loop: Loop, enroll_socket: EnrollSocket) -> None:
    """It sees the end of its connection, and is counted; the callers that wait are still there."""
    callers: list[socket.socket] = []
    try:
        _, most = enroll_socket.room
        for _ in range(most + 1):
            callers.append(call(tmp_path))
            loop.turn()
        assert enroll_socket.room == (most, most)
        assert enroll_socket.results["busy"] == 1
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
    """EMFILE: who calls waits, and is heard as soon as there is a descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        with no_descriptors():
            caller.connect(str(tmp_path / "enroll.sock"))
            loop.turn()
            began, turns = time.monotonic(), 0
            while time.monotonic() - began < ACCEPT_PAUSE / 2:
                loop.turn(ACCEPT_PAUSE / 4)
                turns += 1
            assert turns <= 3
            assert enroll_socket.room[0] == 0

        def heard() -> bool:
            loop.turn(0.01)
            return enroll_socket.room[0] == 1

        wait_for(heard, "the caller to be heard")
