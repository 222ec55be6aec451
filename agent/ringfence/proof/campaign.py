# SPDX-License-Identifier: Apache-2.0
"""Runs each case once against one agent, and keeps the results."""

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
from ringfence.proof.fixtures import Fixtures, new_fixtures
from ringfence.proof.host_attacks import run_host_attack
from ringfence.proof.image import new_root
from ringfence.proof.program import Attempt
from ringfence.proof.target_container import Kind, TargetContainer, new_target, privileged_config

__all__ = ["Environment", "Result", "run_cases"]

_SAME_SECONDS = 1.05  # ringfence.response.limiter: `same_ns` plus a margin
_NOTHING = Attempt("start", 0, 0, "worked 0")
_DETECTOR_CLAIM = frozenset({("alert", "observe")})  # detectors report only, on every node


@dataclass(frozen=True)
class Environment:
    """Where and with what the cases run. `prefix` begins the names of all cgroups that are created.

    `directory` must be empty. `disposable`: the machine is discarded afterwards, so the node's own
    settings may be written.
    """

    directory: Path
    prefix: str
    runtime: Sequence[str]
    ask: Ask
    patience: float = 1.0  # factor by which this machine is slower than usual
    disposable: bool = False


class Result(NamedTuple):
    """The result of one case in one mode. `alerts` are those of the case's own rule."""

    case: Case
    mode: str
    expected: Outcome  # the required outcome of enforcement on a node like this one
    attack: Attempt
    alerts: list[Record]
    twin: Attempt
    #: verdicts counted in the kernel for the twin's container, during its run
    twin_verdicts: Mapping[str, int]
    twin_alerts: list[Record]
    claims: frozenset[tuple[str, str]]  # (effective action, mechanism) that the agent states
    missing: str = ""  # why the case was not run; empty: it was


class _Run:
    """One mode: its agent, and the containers that cases share, created on first use."""

    def __init__(
        self,
        mode: str,
        environment: Environment,
        directory: Path,
        fixtures: Fixtures,
        agent: ProofAgent,
        stack: ExitStack,
    ) -> None:
        self.mode, self.environment, self.directory, self.fixtures = mode, environment, directory, fixtures
        self.agent, self.claims = agent, agent.claims()
        self.root = stack.enter_context(new_root(directory))
        self.lsm = bool(NodeCapabilities.detect().lsm_hooks)
        self._stack = stack
        self._targets: dict[str, TargetContainer] = {}

    def result(self, case: Case, **found: Any) -> Result:
        """Returns the result of a case; by default: not run."""
        nothing = Attempt("", 0, 0, found.get("missing", ""))
        blank: dict[str, Any] = {
            "attack": nothing, "alerts": [], "twin": nothing, "twin_verdicts": {}, "twin_alerts": [],
            "claims": self.claims.get(case.rule, frozenset()),
        }  # fmt: skip
        return Result(case, self.mode, case.with_lsm if self.lsm else case.outcome, **(blank | found))

    def target(self, role: str, kind: Kind) -> TargetContainer:
        """Returns the container of the `attack` or of the `twin`."""
        label = f"{role}-{kind}"
        if label not in self._targets:
            config = privileged_config(self.root, self.fixtures, kind=kind)
            environment = self.environment
            self._targets[label] = self._stack.enter_context(
                new_target(
                    label, config, runtime=environment.runtime, directory=self.directory,
                    fixtures=self.fixtures, prefix=environment.prefix,
                )
            )  # fmt: skip
            for name in ("token", "mode"):
                self._targets[label].run(f"chmod 0600 /tmp/{name}", seconds=60 * environment.patience)
        return self._targets[label]

    def missing(self, case: Case) -> str:
        """Returns why a case cannot run here; empty: it can."""
        if case.needs_disk and self.fixtures.disk is None:
            return "this machine has no loop device or no mkfs.ext4"
        if case.needs_address and not self.fixtures.address:
            return "this node has no address but the loopback"
        if case.disposable and not self.environment.disposable:
            return "it changes the node's own settings: it runs in virtual machines only"
        return ""


def run_cases(
    cases: Iterable[Case], policies: Sequence[Path], mode: str, environment: Environment
) -> Iterator[Result]:
    """Runs every attack and every twin; attacks and twins use different containers."""
    with ExitStack() as stack:
        directory = environment.directory / mode
        directory.mkdir(parents=True)
        fixtures = stack.enter_context(
            new_fixtures(
                directory, f"{environment.prefix}beside-{os.getpid()}", disposable=environment.disposable
            )
        )
        agent = stack.enter_context(
            ProofAgent(
                directory / "agent",
                environment.ask,
                policies=policies,
                mode=mode,
                patterns=[f"{environment.prefix}{word}*" for word in ("attack", "twin")],
                writable=fixtures.given,
                patience=environment.patience,
            )
        )
        here = _Run(mode, environment, directory, fixtures, agent, stack)
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
    agent, patience = here.agent, here.environment.patience
    attacker = here.target("attack", case.kind)
    lawful = here.target("twin", case.twin_kind or case.kind)
    _wait_for_limiter(agent, attacker.name, case.rule)
    seen = len(agent.alerts(attacker.name, case.rule))
    attack = attacker.run(case.attack, seconds=60 * patience)
    before = agent.verdicts(lawful.name)
    twin = lawful.run(case.twin, seconds=60 * patience)
    after = agent.verdicts(lawful.name)
    moved = {kind: after[kind] - before[kind] for kind in after if after[kind] != before.get(kind, 0)}
    hopeless = attack.absent or not attack.tried or case.rule not in here.claims
    alerts = _new_alerts(agent, attacker.name, case.rule, seen, 0.0 if hopeless else 2.0 * patience)
    return here.result(case, attack=attack, alerts=alerts, twin=twin, twin_verdicts=moved)


def _on_host(here: _Run, case: Case) -> Result:
    """Runs a case whose actor is on the host: its alert names no container.

    The twin must cause no alert of the rule.
    """
    agent, patience = here.agent, here.environment.patience
    claims = _DETECTOR_CLAIM if case.detector else here.claims.get(case.rule, frozenset())

    def run(words: str, seconds: float) -> tuple[Attempt, list[Record]]:
        _wait_for_limiter(agent, None, case.rule)
        seen = len(agent.alerts(None, case.rule))
        attempt = run_host_attack(words, here.fixtures, here.root, patience)
        seconds = 0.0 if attempt.absent or not claims else seconds
        return attempt, _new_alerts(agent, None, case.rule, seen, seconds)

    attack, alerts = run(case.attack, 5.0 * patience)
    twin, twin_alerts = run(case.twin, 0.5)
    return here.result(
        case, attack=attack, alerts=alerts, twin=twin, twin_alerts=twin_alerts, claims=claims
    )  # fmt: skip


def _wait_for_limiter(agent: ProofAgent, container: str | None, rule: str) -> None:
    """Waits until the agent's limiter, which reports the same alert once a second, admits it again."""
    since = time.clock_gettime(time.CLOCK_REALTIME) - agent.last_alert(container, rule)
    if since < _SAME_SECONDS:
        time.sleep(_SAME_SECONDS - since)


def _by_bundle(here: _Run, case: Case) -> Result:
    """Runs a detector's case: the attack and its twin, each in its own container."""
    agent, patience = here.agent, here.environment.patience
    with _fresh_target(case, here.environment, here.directory, odd=True) as target:
        attack = target.run(case.attack, seconds=120 * patience) if case.attack else _NOTHING
        alerts = _new_alerts(agent, target.name, case.rule, 0, min(12.0 * patience, 40.0))
    with _fresh_target(case, here.environment, here.directory, odd=False) as target:
        twin = target.run(case.twin, seconds=120 * patience) if case.twin else _NOTHING
        # Nothing signals the absence of an alert, so wait for one more cycle of the detector.
        _new_alerts(agent, target.name, case.rule, 0, min(1.0 * patience, 3.0))
        seen = agent.alerts(target.name, "")
    return here.result(
        case, attack=attack, alerts=alerts, twin=twin, twin_alerts=seen, claims=_DETECTOR_CLAIM
    )


@contextmanager
def _fresh_target(
    case: Case, environment: Environment, directory: Path, *, odd: bool
) -> Iterator[TargetContainer]:
    label = f"{'attack' if odd else 'twin'}-{case.rule}-{case.bundle}"
    directory = directory / label
    config = bundle(case.bundle, directory, odd=odd)
    with new_target(
        label,
        config,
        runtime=environment.runtime,
        directory=directory,
        fixtures=None,
        prefix=environment.prefix,
    ) as target:
        yield target


def _new_alerts(
    agent: ProofAgent, container: str | None, rule: str, seen: int, seconds: float
) -> list[Record]:
    """Returns the alerts of the rule for this container after the first `seen`; waits for one."""
    end = time.monotonic() + seconds
    while True:
        found = agent.alerts(container, rule)[seen:]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.005)
