# SPDX-License-Identifier: Apache-2.0
"""Accepted findings: the built-in list, the configured one, and the agent's own container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.audit.accept import BUILTIN, OWN_REASON, accept
from ringfence.audit.model import CHECKS, Finding
from ringfence.audit.report import as_json, as_sarif, summary
from ringfence.config import load
from ringfence.config.accepted import Acceptance
from ringfence.errors import ConfigError


def reasons(*findings: tuple[str, str], own: str = "", accepted: tuple[Acceptance, ...] = ()) -> list[str]:
    """Why each (check, subject) is accepted; the identifier is the subject's."""
    made = [Finding(CHECKS[check], subject, "", f"id of {subject}") for check, subject in findings]
    return [one.accepted for one in accept(made, accepted, own)]


@pytest.mark.parametrize(
    "subject", ["kube-system/kube-proxy-x7k2p/kube-proxy", "kube-system/cilium-8zq4d/cilium-agent"]
)
def test_components_of_the_cluster_are_accepted_for_what_they_need(subject: str) -> None:
    """Privileged in the host's network; but not the runtime's socket or the host's root."""
    found = reasons(("privileged", subject), ("runtime-socket", subject), ("host-root", subject))
    assert found[0]
    assert found[1:] == ["", ""]


@pytest.mark.parametrize(
    "subject", ["team-b/kube-proxy-x7k2p/kube-proxy", "web", "kube-system/web-0/kube-proxy"]
)
def test_a_name_alone_accepts_nothing(subject: str) -> None:
    """A team cannot hide a finding by the name of its pod."""
    assert reasons(("privileged", subject)) == [""]


def test_the_agents_own_container_is_accepted_by_its_id() -> None:
    """A container that only has the same name is not."""
    subject = "security/rf-ringfence-x/agent"
    assert reasons(("runtime-socket", subject), own=f"id of {subject}") == [OWN_REASON]
    assert reasons(("runtime-socket", subject), own="another") == [""]
    assert reasons(("runtime-socket", subject)) == [""]


def test_every_built_in_acceptance_names_a_check_and_a_reason() -> None:
    """A misspelt check would accept nothing."""
    assert all(one.check in CHECKS and len(one.reason) > 20 and "/" in one.names for one in BUILTIN)


def test_what_is_configured_is_accepted_shown_and_not_counted(tmp_path: Path) -> None:
    """In JSON, in SARIF as a suppression, and not in the summary."""
    file = tmp_path / "agent.yaml"
    file.write_text(
        "audit:\n  accept:\n"
        '    - {check: host-root, names: "monitoring/exporter-*/*", reason: "reads filesystems"}\n'
    )
    accepted = load(file, {}, {}).audit_accept
    assert accepted == (Acceptance("host-root", "monitoring/exporter-*/*", "reads filesystems"),)
    made = [Finding(CHECKS["host-root"], f"{where}/exporter-1/main", "") for where in ("monitoring", "shop")]
    found = list(accept(made, accepted))
    assert [one.accepted for one in found] == ["reads filesystems", ""]
    assert summary(found)["critical"] == 1
    assert {one["subject"][:4]: one["accepted"] for one in as_json(found, "n", 2)["findings"]} == {
        "moni": "reads filesystems", "shop": "",
    }  # fmt: skip
    results = json.loads(json.dumps(as_sarif(found, "n")))["runs"][0]["results"]
    assert [[s["justification"] for s in one["suppressions"]] for one in results] == [
        ["reads filesystems"],
        [],
    ]


@pytest.mark.parametrize("word", ["host-root", "host-root web", "Host_Root web why", "host-root web  "])
def test_an_acceptance_without_a_reason_is_refused(word: str) -> None:
    """Nobody would know later why."""
    with pytest.raises(ConfigError, match="accept"):
        load(None, {}, {"audit.accept": [word]})
