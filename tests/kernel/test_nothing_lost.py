# SPDX-License-Identifier: Apache-2.0
"""Nothing is thrown away: a gap, a stop, a full disk and a flipped bit lose no readable alert.

Each is short by default. The figures of docs/reference/faults.md are those of `RINGFENCE_GAP=80`,
`RINGFENCE_STOPPED=60` and `RINGFENCE_FULL_DISK=4000`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import force
from tests.support.agent import Agent, free_port, pinned_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import user_namespace
from tests.support.receivers import Receiver, http_receiver
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

LABEL = "whole"
RULE = "whole-user-namespace"
SECONDS = {
    "gap": float(os.environ.get("RINGFENCE_GAP", "3")),
    "stop": float(os.environ.get("RINGFENCE_STOPPED", "3")),
}
ALERTS = int(os.environ.get("RINGFENCE_FULL_DISK", "150"))
PACE = 1.1  # seconds between two attempts: more than `alerts.rate` and `alerts.repeat` ask for
DISK = 64 << 10  # bytes
LOOP = "i=0; while [ $i -lt {count} ]; do unshare --user true; i=$((i+1)); done"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with one rule, which kills."""
    force.need_root()
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "whole.yaml").write_text(user_namespace("whole"))
    return directory


def sending(port: int, queue: Path, **more: str) -> list[str]:
    """Returns the flags of an agent that sends alerts to that port of the loopback."""
    flags = {
        "alerts-webhook": f"http://127.0.0.1:{port}/hook", "alerts-queue-dir": str(queue),
        "alerts-identity-wait": "0", "alerts-timeout": "5", **more,
    }  # fmt: skip
    return [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", value)]


@contextlib.contextmanager
def new_agent(directory: Path, policies: Path, *flags: str) -> Iterator[Agent]:
    """An agent that enforces that one rule, not started, with pins of its own."""
    patterns = [f"{PREFIX}{LABEL}-*"]
    with pinned_agent(directory, policies=[policies], mode="policy", patterns=patterns) as made:
        made.argv += flags
        yield made


@contextlib.contextmanager
def full_soon(directory: Path) -> Iterator[Path]:
    """A disk of 64 KiB of the test's own."""
    directory.mkdir()
    options = f"size={DISK},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "rftest-whole", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def attempt(cgroup: Cgroup) -> None:
    """What the rule kills for."""
    assert cgroup.run(["unshare", "--user", "true"]).returncode == -signal.SIGKILL


def attempts(cgroup: Cgroup, seconds: float) -> int:
    """Makes attempts at a pace that no limit suppresses; returns how many."""
    made, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        attempt(cgroup)
        made += 1
        time.sleep(PACE)
    return made


def ids(agent: Agent) -> list[str]:
    """Returns the ids of the alerts that the agent wrote as lines."""
    return [record["id"] for record in agent.alerts(rule=RULE)]


def wait_written(agent: Agent, count: int) -> None:
    """Waits until the agent has written so many alerts as lines."""
    wait_for(lambda: len(ids(agent)) >= count, "the line")


def wait_delivered(receiver: Receiver, wanted: list[str], seconds: float = 30) -> None:
    """Waits until the receiver has these alerts."""
    wait_for(lambda: set(wanted) <= set(receiver.alerts()), "every alert to arrive", seconds=seconds)


def lost(agent: Agent) -> dict[str, int]:
    """Returns the alerts that the receiver will never get, by reason, as the metrics count them."""
    return {
        dict(labels)["reason"]: int(value)
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_receiver_lost_total" and value
    }


def logged(agent: Agent) -> dict[str, int]:
    """Returns the same, as the log has it."""
    found: dict[str, int] = {}
    for line in agent.log.read_text().splitlines():
        record = json.loads(line)
        if record.get("message") == "lost" and str(record["where"]).startswith("webhook"):
            found[record["reason"]] = found.get(record["reason"], 0) + record["number"]
    return found


@pytest.mark.parametrize("how", ["gap", "stop"])
def test_each_attempt_of_a_gap_or_a_stop_is_a_line_and_is_delivered(
    policies: Path, tmp_path: Path, how: str
) -> None:
    """They arrive together, but happened one by one: an allowance of two suppresses none of them."""
    with http_receiver() as receiver, new_cgroup(LABEL) as cgroup:
        port = int(receiver.url.split(":")[2].split("/")[0])
        flags = sending(port, tmp_path / "queue", alerts_burst="2")
        with new_agent(tmp_path / "agent", policies, *flags) as agent:
            agent.start()
            os.kill(agent.pid, signal.SIGKILL if how == "gap" else signal.SIGSTOP)
            if how == "gap":
                wait_for(lambda: agent.status is not None, "the end")
            made = attempts(cgroup, SECONDS[how])
            if how == "gap":
                agent.start()
            else:
                os.kill(agent.pid, signal.SIGCONT)
            wait_for(lambda: len(ids(agent)) >= made, f"{made} lines")
            wait_delivered(receiver, ids(agent))
            assert len(set(ids(agent))) == made
            assert not [one for one in agent.alerts(rule=RULE) if one.get("suppressed")]
            assert (lost(agent), logged(agent)) == ({}, {})
    assert made > SECONDS[how] / (2 * PACE)


def test_a_full_disk_loses_only_what_is_counted_and_logged(policies: Path, tmp_path: Path) -> None:
    """The queue's disk is full and the receiver away: delivered + lost = lines. Up to 4 MiB none is lost."""
    port = free_port()
    plenty = {
        "alerts_rate": "1000000", "alerts_burst": "1000000", "alerts_repeat": "0", "verdicts_rate": "0",
    }  # fmt: skip
    with full_soon(tmp_path / "queue") as disk, new_cgroup(LABEL) as cgroup:
        flags = sending(port, disk, **plenty)
        with new_agent(tmp_path / "agent", policies, *flags) as agent:
            agent.start()
            loop = ["sh", "-c", LOOP.format(count=ALERTS)]
            cgroup.run(loop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: len(ids(agent)) >= ALERTS, f"{ALERTS} lines", seconds=60)
            held = os.statvfs(disk)
            assert held.f_bavail * held.f_frsize < 4096, "the disk is not full"
            with http_receiver(port) as receiver:
                wanted = {record["id"] for record in agent.alerts()}  # findings of detectors, too
                wait_for(
                    lambda: len(wanted & set(receiver.alerts())) + sum(lost(agent).values()) == len(wanted),
                    "each alert to be delivered or counted", seconds=120,
                )  # fmt: skip
                gone = lost(agent)
                wait_for(lambda: logged(agent) == gone, "the losses to be logged", seconds=70)
    assert set(gone) <= {"disk_error"}
    assert bool(gone) == (ALERTS > 3500), (gone, "4 MiB hold some 3,100 of these alerts")


def test_a_flipped_bit_costs_the_record_that_it_is_in(policies: Path, tmp_path: Path) -> None:
    """The receiver is away, the agent dies, a bit flips: the next agent delivers all others."""
    port, queue = free_port(), tmp_path / "queue"
    flags = sending(port, queue, alerts_repeat="0")
    with new_agent(tmp_path / "agent", policies, *flags) as agent, new_cgroup(LABEL) as cgroup:
        agent.start()
        for number in range(7):
            attempt(cgroup)
            wait_written(agent, number + 1)
        before = ids(agent)
        wait_for(lambda: flip(queue, before[3], dry=True) and flip(queue, before[6], dry=True), "the queue")
        os.kill(agent.pid, signal.SIGKILL)
        wait_for(lambda: agent.status is not None, "the end")
        assert flip(queue, before[3])
        with http_receiver(port) as receiver:
            agent.start()
            wait_delivered(receiver, [*before[:3], *before[4:]])
            assert before[3] not in receiver.alerts()
            assert lost(agent) == {"corrupt": 1}
            wait_for(lambda: logged(agent) == {"corrupt": 1}, "the loss to be logged")
    damaged = [line for line in agent.log.read_text().splitlines() if "damaged alerts of a queue" in line]
    assert [json.loads(line)["records"] for line in damaged] == [1]


def flip(queue: Path, alert: str, *, dry: bool = False) -> bool:
    """Flips one bit of the id of a queued alert. Returns False if it is not in the queue."""
    for path in queue.glob("*/*.seg"):
        data = bytearray(path.read_bytes())
        at = data.find(f'"{alert}"'.encode())
        if at >= 0:
            data[at + 2] ^= 0x04
            if not dry:
                path.write_bytes(data)
            return True
    return False
