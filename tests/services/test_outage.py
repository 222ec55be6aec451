# SPDX-License-Identifier: Apache-2.0
"""An unavailable receiver in real time: seconds by default, ten minutes with RINGFENCE_OUTAGE=600.

Meanwhile alerts come, and the process that queues them is killed with SIGKILL, and begun again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ringfence.export.sinks.sender import BACKOFF_MOST
from tests.support.agent import free_port
from tests.support.receivers import alert, http_receiver
from tests.support.waiting import patience, wait_for

AWAY = float(os.environ.get("RINGFENCE_OUTAGE", "8"))
EVERY = 0.1  # seconds between two alerts
LIVES = 3  # of the process that queues them
#: queues alerts as the agent does, and prints the number of each that its file holds
CHILD = """
import itertools, sys, time
from pathlib import Path
from ringfence.config import load
from ringfence.export.sinks.outbox import outbox_of
from tests.support.receivers import alert

box = outbox_of(load(Path(sys.argv[1]), {}), lambda name, text: None)
box.start()
spool = box.senders[0].spool
for number in itertools.count(int(sys.argv[2])):
    held = spool.held
    box.put(alert(number))
    until = time.monotonic() + 60
    while spool.held == held and time.monotonic() < until:  # one that is sent at once is never seen held
        time.sleep(0.001)
    print(number, flush=True)
    time.sleep(float(sys.argv[3]))
"""


class Queuer:
    """The child, and what it has queued."""

    def __init__(self, config: Path, first: int) -> None:
        argv = [sys.executable, "-c", CHILD, str(config), str(first), str(EVERY)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()  # it works from here on

    def kill(self) -> list[int]:
        """SIGKILL; the numbers that were on disk by then."""
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.stdout is not None
        numbers = [int(line) for line in (self.first + self.process.stdout.read()).split()]
        self.process.wait(patience(60))
        return numbers


@pytest.mark.slow
def test_an_outage_loses_nothing(tmp_path: Path) -> None:
    """Every alert that was on disk arrives, once the receiver is back, in order."""
    port = free_port()
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"alerts: {{webhook: ['http://127.0.0.1:{port}/hook'], queue_dir: {tmp_path}/queue, timeout: 5}}\n"
    )
    queued: list[int] = []
    for _ in range(LIVES):
        child = Queuer(config, len(queued))
        time.sleep(AWAY / LIVES)
        queued += child.kill()
    assert len(queued) > AWAY, "too little was queued to say anything"
    with http_receiver(port) as receiver:
        last = Queuer(config, len(queued))
        try:
            wanted = {str(alert(number)["id"]) for number in queued}
            seconds = BACKOFF_MOST + 30
            wait_for(lambda: wanted <= set(receiver.alerts()), "all that was queued", seconds=seconds)
        finally:
            last.kill()
        order = list(dict.fromkeys(receiver.alerts()))
    assert order[: len(queued)] == [str(alert(number)["id"]) for number in queued]
