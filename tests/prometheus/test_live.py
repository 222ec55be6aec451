# SPDX-License-Identifier: Apache-2.0
"""Dashboards and rules against a real Prometheus that scrapes a real agent while containers attack.

One load for all tests: a privileged container that tries ways out, and one that works lawfully. No panel may
name a metric that nobody documents, and none may be empty. At the end the agent is killed, and the time is
measured until a webhook behind a real Alertmanager gets it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest

from tests.escape.attack_target import new_attack_target
from tests.prometheus.operator import AGENT_POD, monitored
from tests.prometheus.rules import documented, expressions, groups
from tests.prometheus.stack import Stack, running_stack
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, make_rootfs, new_container
from tests.support.force import need_program, need_root
from tests.support.waiting import patience, wait_for
from tools.dashboards import DASHBOARDS, DIRECTORY, Dashboard, Panel, render
from tools.demo.runner import start_benign

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = (("unshare", "0x10000000"), ("connect", "169.254.169.254", "80"), ("mount", "ext4", "/dev/vda1"))
WINDOW = "20s"  # four scrapes
PANELS = [(page.title, panel) for page in DASHBOARDS for _, row in page.rows for panel in row]
RECORDED = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
#: what this load does not cause
UNHAPPENED = {
    "ringfence:nodes_without_agent:bool", "ringfence:escapes_in_audit:increase5m",
    "ringfence:condemned:increase5m",
    "ringfence:escapes_not_stopped:increase5m", "ringfence:findings:increase5m",
    "ringfence:medium_not_stopped:increase5m",
}  # fmt: skip


class World(NamedTuple):
    """What runs."""

    agent: Agent
    stack: Stack


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After thirty seconds of load: every series has several samples."""
    need_root()
    for program in ("prometheus", "prometheus-alertmanager", "runc", "gcc"):
        need_program(program)
    directory = tmp_path_factory.mktemp("live")
    rootfs = make_rootfs(directory / "rootfs", busybox=need_program("busybox"))
    flags = {"canary": "yes", "metrics-program-stats": "yes", "containers-adopt": "yes"}
    # a receiver that is not there: its attempts, its queue and its losses have series
    flags |= {"alerts-otlp": "http://127.0.0.1:9"}
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(
            running_agent(
                directory / "agent", policies=[ROOT / "policies"], flags=flags, patterns=[f"{PREFIX}live*"]
            )
        )
        (directory / "a").mkdir()
        target = stack.enter_context(
            new_attack_target(Bundle(directory / "a", rootfs), "live", directory=directory / "a")
        )
        benign = stack.enter_context(new_container(Bundle(directory / "b", rootfs), "live-benign"))
        work = start_benign(benign)
        stack.callback(work.kill)
        watched = stack.enter_context(running_stack(directory / "stack", monitored({"node-1": agent.port})))
        enough = threading.Event()
        attacker = threading.Thread(target=_attack, args=(target, enough), daemon=True)
        attacker.start()
        stack.callback(attacker.join, patience(30))
        stack.callback(enough.set)
        time.sleep(patience(30))  # what is waited for is time itself: windows of four scrapes
        yield World(agent, watched)


def _attack(target: Any, enough: threading.Event) -> None:
    while not enough.wait(0.5):
        for words in ATTACKS:
            target.run(words)


def concrete(expression: str) -> str:
    """As Grafana would ask with everything chosen."""
    for name, value in (
        ("__rate_interval", WINDOW),
        ("__range", WINDOW),
        ("node", ".*"),
        ("namespace", ".*"),
        ("job", "ringfence"),
        ("pod", ".*"),
        ("container", ".*"),
    ):
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression
    return expression


def names(node: Any) -> set[str]:
    """Every metric in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return {str(node.name)}
    if isinstance(node, promql_parser.MatrixSelector):
        return names(node.vector_selector)
    found: set[str] = set()
    for part in ("expr", "lhs", "rhs"):
        if (child := getattr(node, part, None)) is not None:
            found |= names(child)
    for child in getattr(node, "args", None) or ():
        found |= names(child)
    return found


def test_the_files_are_what_the_program_writes() -> None:
    """After a change: `python3 -m tools.dashboards`."""
    assert {path.name for path in DIRECTORY.glob("*.json")} == {f"{page.uid}.json" for page in DASHBOARDS}
    for page in DASHBOARDS:
        assert (DIRECTORY / f"{page.uid}.json").read_text() == render(page)


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda one: one.title if isinstance(one, Panel) else ""
)
def test_every_query_parses_and_names_only_metrics_that_are_documented(page: str, panel: Panel) -> None:
    """By a parser of the language, not by a pattern."""
    for expression, legend in panel.queries:
        read = names(promql_parser.parse(concrete(expression)))
        assert read, expression
        assert not read - documented() - RECORDED - {"up"}, expression
        assert panel.kind in ("stat", "table") or legend, "a line without a name"


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda one: one.title if isinstance(one, Panel) else ""
)
def test_no_panel_is_empty_under_load(world: World, page: str, panel: Panel) -> None:
    """Every query of it has an answer, and the answer has the labels that its legend shows.

    Where nothing to show is good news, Prometheus only has to take the query.
    """
    for expression, legend in panel.queries:
        ask = functools.partial(world.stack.ask, concrete(expression))
        if panel.may_be_empty:
            ask()
            continue
        found = wait_for(ask, f"{page}: {panel.title}: {expression}", every=0.5)
        # What is of no namespace has an empty label, which Prometheus keeps as none.
        for label in set(re.findall(r"\{\{(\w+)\}\}", legend)) - {"namespace"}:
            assert all(label in one["metric"] for one in found), f"{panel.title}: no label {label}"


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: str(page.uid))
def test_every_variable_has_something_to_choose(world: World, page: Dashboard) -> None:
    """By what Grafana would ask, and with the regular expression that makes names of the answer."""
    made = json.loads(render(page))["templating"]["list"]
    for one in (one for one in made if one["type"] == "query"):
        kind, expression = re.fullmatch(
            r"(label_values|query_result)\((.*)\)", one["query"]["query"]
        ).groups()  # type: ignore[union-attr]
        if kind == "label_values":
            expression, _, label = expression.rpartition(", ")
            found = world.stack.ask(concrete(expression))
            # What this load lacks are pods; a list of their names is empty, and All is still there.
            assert any(label in series["metric"] for series in found) or label in ("namespace", "pod")
            assert found
        else:
            lines = [_as_text(series["metric"]) for series in world.stack.ask(concrete(expression))]
            pattern = re.compile(one["regex"].strip("/").replace("(?<", "(?P<"))
            assert len({match["value"] for match in map(pattern.search, lines) if match}) == len(lines) > 0
            named = pattern.search(
                _as_text(
                    {"__name__": "x", "agent_pod": "p", "container": "0a1b", "name": "web", "pod": "w-1"}
                )
            )
            assert named
            assert named.groupdict() == {"value": "0a1b", "text": "web"}


def _as_text(labels: dict[str, str]) -> str:
    """A series as Grafana's query_result() shows it."""
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()) if key != "__name__")
    return f"{labels['__name__']}{{{inner}}} 1 1700000000000"


@pytest.mark.parametrize("rule", expressions())
def test_every_rule_is_evaluated_by_a_real_prometheus(world: World, rule: str) -> None:
    """It takes the expression; records that the load feeds have values."""
    world.stack.ask(expressions()[rule])
    if rule in RECORDED - UNHAPPENED:
        # An increase needs two scrapes of a series; one of the load's may have come just now.
        assert wait_for(lambda: world.stack.ask(expressions()[rule]), f"values of {rule}", every=0.5)
        assert wait_for(lambda: world.stack.ask(rule), f"{rule} to be recorded", every=0.5)


def test_attempts_are_reported_to_the_webhook(world: World) -> None:
    """Scrape, rule, Alertmanager, webhook: with the names that the shipped rule gives."""
    _, alert = world.stack.wait_alert("RingfenceEscapeDenied", seconds=60)
    assert alert["labels"]["severity"] == "warning"
    assert alert["labels"]["container"].startswith(f"{PREFIX}live")
    assert alert["labels"]["title"] in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks/escape-denied.md")
    assert not {"instance", "agent_pod"} & set(alert["labels"])


def test_labels_of_the_scrape_do_not_hide_those_of_the_agent(world: World) -> None:
    """The operator names every target's own pod, namespace and container: the agent's words count."""
    every = world.stack.ask('{job="ringfence"}')
    assert not [one for one in every if any(label.startswith("exported_") for label in one["metric"])]
    assert {one["metric"]["agent_pod"] for one in every} == {f"{AGENT_POD}-node-1"}
    assert not [
        one for one in every if f"{AGENT_POD}-node-1" in (one["metric"].get("pod"), one["metric"].get("name"))
    ]
    activity = world.stack.ask("ringfence_container_activity_total")
    named = {one["metric"]["container"] for one in world.stack.ask("ringfence_container_info")}
    assert any(name.startswith(f"{PREFIX}live") for name in named)
    assert activity
    assert {one["metric"]["container"] for one in activity} <= named | {"other"}
    attempts = world.stack.ask("ringfence_attempts_total")
    assert attempts
    assert not [one for one in attempts if one["metric"].get("namespace") == "security"]


def test_the_death_of_the_agent_is_reported_within_65_seconds(world: World) -> None:
    """From SIGKILL to the webhook, through the shipped rule, with scrapes every 5 s (90 s with 30 s).

    5 s to a failed scrape, 15 s to an evaluation, 45 s of `for`. Last: nobody is left to scrape.
    """
    assert not [one for _, one in world.stack.called if one["labels"]["alertname"] == "RingfenceAgentDown"]
    os.kill(world.agent.pid, signal.SIGKILL)
    killed = time.monotonic()
    arrived, alert = world.stack.wait_alert("RingfenceAgentDown", seconds=90)
    assert alert["labels"]["severity"] == "critical"
    assert arrived - killed < 65 + 5, f"{arrived - killed:.1f} s"  # 5 s for what a busy machine adds


def test_programs_are_there_where_they_are_forced() -> None:
    """Named parts of RINGFENCE_FORCE: prometheus, prometheus-alertmanager, promtool."""
    for program in ("prometheus", "prometheus-alertmanager", "promtool"):
        assert need_program(program) == shutil.which(program)
