# SPDX-License-Identifier: Apache-2.0
"""What the person on call gets for every attack of the pack, in both modes: read from the webhook.

Each attack is made in a pod of its own. Two agents, one in each mode, are scraped by a real Prometheus with
the shipped rules. Two Alertmanagers have the sample configuration of docs/reference/alerts-out.md: `rules`
gets the alerts of Prometheus only, `both` also those that the agents push. Only waiting times are shorter.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ringfence.cli.client import request
from ringfence.policy.load import load_policies
from ringfence.proof.program import Attempt
from tests.escape.cases import PACK, Case
from tests.escape.pods import PodName, Pods, attacking_pods, wait_watching
from tests.prometheus.operator import monitored
from tests.prometheus.stack import Stack, running_stack
from tests.prometheus.test_routes import sample
from tests.support import force
from tests.support.agent import Agent
from tests.support.force import need_program, need_root
from tests.support.policies import PACK as PACK_DIR
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

MODES = ("audit", "enforce")
NAMESPACE = "team-b"
MANAGERS = ("rules", "both")
RULES = [rule for one in load_policies([PACK_DIR]).policies for rule in one.rules]
SEVERITIES = {rule.id: rule.severity for rule in RULES}
TITLES = {rule.id: rule.title for rule in RULES}
BY_RULES = {
    "denied": "RingfenceEscapeDenied", "killed": "RingfenceEscapeDenied", "seen": "RingfenceEscapeNotStopped",
    "would-deny": "RingfenceWouldHaveStopped", "would-kill": "RingfenceWouldHaveStopped",
}  # fmt: skip
RUNBOOKS = {
    "denied": "/escape-denied.md", "killed": "/escape-denied.md", "seen": "/escape-not-stopped.md",
    "would-deny": "/would-have-stopped.md", "would-kill": "/would-have-stopped.md",
}  # fmt: skip
RECEIVERS = {"critical": "pager", "warning": "chat", "info": "nobody"}
EVALUATION = 15.0  # seconds, the interval of the rules
CONTAINERS_OWN = "host-root"  # a finding about the containers of the attacks, whatever they do


class Tried(NamedTuple):
    """One attack in one mode, and its pod."""

    number: int
    case: Case
    mode: str
    pod: str
    container: str
    attempt: Attempt
    is_decided: bool  # the agent has a program for the rule on this node

    @property
    def is_required(self) -> bool:
        """True if it must be reported: this kernel has the call, and the rule can see it."""
        return self.is_decided and not self.attempt.absent

    @property
    def ended(self) -> str:
        """How the call ended, by the process that made it."""
        return "killed" if self.attempt.killed else "denied" if self.attempt.refused else "seen"


class World(NamedTuple):
    """What was tried, and what has come to the webhook."""

    tried: list[Tried]
    stack: Stack
    incidents: dict[str, list[Case]]  # pod -> the attacks that it made, the first of which took effect

    def outcome(self, one: Tried) -> str:
        """Returns the outcome: in mode audit what enforcement did to the same attack, in the subjunctive."""
        (enforced,) = [o.ended for o in self.tried if (o.number, o.mode) == (one.number, "enforce")]
        would = {"killed": "would-kill", "denied": "would-deny", "seen": "seen"}
        return enforced if one.mode == "enforce" else would[enforced]

    def severity(self, one: Tried) -> str:
        """Returns the severity for routes, as the table of docs/reference/alerts-out.md has it."""
        took_effect = self.outcome(one) == "seen"
        if SEVERITIES[one.case.rule] in ("high", "critical"):
            return "critical" if took_effect else "warning"
        return "warning" if SEVERITIES[one.case.rule] == "medium" and took_effect else "info"


class Notified(NamedTuple):
    """One alert at the webhook."""

    receiver: str
    group: str  # a pager opens one incident for each group
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str]:
        """Receiver, rule and name."""
        return self.receiver, self.labels.get("rule", ""), self.labels["alertname"]


def paths(manager: str) -> str:
    """The sample configuration with its three receivers at the webhook, and shorter times."""
    text = sample()
    for before, after in (
        ("https://pager.example/", f"HOOK/{manager}/pager"),
        ("https://chat.example/", f"HOOK/{manager}/chat"),
        ("{name: nobody}", f"{{name: nobody, webhook_configs: [{{url: 'HOOK/{manager}/nobody'}}]}}"),
        ("group_wait: 30s", "group_wait: 2s"),
        ("group_wait: 5s", "group_wait: 1s"),
        ("group_interval: 5m", "group_interval: 3s"),
    ):
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After every attack; all that was to be notified has been."""
    need_root()
    for program in ("prometheus", "prometheus-alertmanager", "runc", "gcc"):
        need_program(program)
    directory = tmp_path_factory.mktemp("pages")
    with contextlib.ExitStack() as stack:
        pods = stack.enter_context(attacking_pods(directory / "pods"))
        agents = {mode: pods.agent(mode, PACK_DIR, mode) for mode in MODES}
        scrape = monitored({f"node-{mode}": agent.port for mode, agent in agents.items()})
        managers = {name: paths(name) for name in MANAGERS}
        watched = stack.enter_context(running_stack(directory / "stack", scrape, managers))
        for agent in agents.values():
            agent.argv += ["--alerts-alertmanager", f"http://127.0.0.1:{watched.managers['both']}"]
            agent.argv += ["--detectors-off", CONTAINERS_OWN]
            stack.callback(agent.stop)
            agent.start()
        wait_watching(pods, len(agents))
        world = attack_all(pods, agents, watched)
        wait_for(lambda: not missing(world), "every notification", seconds=90, every=0.5)
        time.sleep(EVALUATION + 3)  # for notifications that must not come
        yield world


def attack_all(pods: Pods, agents: dict[str, Agent], stack: Stack) -> World:
    """Makes every attack of the pack in both modes at once, and then some in one pod."""
    tried: list[Tried] = []
    threads = [
        threading.Thread(target=_attack, args=(pods, mode, agent, tried)) for mode, agent in agents.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world = World(tried, stack, {})
    for mode, agent in agents.items():
        mine = [one for one in tried if one.mode == mode and one.is_required and one.case.kind == "plain"]
        # The one that takes effect first: it is known before the others of the same pod are notified.
        several = [one.case for one in mine if world.severity(one) == "critical"][:1]
        several += [one.case for one in mine if world.severity(one) == "warning"][:3]
        with pods.start(mode, PodName(NAMESPACE, f"incident-{mode}")) as pod:
            for case in several:
                pod.attack(case.attack)
                agent.wait_alert(case.rule, pod.target.name)
            world.incidents[pod.name.pod] = several
    return world


def _attack(pods: Pods, mode: str, agent: Agent, tried: list[Tried]) -> None:
    decided = {row["rule"] for row in request(agent.socket, "policies") if row["enforced"] != "none"}
    for number, case in enumerate(case for case in PACK if not pods.missing(case)):
        with pods.start(mode, PodName(NAMESPACE, f"{case.rule}-{number}-{mode}"), case.kind) as pod:
            attempt = pod.attack(case.attack)
            one = Tried(number, case, mode, pod.name.pod, pod.target.name, attempt, case.rule in decided)
            tried.append(one)
            if one.is_required:
                agent.wait_alert(case.rule, pod.target.name)


def expected(world: World, manager: str, one: Tried) -> set[tuple[str, str, str]]:
    """Returns receiver, rule and name of what has to be notified of an attack."""
    rule = one.case.rule
    receiver = RECEIVERS[world.severity(one)]
    if not one.is_required:
        return set()
    if manager == "both":
        return {(receiver, rule, "Ringfence" + rule.title().replace("-", ""))}
    if SEVERITIES[rule] not in ("high", "critical"):
        # Prometheus has no rule for what would be an info
        return {(receiver, rule, "RingfenceMediumNotStopped")} if receiver != "nobody" else set()
    return {(receiver, rule, BY_RULES[world.outcome(one)])}


def notified(world: World, manager: str) -> list[Notified]:
    """Returns all alerts that arrived at the webhook by one Alertmanager."""
    return [
        Notified(one.path.rpartition("/")[2], one.body["groupKey"], alert["labels"], alert["annotations"])
        for one in list(world.stack.notified)
        if one.path.startswith(f"/{manager}/")
        for alert in one.body["alerts"]
        if alert["status"] == "firing"
    ]  # fmt: skip


def by_pod(world: World, manager: str) -> dict[str, list[Notified]]:
    """The same by pod; what is of no pod has the key ""."""
    found: dict[str, list[Notified]] = {}
    for one in notified(world, manager):
        found.setdefault(one.labels.get("pod", ""), []).append(one)
    return found


def missing(world: World) -> list[tuple[str, str]]:
    """Returns which notifications have not come: manager and pod."""
    lacking = []
    for manager in MANAGERS:
        came = by_pod(world, manager)
        for one in world.tried:
            if expected(world, manager, one) - {got.key for got in came.get(one.pod, [])}:
                lacking.append((manager, one.pod))
        lacking += [(manager, pod) for pod in world.incidents if pod not in came]
    return lacking


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("mode", MODES)
def test_each_attack_is_notified_once_with_the_right_severity(world: World, manager: str, mode: str) -> None:
    """To the receiver of its severity, under the right name, and nothing else is notified of its pod.

    Where the agent pushes, the alert of the rules is inhibited: `both` has one alert for each attack, too.
    """
    came = by_pod(world, manager)
    tried = [one for one in world.tried if one.mode == mode]
    assert len([one for one in tried if one.is_required]) > 80
    for one in tried:
        if one.is_required:
            assert {got.key for got in came.get(one.pod, [])} == expected(world, manager, one), one
    assert {got.labels["severity"] for some in came.values() for got in some} <= set(RECEIVERS)


@pytest.mark.parametrize("manager", MANAGERS)
def test_every_label_and_text_is_that_of_the_attack(world: World, manager: str) -> None:
    """The words by which a route, a silence and a person find the pod."""
    came = by_pod(world, manager)
    for one in (one for one in world.tried if one.is_required):
        for got in came.get(one.pod, []):
            labels = {
                "node": f"node-{one.mode}", "namespace": NAMESPACE, "pod": one.pod, "rule": one.case.rule,
                "outcome": world.outcome(one), "severity": world.severity(one),
            }  # fmt: skip
            assert {key: got.labels.get(key) for key in labels} == labels
            # Its name, if the agent read the runtime's state before the runtime removed it.
            assert got.labels["container"] == "main" or one.container.startswith(got.labels["container"])
            assert TITLES[one.case.rule] in got.annotations["summary"]
            severe = SEVERITIES[one.case.rule] in ("high", "critical") or world.outcome(one) != "seen"
            page = RUNBOOKS[world.outcome(one)] if severe else "/medium-not-stopped.md"
            assert page in got.annotations["runbook_url"]
            assert got.annotations["description"]
            assert not {"instance", "agent_pod"} & set(got.labels)


@pytest.mark.parametrize("manager", MANAGERS)
def test_one_page_for_each_pod_where_something_took_effect_and_none_for_another(
    world: World, manager: str
) -> None:
    """A pager opens one incident for each group; what was stopped, or would have been, never pages."""
    pages: dict[str, set[str]] = {}
    for got in notified(world, manager):
        # An alert without a rule is about a node: one of the two only audits, which pages after a minute.
        if got.receiver == "pager" and "rule" in got.labels:
            pages.setdefault(got.labels.get("pod", ""), set()).add(got.group)
    took_effect = {
        one.pod for one in world.tried if one.is_required and world.severity(one) == "critical"
    } | {pod for pod, cases in world.incidents.items() if cases and _critical(world, pod)}
    assert set(pages) == took_effect
    assert all(len(groups) == 1 for groups in pages.values()), pages
    assert len(set().union(*pages.values())) == len(pages), "two pods share a page"


def _critical(world: World, pod: str) -> bool:
    """Returns True if the first attack of an incident took effect."""
    mode, case = pod.split("-")[1], world.incidents[pod][0]
    (one,) = [one for one in world.tried if one.mode == mode and one.case == case]
    return world.severity(one) == "critical"


@pytest.mark.parametrize("mode", MODES)
def test_a_pod_with_several_attacks_is_one_page_and_no_warning(world: World, mode: str) -> None:
    """With the agents' push: the warnings are part of the critical alert of the same pod."""
    pod = f"incident-{mode}-0"
    if not _critical(world, pod):
        force.elsewhere("on this kernel nothing severe takes effect")
    assert len(world.incidents[pod]) == 4
    came = by_pod(world, "both")[pod]
    assert {(got.receiver, got.labels["rule"]) for got in came} == {("pager", world.incidents[pod][0].rule)}


def test_every_attack_of_the_pack_was_made(world: World) -> None:
    """In both modes, but for those of the host and those that need a machine to throw away."""
    for mode in MODES:
        tried = [one for one in world.tried if one.mode == mode]
        assert all(one.attempt.tried for one in tried)
        left = set(PACK) - {one.case for one in tried}
        assert all(case.host or case.disposable for case in left), left
