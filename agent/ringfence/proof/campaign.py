# SPDX-License-Identifier: Apache-2.0
"""Runs cases once against one agent, and keeps what was seen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ringfence.proof.agent import Ask, PrivateAgent, Record, private_agent
from ringfence.proof.box import Box, make_root, new_box, privileged_config
from ringfence.proof.bundles import bundle
from ringfence.proof.cases import Case
from ringfence.proof.program import Attempt
from ringfence.proof.props import Props, new_props

__all__ = ["Result", "Stage", "run_cases"]

_SAME_SECONDS = 1.05  # ringfence.response.limiter: `same_ns`, and a little
_NOTHING = Attempt("start", 0, 0, "worked 0")


@dataclass(frozen=True)
class Stage:
    """Where and with what: `directory` is empty, `prefix` begins the names of all cgroups that are made."""

    directory: Path
    prefix: str
    runtime: Sequence[str]
    ask: Ask
    patience: float = 1.0  # how much slower than usual this machine is


class Result(NamedTuple):
    """What came of one case in one mode. `alerts` are those of the case's own rule."""

    case: Case
    mode: str
    attack: Attempt
    alerts: list[Record]
    twin: Attempt
    twin_verdicts: Mapping[
        str, int
    ]  # verdicts counted in the kernel for the twin's container, during its run
    twin_alerts: list[Record]
    claims: frozenset[tuple[str, str]]  # what the agent says that the rule comes to, and by what
    missing: str = ""  # why it was not tried


def run_cases(cases: Iterable[Case], policies: Sequence[Path], mode: str, stage: Stage) -> Iterator[Result]:
    """Every attack and every twin, the twins in containers of their own."""
    with ExitStack() as stack:
        directory = stage.directory / mode
        directory.mkdir(parents=True)
        props = stack.enter_context(new_props(directory, f"{stage.prefix}beside-{os.getpid()}"))
        agent = stack.enter_context(
            private_agent(
                directory / "agent",
                stage.ask,
                policies=policies,
                mode=mode,
                patterns=[f"{stage.prefix}{word}*" for word in ("attack", "twin")],
                seconds=60 * stage.patience,
            )
        )
        boxes = _Boxes(stage, directory, props, stack)
        claims = agent.claims()
        for case in cases:
            if case.needs_disk and props.disk is None:
                yield _untried(case, mode, "this machine has no loop device or no mkfs.ext4")
            elif case.detector:
                yield _run_bundle(case, mode, agent, stage, directory)
            else:
                yield _run(case, mode, agent, boxes, stage, claims.get(case.rule, frozenset()))


class _Boxes:
    """The containers that cases share, made when the first of them asks."""

    def __init__(self, stage: Stage, directory: Path, props: Props, stack: ExitStack) -> None:
        self._stage, self._directory, self._props, self._stack = stage, directory, props, stack
        self._root = make_root(directory / "root")
        self._boxes: dict[str, Box] = {}

    def get(self, role: str, *, host_pid: bool) -> Box:
        """`attack` or `twin`; host_pid: in the host's pid namespace."""
        label = f"{role}-hostpid" if host_pid else role
        if label not in self._boxes:
            config = privileged_config(self._root, self._props, host_pid=host_pid)
            stage = self._stage
            self._boxes[label] = self._stack.enter_context(
                new_box(
                    label, config, runtime=stage.runtime, directory=self._directory, props=self._props,
                    prefix=stage.prefix,
                )
            )  # fmt: skip
            for name in ("token", "mode"):
                self._boxes[label].run(f"chmod 0600 /tmp/{name}", seconds=60 * stage.patience)
        return self._boxes[label]


def _untried(case: Case, mode: str, why: str) -> Result:
    nothing = Attempt("", 0, 0, why)
    return Result(case, mode, nothing, [], nothing, {}, [], frozenset(), why)


def _run(
    case: Case,
    mode: str,
    agent: PrivateAgent,
    boxes: _Boxes,
    stage: Stage,
    claims: frozenset[tuple[str, str]],
) -> Result:
    attacker = boxes.get("attack", host_pid=case.host_pid)
    lawful = boxes.get("twin", host_pid=case.host_pid and not case.plain_twin)
    _let_pass(agent, attacker, case.rule)
    told = len(agent.alerts(attacker.name, case.rule))
    attack = attacker.run(case.attack, seconds=60 * stage.patience)
    before = agent.verdicts(lawful.name)
    twin = lawful.run(case.twin, seconds=60 * stage.patience)
    after = agent.verdicts(lawful.name)
    moved = {kind: after[kind] - before[kind] for kind in after if after[kind] != before.get(kind, 0)}
    seconds = 0.0 if attack.absent or not attack.tried else 2.0 * stage.patience
    alerts = _new_alerts(agent, attacker, case.rule, told, seconds)
    return Result(case, mode, attack, alerts, twin, moved, [], claims)


def _let_pass(agent: PrivateAgent, box: Box, rule: str) -> None:
    """Wait until the agent's limiter takes the same for news again: it tells the same thing once a second."""
    since = time.clock_gettime(time.CLOCK_REALTIME) - agent.last_alert(box.name, rule)
    if since < _SAME_SECONDS:
        time.sleep(_SAME_SECONDS - since)


def _run_bundle(case: Case, mode: str, agent: PrivateAgent, stage: Stage, directory: Path) -> Result:
    """A detector's case: the attack, and its twin, in a container of its own each."""
    claims = frozenset({("alert", "observe")})
    with _fresh_box(case, stage, directory, odd=True) as box:
        attack = box.run(case.attack, seconds=120 * stage.patience) if case.attack else _NOTHING
        alerts = _new_alerts(agent, box, case.rule, 0, min(12.0 * stage.patience, 40.0))
    with _fresh_box(case, stage, directory, odd=False) as box:
        twin = box.run(case.twin, seconds=120 * stage.patience) if case.twin else _NOTHING
        # As long as the detector took for the attack, and a look more: there is nothing to wait for.
        _new_alerts(agent, box, case.rule, 0, min(1.0 * stage.patience, 3.0))
        told = agent.alerts(box.name, "")
    return Result(case, mode, attack, alerts, twin, {}, told, claims)


@contextmanager
def _fresh_box(case: Case, stage: Stage, directory: Path, *, odd: bool) -> Iterator[Box]:
    label = f"{'attack' if odd else 'twin'}-{case.rule}"
    directory = directory / label
    config = bundle(case.bundle, directory, odd=odd)
    with new_box(
        label, config, runtime=stage.runtime, directory=directory, props=None, prefix=stage.prefix
    ) as box:
        yield box


def _new_alerts(agent: PrivateAgent, box: Box, rule: str, told: int, seconds: float) -> list[Record]:
    """Alerts of the rule about this container beyond those of before, waiting for the first."""
    end = time.monotonic() + seconds
    while True:
        found = agent.alerts(box.name, rule)[told:]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.005)
