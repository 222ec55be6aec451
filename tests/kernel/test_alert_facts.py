# SPDX-License-Identifier: Apache-2.0
"""Facts that must be the same, or absent, in every output of a real agent."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.cli.client import request
from tests.support.agent import Agent, cli, free_port, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, new_container
from tests.support.force import need_program
from tests.support.policies import user_namespace, written
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

LABEL = "alertfacts"
RULE = "test-user-namespace"
PAGE = free_port()
RECEIVED = ("ringfence_canary_records_total", ())


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent with a canary and one policy."""
    need_program("runc")
    policies = written(tmp_path, user_namespace())
    patterns = [f"{PREFIX}{LABEL}-*"]
    flags = {"canary": "yes", "page-listen": f"127.0.0.1:{PAGE}"}
    with running_agent(
        tmp_path / "agent", policies=[policies], mode="policy", patterns=patterns, flags=flags
    ) as made:
        yield made


def printed(agent: Agent, *words: str) -> str:
    """Returns what a `ringfence` command prints about that agent."""
    done = cli(agent, *words)
    assert done.stdout, done.stderr
    return done.stdout


def read_page() -> str:
    """Returns what the status page shows: status, containers and alerts."""
    text = ""
    for part in ("status", "containers", "alerts"):
        with urllib.request.urlopen(f"http://127.0.0.1:{PAGE}/api/{part}", timeout=patience(30)) as answer:
            text += answer.read().decode()
    return text


def test_the_digest_of_the_policies_is_the_same_in_every_output(agent: Agent, bundle: Bundle) -> None:
    """`ringfence status`, the line of an alert, ringfence_node_info, and the agent's log."""
    with new_container(bundle, LABEL) as container:
        container.exec("unshare", "-U", "true")
        alert = agent.wait_alert(RULE, container.name)
    shown = re.search(r"digest ([0-9a-f]+)", printed(agent, "status"))
    assert shown
    [info] = [dict(labels) for name, labels in agent.metrics() if name == "ringfence_node_info"]
    assert alert["policy_digest"] == shown[1] == info["policy_digest"]
    logged = [json.loads(line) for line in agent.log.read_text().splitlines() if line.startswith("{")]
    assert {one["digest"] for one in logged if "digest" in one} == {shown[1]}
    assert request(agent.socket, "status")["policies"]["digest"] == shown[1]


def test_the_canary_is_in_no_output(agent: Agent, bundle: Bundle) -> None:
    """Commands, status page and metrics have the user's container, and never the agent's own."""
    wait_for(lambda: agent.metrics()[RECEIVED] >= 2, "two canaries")
    with new_container(bundle, LABEL) as container:
        container.exec("unshare", "-U", "true")
        agent.wait_alert(RULE, container.name)
        outputs = {
            "top": printed(agent, "top", "--once", "-i", "0.1"),
            "top -o json": printed(agent, "top", "--once", "-i", "0.1", "-o", "json"),
            "tree": printed(agent, "tree"),
            "tree -o json": printed(agent, "tree", "-o", "json"),
            "events": printed(agent, "events"),
            "page": read_page(),
            "metrics": "\n".join(str(labels) for _, labels in agent.metrics()),
        }
        status = json.loads(printed(agent, "status", "-o", "json"))
    for name, text in outputs.items():
        assert container.name[:12] in text, name
        assert "ringfence-canary" not in text, name
    assert status["containers"]["live"] == 1
    assert "ringfence-canary" not in json.dumps(status) + json.dumps(agent.records)


def test_an_alert_of_an_exec_session_ends_in_the_runtime(agent: Agent, bundle: Bundle) -> None:
    """`runc exec`, as kubectl, docker and podman do it; the shell of the session comes before it."""
    with new_container(bundle, LABEL) as container:
        container.exec("sh", "-c", "unshare -U true; true")
        ancestry = agent.wait_alert(RULE, container.name)["process"]["ancestry"]
    assert [one["comm"] for one in ancestry] == ["sh", "(runtime exec)"]


def test_an_alert_of_the_containers_own_program_ends_in_the_entrypoint(agent: Agent, bundle: Bundle) -> None:
    """Its child made the call."""
    bundle.config["process"]["args"] = ["/bin/sh", "-c", "sleep 1; unshare -U true; sleep 3600"]
    with new_container(bundle, LABEL) as container:
        ancestry = agent.wait_alert(RULE, container.name)["process"]["ancestry"]
    assert [one["comm"] for one in ancestry] == ["sh", "(entrypoint)"]


def test_each_help_text_stands_alone(agent: Agent) -> None:
    """Metric browsers show it without its neighbours: a sentence of its own that leans on no other."""
    leaning = re.compile(
        r"^(it|its|they|their|them|this|that|these|those|which|what|when|the same)\b"
        r"|\b(see|as|than) (above|below|before)\b|\b(ditto|previous metric|likewise)\b",
        re.IGNORECASE,
    )
    helps = dict(re.findall(r"^# HELP (ringfence_\S+) ?(.*)$", agent.get("/metrics")[1], re.M))
    assert len(helps) > 80
    assert len(set(helps.values())) == len(helps), "two metrics have one text"
    wrong = {
        name: text
        for name, text in helps.items()
        if leaning.search(text) or len(text.split()) < 3 or text[0].islower() or text[-1] != "."
    }
    assert not wrong
