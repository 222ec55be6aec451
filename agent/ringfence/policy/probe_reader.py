# SPDX-License-Identifier: Apache-2.0
"""Reads a rule on a custom probe's events: YAML nodes -> ProbeRule. Errors have their locations."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from ringfence.abi import Action
from ringfence.policy.conditions import suggestion
from ringfence.policy.fields import Diagnostics, shown
from ringfence.policy.probe_rules import Block, FieldTest, FieldWords, ProbeWords, Test, Value
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode

__all__ = ["check_action", "probe_words", "read_block", "read_exceptions"]

# The number of digits is limited: Python refuses to convert thousands of them, and no field has more.
_COMPARISON = re.compile(r"(>=|<=|>|<)\s*(-?[0-9]{1,20})")
_RANGE = re.compile(r"(-?[0-9]{1,20})-(-?[0-9]{1,20})")
_NUMBER = re.compile(r"-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16}")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}
_MAX_VALUES = 256


def probe_words(
    diagnostics: Diagnostics, node: Node, where: str, probes: Mapping[str, ProbeWords]
) -> ProbeWords | None:
    """Returns the vocabulary of the event `probe.NAME`; None, with an error, if there is no such probe."""
    label = node.text if isinstance(node, Scalar) else ""
    found = probes.get(label)
    if found is None:
        none = "" if probes else " (set `probes.directory`, or use `policy check --probes DIR`)"
        diagnostics.add(
            node, where, f"{shown(label)} is not a probe of this node{suggestion(label, [*probes])}{none}"
        )
    elif found.broken:
        diagnostics.add(node, where, f"{label} has errors: see {found.broken}")
        return None
    return found


def check_action(
    diagnostics: Diagnostics, keys: Mapping[str, Node], where: str, action: Action, words: ProbeWords
) -> None:
    """Checks the action. A probe reports after the fact: nothing can be denied, and a kill needs a task."""
    if action is Action.DENY:
        message = f"{words.label} reports what has already happened: use alert or kill"
        diagnostics.add(keys["action"], where, message)
    elif action is Action.KILL and not words.in_task:
        message = f"{words.label} does not identify the task (`container: task` in its YAML): use alert"
        diagnostics.add(keys["action"], where, message)


def read_exceptions(diagnostics: Diagnostics, node: Node, where: str, words: ProbeWords) -> tuple[Block, ...]:
    """Reads the list under `exceptions`."""
    if not isinstance(node, SequenceNode) or not node.items:
        diagnostics.add(node, where, "must be a list of at least one match block")
        return ()
    return tuple(
        read_block(diagnostics, item, f"{where}[{index}]", words, why=True)
        for index, item in enumerate(node.items)
    )


def read_block(
    diagnostics: Diagnostics, node: Node, where: str, words: ProbeWords, *, why: bool = False
) -> Block:
    """Reads a match block, or with `why` one of `exceptions`."""
    if isinstance(node, Scalar) and node.text == "any" and not why:
        return ()
    if not isinstance(node, MappingNode) or not node.items:
        more = "" if why else ", or the word `any`"
        diagnostics.add(node, where, f"must be a mapping of fields of {words.label} to values{more}")
        return ()
    found: list[FieldTest] = []
    for item in node.items:
        name = item.key.text
        if why and name == "why":
            continue
        field = words.fields.get(name)
        if field is None:
            diagnostics.add(
                item.key, where, f"{words.label} has no field {name!r}{suggestion(name, [*words.fields])}"
            )
        elif any(test.field == name for test in found):
            diagnostics.add(item.key, where, f"{name!r} is given twice")
        else:
            found.append(_read_test(diagnostics, item.value, f"{where}.{name}", name, field))
    if why and not found:
        diagnostics.add(node, where, "is empty: it would except every event")
    return tuple(found)


def _read_test(diagnostics: Diagnostics, node: Node, where: str, name: str, field: FieldWords) -> FieldTest:
    negated = False
    if isinstance(node, MappingNode):
        keys = [item.key.text for item in node.items]
        if keys != ["not"]:
            diagnostics.add(node, where, "must be a value, a list of values, or {not: VALUES}")
            return FieldTest(name, (), negated=False)
        node, negated = node.items[0].value, True
    items = node.items if isinstance(node, SequenceNode) else (node,)
    if not items or len(items) > _MAX_VALUES:
        diagnostics.add(node, where, f"must list 1 to {_MAX_VALUES} values")
    tests = []
    for item in items:
        test = _PARSERS[field.kind](item.text) if isinstance(item, Scalar) and item.text else None
        if test is None:
            diagnostics.add(item, where, f"must be {_EXPECTED[field.kind]}")
        else:
            tests.append(test)
    return FieldTest(name, tuple(tests), negated)


def _number_test(text: str) -> Test | None:
    if found := _COMPARISON.fullmatch(text):
        compare, bound = _COMPARE[found[1]], int(found[2])
        return lambda value: isinstance(value, int) and compare(value, bound)
    if found := _RANGE.fullmatch(text):
        low, high = int(found[1]), int(found[2])
        return (lambda value: isinstance(value, int) and low <= value <= high) if low <= high else None
    if _NUMBER.fullmatch(text):
        wanted = int(text, 0) if text.startswith("0x") else int(text)
        return lambda value: value == wanted
    return None


def _text_test(text: str) -> Test | None:
    if any(letter in text for letter in "*?["):
        return lambda value: isinstance(value, str) and fnmatchcase(value, text)
    return lambda value: value == text


def _ip_test(text: str) -> Test | None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return None

    def inside(value: Value) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        # An IPv6 socket reports IPv4 addresses as ::ffff:a.b.c.d.
        plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return address in network or (plain is not None and plain in network)

    return inside


_PARSERS: Mapping[str, Callable[[str], Test | None]] = {
    "number": _number_test,
    "text": _text_test,
    "ip": _ip_test,
}
_EXPECTED = {
    "number": "a number (5), a range (10-20) or a comparison ('>= 5')",
    "text": "a text; `*`, `?` and `[...]` are wildcards, as in file names",
    "ip": "an address or an address range (10.0.0.0/8)",
}
