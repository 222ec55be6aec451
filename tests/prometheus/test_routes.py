# SPDX-License-Identifier: Apache-2.0
"""The sample configuration of docs/reference/alerts-out.md in a real Alertmanager: routes, and no doubles."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.web import Alertmanager
from tests.prometheus.rules import ROOT, alerts
from tests.prometheus.stack import is_ready, program
from tests.support.agent import free_port
from tests.support.force import need_program
from tests.support.receivers import alert
from tests.support.waiting import wait_for

WHERE = {"node": "node-1", "namespace": "shop", "pod": "web-0", "container": "web"}


def sample() -> str:
    """The configuration as the page shows it."""
    page = (ROOT / "docs/reference/alerts-out.md").read_text()
    found = re.search(r"```yaml\n(route:\n.*?)```", page, re.S)
    assert found
    return found[1]


class Running:
    """An Alertmanager with the sample configuration."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, *alerts: dict[str, str]) -> None:
        """Alerts with these labels, as Prometheus sends them."""
        body = json.dumps([{"labels": labels, "annotations": {}} for labels in alerts]).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v2/alerts", body, headers), timeout=30)

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts with their state."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def inhibited(self, count: int) -> dict[str, bool]:
        """By alert name, when so many alerts are there and their states are known."""

        def known() -> dict[str, bool] | None:
            found = self.alerts()
            if len(found) < count or any(one["status"]["state"] == "unprocessed" for one in found):
                return None
            return {one["labels"]["alertname"]: bool(one["status"]["inhibitedBy"]) for one in found}

        states: dict[str, bool] = wait_for(known, "the states of all alerts", every=0.1)
        return states


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """On a free port, with nothing in it."""
    binary = need_program("prometheus-alertmanager")
    (tmp_path / "am.yml").write_text(sample().replace("https://pager.example/", "http://127.0.0.1:9/"))
    port = free_port()
    argv = [binary, f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/am",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    with program(tmp_path, "alertmanager", argv):
        wait_for(lambda: is_ready(port), "Alertmanager", every=0.1)
        yield Running(f"http://127.0.0.1:{port}")


def test_of_the_agents_push_and_the_rule_only_one_notifies(running: Running) -> None:
    """The same attempt by both ways; the attempt in another pod is not silenced."""
    Alertmanager("am", Http(f"{running.url}/api/v2/alerts", HttpSettings())).send([alert(1)])
    rule = {"rule": "core-pattern", "severity": "warning", "outcome": "denied", "title": "T"}
    other = {**WHERE, **rule, "pod": "web-1", "alertname": "RingfenceEscapeDenied"}
    running.post({**WHERE, **rule, "alertname": "RingfenceEscapeDenied"}, other)
    wait_for(lambda: len(running.alerts()) == 3, "three alerts", every=0.1)

    def states() -> dict[tuple[str, str], bool]:
        return {
            (one["labels"]["alertname"], one["labels"]["pod"]): bool(one["status"]["inhibitedBy"])
            for one in running.alerts()
        }

    expected = {
        ("RingfenceCorePattern", "web-0"): False,
        ("RingfenceEscapeDenied", "web-0"): True,
        ("RingfenceEscapeDenied", "web-1"): False,
    }
    wait_for(lambda: states() == expected, f"{expected}", every=0.1)


def test_warnings_of_an_incident_are_part_of_its_critical_alert(running: Running) -> None:
    """In the same pod; and one death of an agent pages once."""
    running.post(
        {**WHERE, "alertname": "RingfenceEscapeNotStopped", "severity": "critical", "rule": "a"},
        {**WHERE, "alertname": "RingfenceDetectorFinding", "severity": "warning", "rule": "sweep"},
        {"node": "node-1", "alertname": "RingfenceNotPinned", "severity": "warning"},
        {"node": "node-2", "alertname": "RingfenceAgentDown", "severity": "critical"},
        {"node": "node-2", "alertname": "RingfenceNodeWithoutAgent", "severity": "critical"},
    )
    expected = {
        "RingfenceEscapeNotStopped": False, "RingfenceDetectorFinding": True, "RingfenceNotPinned": False,
        "RingfenceAgentDown": False, "RingfenceNodeWithoutAgent": True,
    }  # fmt: skip
    wait_for(lambda: running.inhibited(5) == expected, f"{expected}", every=0.1)


@pytest.mark.parametrize("where", [WHERE, {"node": "node-1", "container": "0a1b2c3d4e5f"}])
def test_a_condemned_container_is_one_page_with_the_kill_that_condemned_it(
    running: Running, where: dict[str, str]
) -> None:
    """In a pod and outside of one; the agent's push takes the place of the rule; other containers notify."""
    condemned = {**where, "alertname": "RingfenceContainerCondemned", "severity": "critical"}
    condemned["rule"] = "container-condemned"
    killed = {**where, "alertname": "RingfenceEscapeDenied", "severity": "warning", "rule": "mount-call"}
    running.post(
        condemned,
        {**condemned, "source": "ringfence-agent"},
        killed,
        {**killed, "alertname": "RingfenceMountCall", "source": "ringfence-agent"},
        {**killed, "pod": "", "namespace": "", "container": "other"},
    )
    wait_for(lambda: len(running.alerts()) == 5, "five alerts", every=0.1)

    def notified() -> set[tuple[str, str, str]]:
        return {
            (one["labels"]["alertname"], one["labels"].get("source", ""), one["labels"]["container"])
            for one in running.alerts()
            if one["status"]["state"] == "active"
        }

    expected = {
        ("RingfenceContainerCondemned", "ringfence-agent", where["container"]),
        ("RingfenceEscapeDenied", "", "other"),
    }
    wait_for(lambda: notified() == expected, f"{expected}", every=0.1)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=RingfenceEscapeNotStopped", "severity=critical"], "pager"),
        (["alertname=RingfenceCorePattern", "severity=warning", "source=ringfence-agent"], "chat"),
        (["alertname=RingfenceKeyringAdd", "severity=info", "source=ringfence-agent"], "nobody"),
        (["alertname=NodeDown", "severity=critical"], "chat"),
    ],
)
def test_severity_decides_the_receiver(tmp_path: Path, labels: Sequence[str], receiver: str) -> None:
    """By amtool, with the sample routes."""
    file = tmp_path / "am.yml"
    file.write_text(sample())
    argv = [need_program("amtool"), "config", "routes", "test", f"--config.file={file}", *labels]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == receiver, done.stderr


def test_the_sample_is_a_configuration() -> None:
    """It parses, and names no alert of the rules that does not exist."""
    names = {one.name for one in alerts()}
    named = set(re.findall(r"Ringfence[A-Z][A-Za-z]+", sample())) - {"RingfenceEscape"}
    assert named <= names
