# SPDX-License-Identifier: Apache-2.0
"""Creates the series of alert counters before the first alert. A counter that appears with the
value 1 never increases for Prometheus, so its alert would never fire.

Every rule in force, and every detector, gets a series at 0 for each outcome that is possible on
this node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ringfence.abi import Action, Mechanism
from ringfence.export.stats import Stats
from ringfence.policy import CompiledPolicies, CompiledRule
from ringfence.policy.probe_rules import ProbeRule
from ringfence.response.alert import Outcome
from ringfence.response.detectors import DETECTORS

__all__ = ["make_builtin_series", "make_series"]


def make_series(
    stats: Stats, compiled: CompiledPolicies, mode: str = "policy", off: Collection[str] = ()
) -> None:
    """Make the missing series of these rules. Called by the loop, or before it runs.

    `mode` is the agent's, which rules on custom probes follow; `policy` leaves each policy its
    own. `off`: detectors that are switched off.
    """
    for detector in DETECTORS.values():
        if detector.id not in off:
            _make(stats, (detector.id, detector.severity, "alert"), detector.attack, Outcome.SEEN)
    for rule in compiled.rules.values():
        for outcome in _outcomes(rule):
            _make(stats, (rule.rule_id, rule.severity, rule.asked_action.label), rule.attack, outcome)
    for policy in compiled.policies.policies:
        mode_here = policy.mode if mode == "policy" else mode
        for probe_rule in policy.probe_rules:
            for outcome in _outcomes_of_events(probe_rule, mode_here):
                head = (probe_rule.id, probe_rule.severity, probe_rule.action.label)
                _make(stats, head, probe_rule.attack, outcome)


def make_builtin_series(stats: Stats, rules: Iterable[CompiledRule]) -> None:
    """The same for rules that are in no policy. User space refuses peers as well, so `denied` is
    possible.
    """
    for rule in rules:
        for outcome in {*_outcomes(rule), Outcome.DENIED if rule.mode == "enforce" else Outcome.SEEN}:
            _make(stats, (rule.rule_id, rule.severity, rule.asked_action.label), rule.attack, outcome)


def _make(stats: Stats, head: tuple[str, str, str], attack: Iterable[str], outcome: Outcome) -> None:
    rule = stats.series(head[0])  # `other` if there are too many rules
    stats.alerts[rule, *head[1:], str(outcome)] += 0
    stats.alerts_suppressed[rule] += 0
    for technique in attack:
        stats.attempts.add_series(technique, str(outcome))


def _outcomes_of_events(rule: ProbeRule, mode: str) -> Iterator[Outcome]:
    """The possible outcomes of a rule that user space decides after the event."""
    if rule.action is not Action.KILL:
        yield Outcome.SEEN
    elif mode == "audit":
        yield Outcome.WOULD_KILL
    else:
        yield Outcome.KILLED
        yield Outcome.KILL_FAILED


def _outcomes(rule: CompiledRule) -> Iterator[Outcome]:
    """The possible results of `outcome_of` for this rule."""
    if rule.action is Action.DENY:
        yield Outcome.DENIED
    elif rule.action is Action.KILL:
        yield Outcome.DENIED if rule.mechanism is Mechanism.CGROUP else Outcome.KILLED
        yield Outcome.KILL_FAILED
    elif rule.mode == "audit":
        would = {Action.DENY: Outcome.WOULD_DENY, Action.KILL: Outcome.WOULD_KILL}
        yield would.get(rule.enforced.action, Outcome.SEEN)
    else:
        yield Outcome.SEEN
