# SPDX-License-Identifier: Apache-2.0
"""Which of the rules that match one event decides and is named: the strongest, then the files' first."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.abi import Action, EventKind
from ringfence.policy import NodeTiers, compile_policies
from tests.unit.policy.documents import load, policy, rule
from tests.unit.policy.kernel_twin import Asked, Twin

EVENTS = ["unshare", "clone", "setns", "mount", "chroot", "bpf"]
ACTIONS = {
    "alert": Action.ALERT,
    "kill": Action.KILL,
    "deny": Action.KILL,
}  # as a node without BPF-LSM has them


def named(rules: list[dict[str, Any]], event: str, mode: Any) -> str:
    """The id of the rule that the kernel names."""
    compiled = compile_policies(load(policy(*rules)), NodeTiers.usual(), mode)
    _, number = Twin(compiled).verdict(Asked(EventKind.from_label(event)), compiled.bits(compiled.at_birth))
    assert number is not None
    return compiled.rules[number].rule_id


def test_in_audit_the_rule_that_would_have_won_is_named_where_events_are_shared() -> None:
    """The weaker one is on an event with a lower number, too; told alone, it would hide the kill to come."""
    rules = [
        rule(id="kills", event="unshare", match="any", action="kill"),
        rule(id="tells", event=["clone", "unshare"], match="any", action="alert"),
    ]
    assert named(rules, "unshare", "enforce") == "kills"
    assert named(rules, "unshare", "audit") == "kills"
    assert named(rules, "clone", "audit") == "tells"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(EVENTS), min_size=1), st.sampled_from(sorted(ACTIONS))),
        min_size=1,
        max_size=12,
    )
)
def test_the_strongest_and_then_the_first_is_named_in_both_modes(made: list[tuple[set[str], str]]) -> None:
    """Whatever events rules have in common."""
    rules = [
        rule(id=f"r{n}", event=sorted(events), match="any", action=action)
        for n, (events, action) in enumerate(made)
    ]
    for event in {event for events, _ in made for event in events}:
        some = [(-ACTIONS[action], n) for n, (events, action) in enumerate(made) if event in events]
        for mode in ("audit", "enforce"):
            assert named(rules, event, mode) == f"r{min(some)[1]}", (event, mode)
