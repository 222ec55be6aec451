# SPDX-License-Identifier: Apache-2.0
"""Which runbook an alert has, and what happened in a sentence: one table for the alert's own line, the
receivers, and (by a test) the shipped Prometheus rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ringfence.response.builtin import POLICY
from ringfence.severity import number_of

__all__ = ["Page", "page_of"]


class Page(NamedTuple):
    """A runbook of docs/runbooks, without its ending, and what it is about."""

    name: str
    sentence: str
    effect: bool = False  # something may have taken effect: what high severity makes critical


_HIGH = 4  # of number_of
_SEEN = Page(
    "escape-not-stopped", "The call may have taken effect: this rule only reports on that node.", effect=True
)
_AUDIT = Page("would-have-stopped", "The policy is in mode audit, so the call took place.")
_OUTCOMES = {
    "denied": Page("escape-denied", "The call was denied before it took effect."),
    "killed": Page(
        "escape-denied", "The process was killed as it made the call; look for what the call may have left."
    ),
    "would-deny": _AUDIT,
    "would-kill": _AUDIT,
    "kill-failed": Page(
        "escape-not-stopped",
        "The call may have taken effect, and the process could not be killed.",
        effect=True,
    ),
}
_FOUND = Page("detector-finding", "A detector reported this; how the single calls ended is in their alerts.")
#: (policy, rule) of those that have a page whatever the outcome
_RULES = {
    ("detectors", "agent-tampered"): Page(
        "agent-tampered", "A resource of the agent was changed, and restored if possible.", effect=True
    ),
    ("detectors", "preemption-changed"): Page(
        "preemption-switched", "From then on the kernel may skip programs that decide: see `when_skipped`."
    ),
    (POLICY, "container-condemned"): Page(
        "container-condemned",
        "A call could not be denied, and its effect may stay; all tasks of the container were killed.",
        effect=True,
    ),
    ("detectors", "helper-changed"): Page(
        "host-changed", "This has taken effect: the host's kernel runs another program as root.", effect=True
    ),
}


def page_of(record: Mapping[str, Any]) -> Page:
    """Returns the page of an alert's record."""
    rule = record.get("rule") or {}
    if found := _RULES.get((str(rule.get("policy")), str(rule.get("id")))):
        return found
    if rule.get("policy") == "detectors":
        return _FOUND
    found = _OUTCOMES.get(str(record.get("outcome")), _SEEN)
    if found.effect and number_of(record.get("severity")) < _HIGH:
        return found._replace(name="medium-not-stopped")
    return found
