# SPDX-License-Identifier: Apache-2.0
"""Dashboards and rules against a real Prometheus that scrapes a real agent while containers attack.

One load for all tests: a privileged container that tries ways out, and one that works lawfully. No panel may
name a metric that nobody documents, and none may be empty. At the end the agent is killed, and the time is
taken until a webhook behind a real Alertmanager hears of it.
"""

from __future__ import annotations

import contextlib
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

from tests.escape.stage import new_stage
from tests.prometheus.rules import documented, expressions, groups
from tests.prometheus.stack import Stack, running_stack
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, make_rootfs, new_container
from tests.support.force import need_program, need_root
from tests.support.waiting import patience, wait_for
from tools.dashboards import DASHBOARDS, DIRECTORY, Panel, render
from tools.demo.stagehand import start_benign

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = (("unshare", "0x10000000"), ("connect", "169.254.169.254", "80"), ("mount", "ext4", "/dev/vda1"))
WINDOW = "20s"  # four scrapes
PANELS = [(page.title, panel) for page in DASHBOARDS for _, row in page.rows for panel in row]
RECORDED = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}


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
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(
            running_agent(
                directory / "agent", policies=[ROOT / "policies"], flags=flags, patterns=[f"{PREFIX}live*"]
            )
        )
        (directory / "a").mkdir()
        stage = stack.enter_context(
            new_stage(Bundle(directory / "a", rootfs), "live", directory=directory / "a")
        )
        benign = stack.enter_context(new_container(Bundle(directory / "b", rootfs), "live-benign"))
        work = start_benign(benign)
        stack.callback(work.kill)
        watched = stack.enter_context(running_stack(directory / "stack", agent.port))
        enough = threading.Event()
        attacker = threading.Thread(target=_attack, args=(stage, enough), daemon=True)
        attacker.start()
        stack.callback(attacker.join, patience(30))
        stack.callback(enough.set)
        time.sleep(patience(30))  # what is waited for is time itself: windows of four scrapes
        yield World(agent, watched)


def _attack(stage: Any, enough: threading.Event) -> None:
    while not enough.wait(0.5):
        for words in ATTACKS:
            stage.run(words)


def concrete(expression: str) -> str:
    """As Grafana would ask with everything chosen."""
    for name, value in (
        ("__rate_interval", WINDOW),
        ("__range", WINDOW),
        ("namespace", ".*"),
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
        assert panel.kind != "timeseries" or legend, "a line without a name"


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda one: one.title if isinstance(one, Panel) else ""
)
def test_no_panel_is_empty_under_load(world: World, page: str, panel: Panel) -> None:
    """Every query of it has an answer, and the answer has the labels that its legend shows."""
    for expression, legend in panel.queries:
        found = world.stack.ask(concrete(expression))
        assert found, f"{page}: {panel.title}: {expression}"
        # What is of no namespace has an empty label, which Prometheus keeps as none.
        for label in set(re.findall(r"\{\{(\w+)\}\}", legend)) - {"namespace"}:
            assert all(label in one["metric"] for one in found), f"{panel.title}: no label {label}"


@pytest.mark.parametrize("rule", expressions())
def test_every_rule_is_evaluated_by_a_real_prometheus(world: World, rule: str) -> None:
    """It takes the expression; records that the load feeds have values."""
    found = world.stack.ask(expressions()[rule])
    if rule in RECORDED:
        assert found, rule
        assert wait_for(lambda: world.stack.ask(rule), f"{rule} to be recorded", seconds=30, every=0.5)


def test_attempts_are_told_to_the_webhook(world: World) -> None:
    """Scrape, rule, Alertmanager, webhook: with the names that the shipped rule gives."""
    _, alert = world.stack.wait_alert("RingfenceEscapeDenied", seconds=60)
    assert alert["labels"]["node"] == "node-1"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/escape-denied.md"


def test_the_death_of_the_agent_is_told_within_15_seconds(world: World) -> None:
    """From SIGKILL to the webhook, through the shipped rule. Last: nobody is left to scrape."""
    assert not [one for _, one in world.stack.called if one["labels"]["alertname"] == "RingfenceAgentDown"]
    os.kill(world.agent.pid, signal.SIGKILL)
    killed = time.monotonic()
    told, alert = world.stack.wait_alert("RingfenceAgentDown", seconds=40)
    assert alert["labels"]["severity"] == "critical"
    assert told - killed < 15, f"{told - killed:.1f} s"


def test_programs_are_there_where_they_are_forced() -> None:
    """Named parts of RINGFENCE_FORCE: prometheus, prometheus-alertmanager, promtool."""
    for program in ("prometheus", "prometheus-alertmanager", "promtool"):
        assert need_program(program) == shutil.which(program)
