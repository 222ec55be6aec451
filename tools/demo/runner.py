# SPDX-License-Identifier: Apache-2.0
"""Runs the attempts against an agent, and a benign workload at the same time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from ringfence.proof.program import SETUP
from tests.escape.attack_target import AttackTarget
from tests.escape.program import Attempt as Ran
from tests.support.agent import Agent, Record
from tests.support.container import Container
from tests.support.waiting import patience
from tools.demo.attempts import Attempt

__all__ = ["BENIGN", "Row", "benign_ended_well", "start_benign", "try_all"]

# Benign work of a container: files, archives, pipes, another user, its own network, its own /proc.
BENIGN = """
set -e
rounds=0
while [ ! -e /tmp/enough ]; do
  mkdir -p /tmp/work/in /tmp/work/out
  for name in a b c; do seq 1 500 > /tmp/work/in/$name; done
  tar -C /tmp/work -czf /tmp/work/in.tgz in && tar -C /tmp/work/out -xzf /tmp/work/in.tgz
  cmp /tmp/work/in/a /tmp/work/out/in/a
  grep -c 7 /tmp/work/in/b | sort -n > /dev/null
  chmod 750 /tmp/work/in && ln -sf in/a /tmp/work/link && cat /tmp/work/link > /dev/null
  cat /proc/self/status /proc/meminfo /sys/kernel/mm/transparent_hugepage/enabled > /dev/null 2>&1 || true
  echo hello | nc -w 1 127.0.0.1 1 > /dev/null 2>&1 || true
  cat /proc/sys/kernel/hostname > /dev/null
  sleep 0.1 & wait
  rm -r /tmp/work
  rounds=$((rounds + 1))
done
echo "benign rounds $rounds"
"""


class Row(NamedTuple):
    """The result of one attempt."""

    attempt: Attempt
    ran: Ran
    alert: Record | None
    delay_ms: float  # from just before the call until its line was read

    @property
    def stopped(self) -> bool:
        """True if the kernel refused the call or killed the task."""
        return self.alert is not None and self.alert["outcome"] in ("denied", "killed")

    @property
    def as_wanted(self) -> bool:
        """True if it was reported, and stopped if required; or this kernel lacks the target."""
        if self.ran.absent:
            return True
        if self.alert is None:
            return False
        if not self.ran.tried:
            return self.stopped and bool(self.attempt.earlier) and self.ran.status == SETUP
        return not self.attempt.stop or (self.stopped and (self.ran.killed or self.ran.refused))


def try_all(
    agent: Agent, attempts: Sequence[Attempt], plain: AttackTarget, host_pid: AttackTarget
) -> list[Row]:
    """Runs the attempts in sequence; each waits at most two seconds for its alert."""
    rows = []
    for attempt in attempts:
        target = host_pid if attempt.host_pid else plain
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ran = target.run(attempt.attack)
        events, since = (attempt.events, ran.at_ns) if ran.tried else (attempt.earlier, began)
        alert, arrived = (None, 0) if ran.absent else _alert_of(agent, target, attempt, events, since)
        rows.append(Row(attempt, ran, alert, (arrived - since) / 1e6))
    return rows


def _alert_of(
    agent: Agent, target: AttackTarget, attempt: Attempt, events: Sequence[str], since_ns: int
) -> tuple[Record | None, int]:
    """Returns the attempt's strongest alert: for its container, of these events, received after its call."""
    end = time.monotonic() + patience(2)
    while True:
        found = [
            (record, arrived)
            for record, arrived in zip(list(agent.records), list(agent.arrived), strict=False)
            if record.get("kind") == "alert"
            and arrived > since_ns
            and record["container"]["id"] == target.container.name
            and record["event"] in events
        ]
        stopping = [one for one in found if one[0]["outcome"] in ("denied", "killed")]
        enough = stopping or (found and not attempt.stop)
        if enough or time.monotonic() > end:
            best = stopping or found
            return best[0] if best else (None, 0)
        time.sleep(0.002)


def start_benign(container: Container) -> subprocess.Popen[str]:
    """Starts the benign workload inside the container."""
    return subprocess.Popen(
        container.command(["/bin/sh", "-c", BENIGN]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def benign_ended_well(agent: Agent, container: Container, process: subprocess.Popen[str]) -> tuple[bool, str]:
    """Ends the workload. Returns (True if it succeeded without an alert, a line for the output)."""
    container.exec("/bin/touch", "/tmp/enough")
    try:
        said, _ = process.communicate(timeout=patience(20))
    except subprocess.TimeoutExpired:
        process.kill()
        return False, "the benign workload did not end"
    alerts = agent.alerts(container.name)
    if process.returncode:
        return False, f"the benign workload ended with status {process.returncode}: {said.strip()[-300:]}"
    if alerts:
        return (
            False,
            f"{len(alerts)} alerts about the benign workload, the first of rule {alerts[0]['rule']['id']}",
        )
    return True, f"{said.strip().splitlines()[-1]}; no false positive"
