# SPDX-License-Identifier: Apache-2.0
"""Runs cases once against one agent, and keeps what was seen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.child_agent import Ask
from ringfence.proof.agent import ProofAgent, Record
from ringfence.proof.bundles import bundle
from ringfence.proof.cases import Case, Outcome
from ringfence.proof.fixtures import Props, new_props
from ringfence.proof.host_attacks import act
from ringfence.proof.image import new_root
from ringfence.proof.program import Attempt
from ringfence.proof.target_container import Box, Kind, new_box, privileged_config

__all__ = ["Result", "Stage", "run_cases"]

_SAME_SECONDS = 1.05  # ringfence.response.limiter: `same_ns`, and a little
_NOTHING = Attempt("start", 0, 0, "worked 0")
_TELLS = frozenset({("alert", "observe")})  # what detectors do, wherever


@dataclass(frozen=True)
class Stage:
    """Where and with what: `directory` is empty, `prefix` begins the names of all cgroups that are made.

    `disposable`: the machine is thrown away afterwards, so that the node's own settings may be written.
    """

    directory: Path
    prefix: str
    runtime: Sequence[str]
    ask: Ask
    patience: float = 1.0  # how much slower than usual this machine is
    disposable: bool = False


class Result(NamedTuple):
    """What came of one case in one mode. `alerts` are those of the case's own rule."""

    case: Case
    mode: str
    expected: Outcome  # what enforcing must come to on a node like this one
    attack: Attempt
    alerts: list[Record]
    twin: Attempt
    #: verdicts counted in the kernel for the twin's container, during its run
    twin_verdicts: Mapping[str, int]
    twin_alerts: list[Record]
    claims: frozenset[tuple[str, str]]  # what the agent says that the rule comes to, and by what
    missing: str = ""  # why it was not tried


class _Run:
    """One mode: its agent, and the containers that cases share, made when the first of them asks."""

    def __init__(
        self, mode: str, stage: Stage, directory: Path, props: Props, agent: ProofAgent, stack: ExitStack
    ) -> None:
        self.mode, self.stage, self.directory, self.props = mode, stage, directory, props
        self.agent, self.claims = agent, agent.claims()
        self.root = stack.enter_context(new_root(directory))
        self.lsm = bool(NodeCapabilities.detect().lsm_hooks)
        self._stack = stack
        self._boxes: dict[str, Box] = {}

    def result(self, case: Case, **found: Any) -> Result:
        """What came of it; by default: it was not tried."""
        nothing = Attempt("", 0, 0, found.get("missing", ""))
        blank: dict[str, Any] = {
            "attack": nothing, "alerts": [], "twin": nothing, "twin_verdicts": {}, "twin_alerts": [],
            "claims": self.claims.get(case.rule, frozenset()),
        }  # fmt: skip
        return Result(case, self.mode, case.with_lsm if self.lsm else case.outcome, **(blank | found))

    def box(self, role: str, kind: Kind) -> Box:
        """The container of the `attack` or of the `twin`."""
        label = f"{role}-{kind}"
        if label not in self._boxes:
            config = privileged_config(self.root, self.props, kind=kind)
            stage = self.stage
            self._boxes[label] = self._stack.enter_context(
                new_box(
                    label, config, runtime=stage.runtime, directory=self.directory, props=self.props,
                    prefix=stage.prefix,
                )
            )  # fmt: skip
            for name in ("token", "mode"):
                self._boxes[label].run(f"chmod 0600 /tmp/{name}", seconds=60 * stage.patience)
        return self._boxes[label]

    def missing(self, case: Case) -> str:
        """Why a case cannot be tried here; empty: it can."""
        if case.needs_disk and self.props.disk is None:
            return "this machine has no loop device or no mkfs.ext4"
        if case.needs_address and not self.props.address:
            return "this node has no address but the loopback"
        if case.disposable and not self.stage.disposable:
            return "it changes the node's own settings: in virtual machines only"
        return ""


def run_cases(cases: Iterable[Case], policies: Sequence[Path], mode: str, stage: Stage) -> Iterator[Result]:
    """Every attack and every twin, the twins in containers of their own."""
    with ExitStack() as stack:
        directory = stage.directory / mode
        directory.mkdir(parents=True)
        props = stack.enter_context(
            new_props(directory, f"{stage.prefix}beside-{os.getpid()}", disposable=stage.disposable)
        )
        agent = stack.enter_context(
            ProofAgent(
                directory / "agent",
                stage.ask,
                policies=policies,
                mode=mode,
                patterns=[f"{stage.prefix}{word}*" for word in ("attack", "twin")],
                seconds=60 * stage.patience,
            )
        )
        here = _Run(mode, stage, directory, props, agent, stack)
        for case in cases:
            if missing := here.missing(case):
                yield here.result(case, missing=missing)
            elif case.host:
                yield _on_host(here, case)
            elif case.detector:
                yield _by_bundle(here, case)
            else:
                yield _in_container(here, case)


def _in_container(here: _Run, case: Case) -> Result:
    agent, patience = here.agent, here.stage.patience
    attacker = here.box("attack", case.box)
    lawful = here.box("twin", case.twin_box or case.box)
    _let_pass(agent, attacker.name, case.rule)
    told = len(agent.alerts(attacker.name, case.rule))
    attack = attacker.run(case.attack, seconds=60 * patience)
    before = agent.verdicts(lawful.name)
    twin = lawful.run(case.twin, seconds=60 * patience)
    after = agent.verdicts(lawful.name)
    moved = {kind: after[kind] - before[kind] for kind in after if after[kind] != before.get(kind, 0)}
    hopeless = attack.absent or not attack.tried or case.rule not in here.claims
    alerts = _new_alerts(agent, attacker.name, case.rule, told, 0.0 if hopeless else 2.0 * patience)
    return here.result(case, attack=attack, alerts=alerts, twin=twin, twin_verdicts=moved)


def _on_host(here: _Run, case: Case) -> Result:
    """The actor is of no container, and the alert names none; the twin must leave no alert of the rule."""
    agent, patience = here.agent, here.stage.patience
    claims = _TELLS if case.detector else here.claims.get(case.rule, frozenset())

    def run(words: str, seconds: float) -> tuple[Attempt, list[Record]]:
        _let_pass(agent, None, case.rule)
        told = len(agent.alerts(None, case.rule))
        attempt = act(words, here.props, here.root, patience)
        seconds = 0.0 if attempt.absent or not claims else seconds
        return attempt, _new_alerts(agent, None, case.rule, told, seconds)

    attack, alerts = run(case.attack, 5.0 * patience)
    twin, twin_alerts = run(case.twin, 0.5)
    return here.result(
        case, attack=attack, alerts=alerts, twin=twin, twin_alerts=twin_alerts, claims=claims
    )  # fmt: skip


def _let_pass(agent: ProofAgent, container: str | None, rule: str) -> None:
    """Wait until the agent's limiter takes the same for news again: it tells the same thing once a second."""
    since = time.clock_gettime(time.CLOCK_REALTIME) - agent.last_alert(container, rule)
    if since < _SAME_SECONDS:
        time.sleep(_SAME_SECONDS - since)


def _by_bundle(here: _Run, case: Case) -> Result:
    """A detector's case: the attack, and its twin, in a container of its own each."""
    agent, patience = here.agent, here.stage.patience
    with _fresh_box(case, here.stage, here.directory, odd=True) as box:
        attack = box.run(case.attack, seconds=120 * patience) if case.attack else _NOTHING
        alerts = _new_alerts(agent, box.name, case.rule, 0, min(12.0 * patience, 40.0))
    with _fresh_box(case, here.stage, here.directory, odd=False) as box:
        twin = box.run(case.twin, seconds=120 * patience) if case.twin else _NOTHING
        # As long as the detector took for the attack, and a look more: there is nothing to wait for.
        _new_alerts(agent, box.name, case.rule, 0, min(1.0 * patience, 3.0))
        told = agent.alerts(box.name, "")
    return here.result(case, attack=attack, alerts=alerts, twin=twin, twin_alerts=told, claims=_TELLS)


@contextmanager
def _fresh_box(case: Case, stage: Stage, directory: Path, *, odd: bool) -> Iterator[Box]:
    label = f"{'attack' if odd else 'twin'}-{case.rule}-{case.bundle}"
    directory = directory / label
    config = bundle(case.bundle, directory, odd=odd)
    with new_box(
        label, config, runtime=stage.runtime, directory=directory, props=None, prefix=stage.prefix
    ) as box:
        yield box


def _new_alerts(
    agent: ProofAgent, container: str | None, rule: str, told: int, seconds: float
) -> list[Record]:
    """Alerts of the rule about this container beyond those of before, waiting for the first."""
    end = time.monotonic() + seconds
    while True:
        found = agent.alerts(container, rule)[told:]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.005)
