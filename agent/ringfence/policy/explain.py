# SPDX-License-Identifier: Apache-2.0
"""Explains policies in words: when each rule matches, its effective action on a node, its weaknesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.policy.lower import TooMany, lower
from ringfence.policy.model import Condition, Match, Policy, PolicySet, Rule, Selector, Traits
from ringfence.policy.operand import Kind, Texts
from ringfence.policy.probe_rules import ProbeRule
from ringfence.policy.tiers import NodeTiers, Outcome, may_be_unknown
from ringfence.policy.vocabulary import EVENTS

__all__ = ["cautions", "explain", "explain_rule", "selector_in_words"]

_BY = {
    Mechanism.LSM: "before its effect, by BPF-LSM: the call fails with EPERM",
    Mechanism.HOOK: "before its effect, at the kernel's security function: the call fails with EPERM",
    Mechanism.CGROUP: "before its effect, by cgroup-BPF: the call fails with EPERM",
    Mechanism.KILL: "by SIGKILL: the process never returns from the call, which may have taken effect",
    Mechanism.OBSERVE: "observed and reported",
}


def explain(
    policies: PolicySet,
    only: frozenset[str] = frozenset(),
    node: NodeTiers | None = None,
    tried: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[str]:
    """Yields lines about every rule, or those in `only`. `node` None: a typical one, without BPF-LSM.

    `tried`: rule id -> how the rule is tested.
    """
    tiers = node or NodeTiers.usual()
    for policy in policies.policies:
        rules = [rule for rule in policy.rules if not only or rule.id in only]
        on_probes = [rule for rule in policy.probe_rules if not only or rule.id in only]
        if not rules and not on_probes:
            continue
        yield f"{policy.name} ({policy.place.file}:{policy.place.line}): {_mode(policy)}"
        yield f"  for {selector_in_words(policy.selector)}"
        for rule in rules:
            yield ""
            yield from (f"  {line}" for line in explain_rule(rule, tiers))
            yield from (f"    tested by {how}" for how in (tried or {}).get(rule.id, ()))
        for probe_rule in on_probes:
            yield ""
            yield from (f"  {line}" for line in _on_probe(probe_rule))
        yield ""


def _on_probe(rule: ProbeRule) -> list[str]:
    """Explains a rule on a custom probe, with the names in its file."""
    attack = f" {' '.join(rule.attack)}" if rule.attack else ""
    what = "alert" if rule.action is Action.ALERT else "kill by SIGKILL from the agent, milliseconds later"
    named = ", ".join(test.field for test in rule.match) or "any event"
    return [
        f"{rule.id} [{rule.severity}{attack}] {rule.title} ({rule.place.file}:{rule.place.line})",
        f"  when {rule.label} reports an event (decided by {named}, in user space)",
        f"  action {rule.action.label}; effective: {what}, after the effect",
    ]


def _mode(policy: Policy) -> str:
    return "enforced" if policy.mode == "enforce" else "audit only: every action becomes an alert"


def selector_in_words(selector: Selector) -> str:
    """Describes the selected containers."""
    selected = "all containers" if selector.only is None else f"containers with {_traits(selector.only)}"
    excluded = "" if selector.but is None else f", except those with {_traits(selector.but)}"
    birth = (
        "from its first instruction"
        if selector.at_birth
        else "once the agent has identified it (milliseconds)"
    )
    return f"{selected}{excluded}; a new container {birth}"


def _traits(traits: Traits) -> str:
    parts = [
        f"{word} {' or '.join(globs)}"
        for word, globs in (
            ("name", traits.names),
            ("image", traits.images),
            ("runtime", traits.runtimes),
            ("namespace", traits.namespaces),
            ("pod", traits.pods),
            ("workload", traits.workloads),
        )
        if globs
    ]
    parts += [f"label {key}={glob}" for key, glob in traits.labels]
    if traits.handler is not None:
        parts.append(f"handler {traits.handler}")
    if traits.privileged is not None:
        parts.append("full privileges" if traits.privileged else "less than full privileges")
    return " and ".join(parts)


def explain_rule(rule: Rule, node: NodeTiers) -> list[str]:
    """Explains one rule: a sentence, its effective action, and cautions for its author."""
    attack = f" {' '.join(rule.attack)}" if rule.attack else ""
    lines = [f"{rule.id} [{rule.severity}{attack}] {rule.title} ({rule.place.file}:{rule.place.line})"]
    events = " or ".join(EVENTS[event].meaning for event in rule.events)
    first = rule.events[0]
    lines.append(f"  when a process {events}{_when(rule.match[first])}")
    lines += [f"  unless {_sentence(block[first])}" for block in rule.exceptions]
    for scoped in rule.scoped:
        what = f" {_sentence(scoped.match[first])}" if scoped.match[first] else ""
        lines.append(f"  unless{what} in containers with {_traits(scoped.scope)}")
    for event, outcome in ((event, node.outcome_of(rule, event)) for event in rule.events):
        where = f" on {event.label}" if len(rule.events) > 1 else ""
        effective = f"{_outcome(rule, outcome, node)}{_hooks(node, event)}"
        lines.append(f"  action {rule.action.label}{where}; effective: {effective}")
        if node.limits(event):
            lines.append(f"  caution: {node.limits(event)}")
    if node.skips and any(event in node.hooks for event in rule.events):
        lines.append(f"  caution: {node.skips}")
    lines += [f"  caution: {text}" for text in cautions(rule, node)]
    return lines


def _when(match: Match) -> str:
    return f", and {_sentence(match)}" if match else ""


def _sentence(match: Match) -> str:
    return " and ".join(f"{condition.operand} is {_any_of(condition)}" for condition in match)


def _any_of(condition: Condition) -> str:
    words = condition.written.split(", ")
    return condition.written if len(words) < 3 else f"any of {condition.written}"


def _outcome(rule: Rule, outcome: Outcome, node: NodeTiers) -> str:
    if outcome.action is Action.NONE:
        return f"{'none' if rule.otherwise is Action.NONE else 'BLIND'}, {outcome.why}"
    if lack := node.lacks_for(rule.require, outcome):
        return f"REFUSED, it requires {rule.require}, but {lack}"
    why = f" ({outcome.why})" if outcome.why else ""
    return f"{outcome.action.label} {_BY[outcome.mechanism]}{why}"


def _hooks(node: NodeTiers, event: EventKind) -> str:
    hooks = node.hooks.get(event, ())
    return f" (hook{'s' if len(hooks) > 1 else ''} {', '.join(hooks)})" if hooks else ""


def cautions(rule: Rule, node: NodeTiers | None = None) -> list[str]:
    """Returns how the rule can be evaded, and its cost if that matters. Each text once.

    `node` None: on a typical node, without BPF-LSM.
    """
    found: dict[str, None] = {}
    for event in rule.events:
        text_is_safe = node is not None and node.has_text(event)
        found.update(dict.fromkeys(_weak_operands(rule, event, text_is_safe=text_is_safe)))
        found.update(dict.fromkeys(_dead_exceptions(rule, event)))
        if node is None or event not in node.hooks:
            found.update(dict.fromkeys(_wide_exceptions(rule, event)))
        if EVENTS[event].hot and not _tests_early(rule.match[event]):
            found[f"{event.label}: {EVENTS[event].hot}"] = None
    return list(found)


def _weak_operands(rule: Rule, event: EventKind, *, text_is_safe: bool) -> Iterator[str]:
    words = EVENTS[event]
    for match in (block[event] for block in rule.blocks):
        for condition in match:
            operand = words.operand(condition.operand)
            if operand is not None and operand.kind is Kind.TEXT and text_is_safe:
                continue
            if operand is not None and operand.caution:
                yield f"`{operand.name}` of {event.label} is decided by a string: {operand.caution}"
            elif operand is not None and operand.kind is Kind.OBJECT and _has_plain_path(condition):
                yield (
                    f"`{operand.name}` without a filesystem matches that path on every filesystem, and is "
                    "tested for every open: add the filesystem (proc:..., disk:...). The path starts at the "
                    "filesystem's root, so a file in /proc, /dev, /run or a volume has another path"
                )


def _has_plain_path(condition: Condition) -> bool:
    return any(isinstance(c[0], Texts) or c[0].dim != 0 for c in condition.alternatives if c)


def _wide_exceptions(rule: Rule, event: EventKind) -> Iterator[str]:
    for block in rule.blocks[1:]:
        for condition in block[event]:
            operand = EVENTS[event].operand(condition.operand)
            if operand and operand.by_hook and may_be_unknown(condition, operand.dim):
                yield (
                    f"where BPF-LSM does not decide {event.label}, `{operand.name}` is not known, and the "
                    f"exception `{operand.name}: {condition.written}` always holds"
                )


def _dead_exceptions(rule: Rule, event: EventKind) -> Iterator[str]:
    try:
        whole = lower(rule, event)
    except TooMany as error:
        yield f"on {event.label} it {error}"
        return
    if rule.blocks[1:] and not any(atom.most for atom in whole):
        yield f"no exception can ever hold on {event.label}: none overlaps with what the rule matches"


def _tests_early(match: Match) -> bool:
    """Returns True if the rule tests the first dim, so that its lookup drops most events."""
    return any(
        p.dim == 0 for condition in match for alternative in condition.alternatives for p in alternative
    )
