# SPDX-License-Identifier: Apache-2.0
"""The proposal of each attack's alert, pasted into the policies of a running agent.

The attack then passes for that workload. It is still stopped for another workload with another image, and
for a workload of the same name in another namespace. One proposal of each rule is in force at a time, so
that an attack cannot pass by the proposal of another one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ringfence.cli.client import request
from ringfence.proof.program import Attempt
from tests.escape.cases import PACK, Case
from tests.escape.pods import Pod, PodName, Pods, attacking_pods, wait_watching
from tests.support.agent import Agent, Record
from tests.support.force import need_program, need_root
from tests.support.policies import PACK as PACK_DIR
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc", "gcc")]

WORKLOADS = {
    "own": PodName("team-a", "builder"),
    "other": PodName("team-a", "web"),
    "namesake": PodName("team-b", "builder"),
}
LABEL = "proposal"


class Pasted(NamedTuple):
    """One attack that was stopped, its proposal, and what happened once that was in force."""

    case: Case
    allow: str
    again: dict[str, Attempt]  # by workload
    alerts: list[Record]  # of the own workload for this attempt, afterwards

    @property
    def rules(self) -> list[str]:
        """The rule of each of these alerts."""
        return [alert["rule"]["id"] for alert in self.alerts]


class World(NamedTuple):
    """What was pasted, and the attacks whose alerts have no proposal to paste."""

    pasted: list[Pasted]
    bare: list[Case]


class Round:
    """The agent, a copy of the pack, and the pods of each kind of container."""

    def __init__(self, pods: Pods, agent: Agent, policies: Path, stack: contextlib.ExitStack) -> None:
        self.pods, self.agent, self.policies, self.stack = pods, agent, policies, stack
        self._running: dict[tuple[str, str], Pod] = {}

    def pod(self, workload: str, case: Case) -> Pod:
        """Returns the pod of a workload for the case's kind of container."""
        key = workload, case.kind
        if key not in self._running:
            started = self.pods.start(LABEL, WORKLOADS[workload], case.kind)
            self._running[key] = self.stack.enter_context(started)
        return self._running[key]

    def alerts(self, case: Case) -> list[Record]:
        """Returns the alerts of the own workload so far."""
        return self.agent.alerts(self.pod("own", case).target.name)

    def count(self, case: Case, workload: str = "own") -> int:
        """Returns how many alerts of the case's rule there are for a workload."""
        return len(self.agent.alerts(self.pod(workload, case).target.name, case.rule))

    def stopped(self, case: Case) -> str:
        """Makes the attack; returns the proposal of its alert, or "" if it was not stopped."""
        before = self.count(case)
        if not self.pod("own", case).attack(case.attack).stopped:
            return ""
        wait_for(lambda: self.count(case) > before, f"the alert of {case.id}")
        name = self.pod("own", case).target.name
        return str(self.agent.alerts(name, case.rule)[-1]["allow"])

    def load(self, proposals: dict[str, str]) -> None:
        """Pastes proposals (rule -> text) into the policies, checks and loads them."""
        for source in PACK_DIR.glob("*.yaml"):
            # Texts only: `yes` must not become a boolean.
            documents = list(yaml.load_all(source.read_text(), yaml.BaseLoader))
            for rule in (rule for document in documents for rule in document["spec"]["rules"]):
                if rule["id"] in proposals:
                    rule.setdefault("exceptions", []).extend(exceptions(proposals[rule["id"]]))
            (self.policies / source.name).write_text(yaml.safe_dump_all(documents, sort_keys=False))
        check = subprocess.run(
            [sys.executable, "-m", "ringfence", "policy", "check", str(self.policies)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert check.returncode == 0, check.stdout + check.stderr
        before = self._generation()
        os.kill(self.agent.pid, signal.SIGHUP)
        wait_for(lambda: self._generation() > before, "the policies to be loaded")

    def _generation(self) -> int:
        return int(request(self.agent.socket, "status")["policies"]["generation"])


def exceptions(allow: str) -> list[dict[str, object]]:
    """Returns the exceptions of a proposal: what is to be pasted follows the line that names the rule."""
    head, _, text = allow.partition("\n")
    assert head.startswith("add to rule "), allow
    found: list[dict[str, object]] = yaml.load(text, yaml.BaseLoader)["exceptions"]
    return found


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every attack that was stopped, with its proposal in force; `policy check` accepted each."""
    need_root()
    need_program("runc")
    directory = tmp_path_factory.mktemp("proposals")
    policies = directory / "policies"
    shutil.copytree(PACK_DIR, policies, ignore=shutil.ignore_patterns("optional", "*.md"))
    with contextlib.ExitStack() as stack:
        pods = stack.enter_context(attacking_pods(directory / "pods"))
        agent = pods.agent(LABEL, policies, "enforce")
        agent.argv += ["--alerts-burst", "1000"]
        stack.callback(agent.stop)
        agent.start()
        wait_watching(pods, 1)
        here = Round(pods, agent, policies, stack)
        cases = [case for case in PACK if not pods.missing(case)]
        allowed = {case: allow for case in cases if (allow := here.stopped(case))}
        given = {case: allow for case, allow in allowed.items() if allow.startswith("add to rule ")}
        yield World(
            [one for group in groups(list(given)) for one in paste(here, group, given)],
            [case for case in allowed if case not in given],
        )


def groups(cases: list[Case]) -> Iterator[list[Case]]:
    """Divides the cases so that no group has two of one rule."""
    while cases:
        first = list({case.rule: case for case in reversed(cases)}.values())
        yield first
        cases = [case for case in cases if case not in first]


def paste(here: Round, group: list[Case], proposals: dict[Case, str]) -> Iterator[Pasted]:
    """Loads the proposals of a group, and makes each attack again, for every workload."""
    here.load({case.rule: proposals[case] for case in group})
    found = [again(here, case, proposals[case]) for case in group]
    for one in found:
        # Another rule forbids the same call, too: its proposal is pasted beside the first.
        if one.again["own"].stopped and one.case.rule not in one.rules:
            others = {str(alert["rule"]["id"]): str(alert["allow"]) for alert in one.alerts}
            here.load({one.case.rule: one.allow} | {
                rule: allow for rule, allow in others.items() if allow.startswith("add to rule ")
            })  # fmt: skip
            one = again(here, one.case, one.allow)
        yield one


def again(here: Round, case: Case, allow: str) -> Pasted:
    """Makes the attack once more, for every workload."""
    before = len(here.alerts(case))
    others = here.count(case, "other")
    attempts = {name: here.pod(name, case).attack(case.attack) for name in WORKLOADS}
    if attempts["other"].stopped:  # its alert comes after one of the own workload would have come
        wait_for(lambda: here.count(case, "other") > others, f"the alert of {case.id}")
    return Pasted(case, allow, attempts, here.alerts(case)[before:])


def test_most_of_the_pack_is_stopped_and_has_a_proposal(pasted: World) -> None:
    """Otherwise the other tests would show nothing."""
    assert len(pasted.pasted) > 80


def test_only_what_has_no_program_has_no_proposal(pasted: World) -> None:
    """A program that ran from memory has no path, and an exception without one would be for all of them."""
    assert {case.rule for case in pasted.bare} <= {"exec-from-memory"}


def test_the_attack_passes_for_that_workload(pasted: World) -> None:
    """It is neither stopped nor reported by that rule."""
    wrong = [
        f"{one.case.id}: {one.again['own']} {one.rules}\n{one.allow}"
        for one in pasted.pasted
        if one.again["own"].stopped or one.case.rule in one.rules
    ]
    assert not wrong, "\n".join(wrong)


def test_it_is_still_stopped_for_every_other(pasted: World) -> None:
    """For another workload with another image, and for a workload of that name in another namespace."""
    wrong = [(one.case.id, name, one.allow) for one in pasted.pasted for name in ("other", "namesake")
             if not one.again[name].stopped]  # fmt: skip
    assert wrong == []


def test_each_proposal_names_the_workload_first_and_the_program(pasted: World) -> None:
    """By namespace and controller."""
    for one in pasted.pasted:
        (exception,) = exceptions(one.allow)
        assert next(iter(exception)) == "for", one
        assert exception["for"] == {"namespaces": "team-a", "workloads": "StatefulSet/builder"}
