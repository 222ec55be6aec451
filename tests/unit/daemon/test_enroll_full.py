# SPDX-License-Identifier: Apache-2.0
"""More runtimes ask at once than are heard: the next one is turned away and counted, and those before it
are not."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, cast
from unittest import mock

from ringfence.daemon.enroll import Enroller
from ringfence.daemon.loop import Loop
from tests.support import force
from tests.unit.daemon.test_loop import FakeRing


def test_a_caller_too_many_is_turned_away(tmp_path: Path) -> None:
    """It sees the end of its connection; the callers that wait are still there."""
    if os.geteuid() != 0:
        force.need_root()
    loop = Loop(FakeRing(), FakeRing(), lambda alerts, activity: None)
    nobody = cast(Any, mock.Mock())
    enroller = Enroller(tmp_path / "enroll.sock", loop, nobody, nobody, nobody)
    enroller.start()
    callers: list[socket.socket] = []
    try:
        _, most = enroller.room
        for _ in range(most + 1):
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            caller.connect(str(tmp_path / "enroll.sock"))
            callers.append(caller)
            loop.turn()
        assert enroller.room == (most, most)
        assert enroller.results["busy"] == 1
        callers[-1].settimeout(5)
        assert callers[-1].recv(10) == b""
        callers[0].setblocking(False)
        try:
            callers[0].recv(10)
        except BlockingIOError:
            pass
        else:
            raise AssertionError("the first caller was turned away")
    finally:
        for caller in callers:
            caller.close()
        enroller.close()
        loop.close()
