# SPDX-License-Identifier: Apache-2.0
"""Reads one rule of a policy file: YAML nodes -> Rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ringfence.abi import Action, EventKind
from ringfence.policy.conditions import parse_condition, suggestion
from ringfence.policy.fields import Diagnostics, shown
from ringfence.policy.model import Condition, Match, Place, Requirement, Rule, ScopedException, Traits
from ringfence.policy.operand import EventWords
from ringfence.policy.probe_reader import check_action, probe_words, read_block, read_exceptions
from ringfence.policy.probe_rules import PREFIX, ProbeRule, ProbeWords
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode
from ringfence.policy.traits import read_some
from ringfence.policy.vocabulary import OF_THE_HOST, event_words, labels
from ringfence.severity import SEVERITIES

__all__ = ["ATTACK", "REQUIREMENTS", "RULE_ID", "RULE_KEYS", "read_rules"]

RULE_ID = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
ATTACK = re.compile(r"T[0-9]{4}(\.[0-9]{3})?")
_REQUIRED = ("id", "title", "severity", "event", "match", "action")
RULE_KEYS = (*_REQUIRED, "attack", "references", "exceptions", "require", "otherwise")
_ALSO = ("why", "for")  # keys of exceptions that are no operands
_ACTIONS = {"alert": Action.ALERT, "kill": Action.KILL, "deny": Action.DENY}
_OTHERWISE = {"kill": Action.KILL, "alert": Action.ALERT, "skip": Action.NONE}
#: words of `require`
REQUIREMENTS = tuple(filter(None, Requirement))
_MAX_TITLE = 120

Events = Sequence[tuple[EventKind, EventWords]]


def read_rules(
    diagnostics: Diagnostics, node: Node, where: str, probes: Mapping[str, ProbeWords]
) -> tuple[tuple[Rule, ...], tuple[ProbeRule, ...]]:
    """Returns the rules on events, and the rules on custom probes. Unreadable rules are errors."""
    if not isinstance(node, SequenceNode) or not node.items:
        diagnostics.add(node, where, "must be a list of at least one rule")
        return (), ()
    rules = [_rule(diagnostics, item, f"{where}[{index}]", probes) for index, item in enumerate(node.items)]
    return (
        tuple(rule for rule in rules if isinstance(rule, Rule)),
        tuple(rule for rule in rules if isinstance(rule, ProbeRule)),
    )


def _rule(
    diagnostics: Diagnostics, node: Node, where: str, probes: Mapping[str, ProbeWords]
) -> Rule | ProbeRule | None:
    keys = diagnostics.mapping(node, where, RULE_KEYS, _REQUIRED)
    if keys is None:
        return None
    event = keys.get("event")
    if isinstance(event, Scalar) and event.text.startswith(PREFIX):
        return _probe_rule(diagnostics, node, where, keys, probes)

    def place(key: str) -> str:
        return f"{where}.{key}"

    events = _events(diagnostics, keys["event"], place("event")) if "event" in keys else ()
    action, require, otherwise = _response(diagnostics, keys, where)
    rule_id, title, severity = _identity(diagnostics, keys, where)
    exceptions = (
        _exceptions(diagnostics, keys["exceptions"], place("exceptions"), events)
        if "exceptions" in keys
        else []
    )
    return Rule(
        id=rule_id,
        title=title,
        severity=severity,
        attack=_attack(diagnostics, keys, where),
        events=tuple(kind for kind, _ in events),
        match=_match(diagnostics, keys["match"], place("match"), events)
        if "match" in keys and events
        else {},
        exceptions=tuple(block for scope, block in exceptions if scope is None),
        scoped=tuple(ScopedException(scope, block) for scope, block in exceptions if scope is not None),
        action=action,
        require=require,
        otherwise=otherwise,
        references=diagnostics.texts(keys["references"], place("references")) if "references" in keys else (),
        place=Place(diagnostics.file, node.line, node.column),
    )


def _identity(diagnostics: Diagnostics, keys: Mapping[str, Node], where: str) -> tuple[str, str, str]:
    """Reads id, title and severity."""
    rule_id = title = severity = ""
    if "id" in keys:
        rule_id = diagnostics.text(
            keys["id"], f"{where}.id", RULE_ID, "an id (at most 63 characters of a-z, 0-9, `-` and `.`)"
        )
    if "title" in keys:
        title = diagnostics.text(
            keys["title"], f"{where}.title", expected="one line that describes what happened"
        ).strip()
        if len(title) > _MAX_TITLE or "\n" in title:
            diagnostics.add(
                keys["title"], f"{where}.title", f"must be one line of at most {_MAX_TITLE} characters"
            )
    if "severity" in keys:
        severity = diagnostics.choice(keys["severity"], f"{where}.severity", SEVERITIES) or ""
    return rule_id, title, severity


def _probe_rule(
    diagnostics: Diagnostics,
    node: Node,
    where: str,
    keys: Mapping[str, Node],
    probes: Mapping[str, ProbeWords],
) -> ProbeRule | None:
    """Reads a rule on a custom probe, which user space decides."""
    words = probe_words(diagnostics, keys["event"], f"{where}.event", probes)
    rule_id, title, severity = _identity(diagnostics, keys, where)
    action, _, _ = _response(diagnostics, keys, where)
    if words is None:
        return None
    if "action" in keys:
        check_action(diagnostics, keys, f"{where}.action", action, words)
    exceptions = keys.get("exceptions")
    return ProbeRule(
        id=rule_id,
        title=title,
        severity=severity,
        attack=_attack(diagnostics, keys, where),
        label=words.label,
        match=read_block(diagnostics, keys["match"], f"{where}.match", words) if "match" in keys else (),
        exceptions=read_exceptions(diagnostics, exceptions, f"{where}.exceptions", words)
        if exceptions
        else (),
        action=action,
        place=Place(diagnostics.file, node.line, node.column),
    )


def _attack(diagnostics: Diagnostics, keys: Mapping[str, Node], where: str) -> tuple[str, ...]:
    if "attack" not in keys:
        return ()
    return diagnostics.texts(
        keys["attack"], f"{where}.attack", ATTACK, "an ATT&CK technique such as T1611 or T1055.008"
    )


def _events(diagnostics: Diagnostics, node: Node, where: str) -> Events:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    if not items:
        diagnostics.add(node, where, "is an empty list")
    found: dict[EventKind, EventWords] = {}
    for item in items:
        words = event_words(item.text) if isinstance(item, Scalar) else None
        if words is None:
            got = shown(item.text) if isinstance(item, Scalar) else "this"
            hint = suggestion(item.text, labels()) if isinstance(item, Scalar) else ""
            diagnostics.add(item, where, f"{got} is not an event{hint}")
        elif words[0] in found:
            diagnostics.add(item, where, f"{words[1].label!r} is given twice")
        else:
            found[words[0]] = words[1]
    return tuple(found.items())


def _response(
    diagnostics: Diagnostics, keys: Mapping[str, Node], where: str
) -> tuple[Action, Requirement, Action]:
    word = (
        diagnostics.choice(keys["action"], f"{where}.action", tuple(_ACTIONS)) if "action" in keys else None
    )
    action = _ACTIONS.get(word or "", Action.ALERT)
    require = Requirement.NOTHING
    if "require" in keys:
        require = Requirement(diagnostics.choice(keys["require"], f"{where}.require", REQUIREMENTS) or "")
    otherwise = Action.KILL
    if "otherwise" in keys:
        chosen = diagnostics.choice(keys["otherwise"], f"{where}.otherwise", tuple(_OTHERWISE))
        otherwise = _OTHERWISE[chosen or "kill"]
    for key in ("require", "otherwise"):
        if key in keys and word is not None and action is not Action.DENY:
            diagnostics.add(keys[key], f"{where}.{key}", "is only allowed with `action: deny`")
    if require and "otherwise" in keys:
        diagnostics.add(keys["otherwise"], f"{where}.otherwise", "is not allowed with `require`")
    return action, require, otherwise


def _match(diagnostics: Diagnostics, node: Node, where: str, events: Events) -> Mapping[EventKind, Match]:
    if isinstance(node, Scalar) and node.text == "any":
        return {kind: () for kind, _ in events}
    return _block(diagnostics, node, where, events)


def _exceptions(
    diagnostics: Diagnostics, node: Node, where: str, events: Events
) -> list[tuple[Traits | None, Mapping[EventKind, Match]]]:
    """Returns each exception with the containers that it is for; None: all."""
    if not isinstance(node, SequenceNode) or not node.items:
        diagnostics.add(node, where, "must be a list of at least one match block")
        return []
    found = []
    for index, item in enumerate(node.items if events else ()):
        scope = _scope(diagnostics, item, f"{where}[{index}]", events)
        block = _block(diagnostics, item, f"{where}[{index}]", events, exception=True)
        if block:
            found.append((scope, block))
    return found


def _scope(diagnostics: Diagnostics, node: Node, where: str, events: Events) -> Traits | None:
    """Reads the `for` of an exception."""
    items = node.items if isinstance(node, MappingNode) else ()
    given = next((item.value for item in items if item.key.text == "for"), None)
    if given is None:
        return None
    if any(kind in OF_THE_HOST for kind, _ in events):
        diagnostics.add(given, f"{where}.for", "has no meaning here: the event belongs to no container")
    return read_some(diagnostics, given, f"{where}.for", "write the containers that it is for")


def _block(
    diagnostics: Diagnostics, node: Node, where: str, events: Events, *, exception: bool = False
) -> Mapping[EventKind, Match]:
    """Reads a match block once for every event of the rule; its keys must be operands of all of them."""
    if not isinstance(node, MappingNode):
        everything = "" if exception else ", or the word `any`, which matches every such event"
        diagnostics.add(node, where, f"must be a mapping of operands to values{everything}")
        return {}
    keys = diagnostics.mapping(node, where, _common_operands(events) + list(_ALSO if exception else ())) or {}
    reason, scope = keys.pop("why", None), keys.pop("for", None)
    if reason is not None:
        diagnostics.text(reason, f"{where}.why")
    if not keys and scope is None:
        if not node.items or exception:
            diagnostics.add(node, where, "is empty: it would match everything")
        return {}
    return {
        kind: _conditions(diagnostics, keys, where, words, quiet=i > 0)
        for i, (kind, words) in enumerate(events)
    }


def _common_operands(events: Events) -> list[str]:
    first = [operand.name for operand in events[0][1].operands]
    return [name for name in first if all(words.operand(name) for _, words in events[1:])]


def _conditions(
    diagnostics: Diagnostics, keys: Mapping[str, Node], where: str, words: EventWords, *, quiet: bool
) -> Match:
    """Reads the conditions of a block for one event.

    `quiet`: the block was already read for another event of the rule; its errors are not reported twice.
    """
    conditions: list[Condition] = []
    reported = {(p.line, p.column, p.message) for p in diagnostics.problems} if quiet else set()
    for name, node in keys.items():
        operand = words.operand(name)
        if operand is None:
            continue

        def complain(at: Node, message: str, place: str = f"{where}.{name}") -> None:
            if (at.line, at.column, message) not in reported:
                diagnostics.add(at, place, message)

        condition = parse_condition(operand, node, complain)
        if condition is not None:
            conditions.append(condition)
    return tuple(conditions)
