# SPDX-License-Identifier: Apache-2.0
"""Of the rules that match an event, the strongest decides and is reported, then the first in file order."""

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
}  # the effective actions without BPF-LSM


def named(rules: list[dict[str, Any]], event: str, mode: Any) -> str:
    """Returns the id of the rule that the kernel reports."""
    compiled = compile_policies(load(policy(*rules)), NodeTiers.usual(), mode)
    _, number = Twin(compiled).verdict(Asked(EventKind.from_label(event)), compiled.bits(compiled.at_birth))
    assert number is not None
    return compiled.rules[number].rule_id


def test_audit_reports_the_rule_that_would_win_although_events_are_shared() -> None:
    """The weaker rule also has an event with a lower number; reporting it would hide the later kill."""
    rules = [
        rule(id="kills", event="unshare", match="any", action="kill"),
        rule(id="alerts", event=["clone", "unshare"], match="any", action="alert"),
    ]
    assert named(rules, "unshare", "enforce") == "kills"
    assert named(rules, "unshare", "audit") == "kills"
    assert named(rules, "clone", "audit") == "alerts"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(EVENTS), min_size=1), st.sampled_from(sorted(ACTIONS))),
        min_size=1,
        max_size=12,
    )
)
def test_the_strongest_and_then_the_first_is_reported_in_both_modes(
    made: list[tuple[set[str], str]],
) -> None:
    """Independent of the events that rules have in common."""
    rules = [
        rule(id=f"r{n}", event=sorted(events), match="any", action=action)
        for n, (events, action) in enumerate(made)
    ]
    for event in {event for events, _ in made for event in events}:
        some = [(-ACTIONS[action], n) for n, (events, action) in enumerate(made) if event in events]
        for mode in ("audit", "enforce"):
            assert named(rules, event, mode) == f"r{min(some)[1]}", (event, mode)
