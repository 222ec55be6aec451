# SPDX-License-Identifier: Apache-2.0
"""Runs every row of a table once, against one agent, and keeps what was seen."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.escape.program import Attempt
from tests.escape.rows import Row
from tests.escape.stage import Stage, new_stage
from tests.support.agent import Agent, Record, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, make_rootfs
from tests.support.waiting import patience

__all__ = ["Result", "run_campaign"]

PATTERNS = (f"{PREFIX}attack*", f"{PREFIX}twin*")
VERDICTS = ("alert", "kill", "deny")


class Result(NamedTuple):
    """What came of one row. `alerts` are those of the row's own rule."""

    attack: Attempt
    alerts: list[Record]
    twin: Attempt
    twin_verdicts: dict[str, float]  # verdicts counted in the kernel for the twin's container, during its run


def run_campaign(rows: Sequence[Row], policies: Sequence[Path], mode: str, busybox: str) -> dict[str, Result]:
    """Every attack and every twin, the twins in containers of their own."""
    with tempfile.TemporaryDirectory(prefix="rfescape-") as name, ExitStack() as stack:
        directory = Path(name)
        rootfs = make_rootfs(directory / "rootfs", busybox=busybox)
        agent = stack.enter_context(
            running_agent(directory / "agent", policies=policies, mode=mode, patterns=PATTERNS)
        )
        stages = {
            label: stack.enter_context(_stage(directory, rootfs, label))
            for label in ("attack", "attack-hostpid", "twin", "twin-hostpid")
        }
        results = {}
        for row in rows:
            attacker = stages["attack-hostpid" if row.host_pid else "attack"]
            lawful = stages["twin-hostpid" if row.host_pid and not row.plain_twin else "twin"]
            attack = attacker.run(row.attack.split())
            before = _verdicts(agent, lawful)
            twin = lawful.run(row.twin.split())
            after = _verdicts(agent, lawful)
            moved = {kind: after[kind] - before[kind] for kind in VERDICTS if after[kind] != before[kind]}
            alerts = _alerts(agent, attacker, row.rule, attack)
            results[row.rule] = Result(attack, alerts, twin, moved)
        return results


@contextmanager
def _stage(directory: Path, rootfs: Path, label: str) -> Iterator[Stage]:
    own = directory / label
    own.mkdir()
    with new_stage(Bundle(own, rootfs), label, host_pid=label.endswith("hostpid"), directory=own) as stage:
        stage.container.exec("/bin/sh", "-c", "echo x > /tmp/token; echo x > /tmp/mode")
        yield stage


def _alerts(agent: Agent, stage: Stage, rule: str, attack: Attempt) -> list[Record]:
    """Alerts of the rule about this attempt, waiting up to two seconds for the first."""
    end = time.monotonic() + patience(2)
    while True:
        found = agent.alerts(stage.container.name, rule)
        if found or attack.absent or not attack.tried or time.monotonic() > end:
            return found
        time.sleep(0.005)


def _verdicts(agent: Agent, stage: Stage) -> dict[str, float]:
    """The kernel's own count for this container: no rate limit, no delay."""
    counts = dict.fromkeys(VERDICTS, 0.0)
    for (name, labels), value in agent.metrics().items():
        words = dict(labels)
        ours = name == "ringfence_container_activity_total" and words["container"] == stage.container.name
        if ours and words["class"] in counts:
            counts[words["class"]] = value
    return counts
