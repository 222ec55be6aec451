# SPDX-License-Identifier: Apache-2.0
"""Rules that a node can neither enforce nor report are listed wherever rules are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.abi import EventKind
from ringfence.daemon.queries.policies import PolicyQuery
from ringfence.daemon.queries.status import StatusQuery
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies
from ringfence.policy.attack_layer import attack_layer
from tests.unit.policy.documents import Document, load, policy, rule

WHY = "this kernel has no such call"
ON_DISK = {"event": "chmod", "match": {"mode": "setuid", "filesystem": "disk"}}
BOTH = {"event": ["reboot", "settime"], "match": "any"}


def compiled(*rules: Document, mode: Any = None) -> CompiledPolicies:
    """For a node without BPF-LSM that has no `settime`."""
    node = NodeTiers.usual().without((EventKind.SYS_SETTIME,), WHY)
    return compile_policies(load(policy(*rules)), node, mode)


def manager(found: CompiledPolicies | None) -> Any:
    """What the queries use of the manager."""
    return SimpleNamespace(compiled=found)


def rows(found: CompiledPolicies | None, mode: str = "enforce") -> list[dict[str, Any]]:
    """The answer to `ringfence policy list`."""
    return PolicyQuery(manager(found), mode).rules({})


def test_a_blind_rule_has_a_row_with_its_reason() -> None:
    """It is not in the kernel, and still one of the rules that somebody wrote."""
    [row] = rows(compiled(rule(**ON_DISK)))
    assert (row["enforced"], row["action"], row["mechanism"]) == ("none", "none", "none")
    assert (row["rule"], row["asked"], row["events"]) == ("userns", "deny", ["chmod"])
    assert row["why"] == "only BPF-LSM knows `filesystem`"
    assert row["line"] > 0


def test_a_rule_that_is_blind_on_one_event_has_two_rows() -> None:
    """One for what it enforces, one for what it misses."""
    here, missed = rows(compiled(rule(**BOTH)))
    assert (here["enforced"], here["events"]) == ("kill", ["reboot"])
    assert (missed["enforced"], missed["events"], missed["why"]) == ("none", ["settime"], WHY)


@pytest.mark.parametrize(
    ("mode", "expected"), [("audit", "audit"), ("enforce", "enforce"), ("policy", "enforce")]
)
def test_the_mode_of_a_blind_rule_is_the_agents_or_its_policys(mode: str, expected: str) -> None:
    """As of every other rule."""
    [row] = rows(compiled(rule(**ON_DISK)), mode)
    assert row["mode"] == expected


def test_without_policies_nothing_is_listed() -> None:
    """The agent has just started."""
    assert rows(None) == []


def test_no_technique_is_covered_by_a_blind_rule() -> None:
    """It has no effect."""
    assert attack_layer(rows(compiled(rule(**ON_DISK))), "n")["techniques"] == []


def test_the_status_names_blind_rules_and_places() -> None:
    """`What this node does not see` is nothing only if it is nothing."""
    query = StatusQuery.__new__(StatusQuery)
    skipped = SimpleNamespace(target="tracepoint/x", reason="no such tracepoint")
    query._kernel = cast(Any, SimpleNamespace(skipped=[skipped]))
    query._manager = manager(compiled(rule(**ON_DISK), rule(id="s", **BOTH)))
    assert query._blind() == [
        "rule userns: only BPF-LSM knows `filesystem`",
        f"rule s on settime: {WHY}",
        "tracepoint/x: no such tracepoint",
    ]
