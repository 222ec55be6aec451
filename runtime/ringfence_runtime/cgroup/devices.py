# SPDX-License-Identifier: Apache-2.0
"""A container's devices: lines of a version 1 list, or a program of type cgroup/device on version 2."""

from __future__ import annotations

import os
from _struct import pack

from ringfence_runtime.spec.resources import DeviceRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["attach", "effective_rules", "program", "v1_lines"]

# Allowed for every container: creating any node, and using harmless devices and terminals.
_ALWAYS = (
    DeviceRule(True, "c", -1, -1, "m"),
    DeviceRule(True, "b", -1, -1, "m"),
    DeviceRule(True, "c", 1, 3, "rwm"),
    DeviceRule(True, "c", 1, 5, "rwm"),
    DeviceRule(True, "c", 1, 7, "rwm"),
    DeviceRule(True, "c", 1, 8, "rwm"),
    DeviceRule(True, "c", 1, 9, "rwm"),
    DeviceRule(True, "c", 5, 0, "rwm"),
    DeviceRule(True, "c", 5, 2, "rwm"),
    DeviceRule(True, "c", 136, -1, "rwm"),
)
_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPES = {"b": 1, "c": 2}


def effective_rules(rules: Sequence[DeviceRule]) -> list[DeviceRule]:
    """Returns the effective rules in order, each with one type; a rule for all devices replaces earlier."""
    result: list[DeviceRule] = []
    for rule in (*rules, *_ALWAYS):
        if rule.type != "a":
            result.append(rule)
        elif rule.major < 0 and rule.minor < 0 and set(rule.access) == set("rwm"):
            result = [rule]
        else:
            result.extend(DeviceRule(rule.allow, kind, rule.major, rule.minor, rule.access) for kind in "cb")
    return result


def v1_lines(rules: Sequence[DeviceRule]) -> list[tuple[str, str]]:
    """Returns (file, line) in the order of writing; the first line sets the default."""
    effective = effective_rules(rules)
    lines = [] if effective and effective[0].type == "a" else [("devices.deny", "a *:* rwm")]
    return lines + [("devices.allow" if rule.allow else "devices.deny", rule.line()) for rule in effective]


def _insn(code: int, dst: int, src: int, offset: int, imm: int) -> bytes:
    return pack("BBhi", code, src << 4 | dst, offset, imm)


def _rule(rule: DeviceRule) -> bytes:
    """Returns the instructions of one rule: return its verdict if it matches, else jump past them.

    r2 = type, r3 = requested access, r4 = major, r5 = minor. An allow rule matches if it contains every
    requested access; a deny rule matches if it contains any.
    """
    tests: list[tuple[int, int, int]] = []  # (register, jump code, value): jump out when it does not match
    if rule.type != "a":
        tests.append((2, 0x55, _TYPES[rule.type]))  # jne
    mask = sum(_ACCESS[letter] for letter in set(rule.access))
    if rule.major >= 0:
        tests.append((4, 0x55, rule.major))
    if rule.minor >= 0:
        tests.append((5, 0x55, rule.minor))
    access: list[bytes] = []
    if mask != 7:
        access = [_insn(0xBC, 1, 3, 0, 0), _insn(0x54, 1, 0, 0, ~mask & 7 if rule.allow else mask)]
    size = len(tests) + len(access) + (1 if access else 0) + 2
    code = b""
    position = 0
    for register, jump, value in tests:
        position += 1
        code += _insn(jump, register, 0, size - position, value)
    for instruction in access:
        position += 1
        code += instruction
    if access:
        position += 1
        # allow: any bit outside the mask -> no match (jne 0); deny: no bit inside it -> no match (jeq 0)
        code += _insn(0x55 if rule.allow else 0x15, 1, 0, size - position, 0)
    return code + _insn(0xB4, 0, 0, 0, int(rule.allow)) + _insn(0x95, 0, 0, 0, 0)


def program(rules: Sequence[DeviceRule]) -> bytes:
    """Returns the rules as eBPF instructions: the last matching rule decides; the default is to deny."""
    code = (
        _insn(0x61, 2, 1, 0, 0)  # r2 = access_type
        + _insn(0xBC, 3, 2, 0, 0)
        + _insn(0x54, 2, 0, 0, 0xFFFF)  # r2 = type
        + _insn(0x74, 3, 0, 0, 16)  # r3 = access
        + _insn(0x61, 4, 1, 4, 0)
        + _insn(0x61, 5, 1, 8, 0)  # r4 = major, r5 = minor
    )
    for rule in reversed(effective_rules(rules)):
        code += _rule(rule)
        if rule.type == "a":
            return code  # a rule for everything ends the program; nothing after it could be reached
    return code + _insn(0xB4, 0, 0, 0, 0) + _insn(0x95, 0, 0, 0, 0)


def attach(directory: str, rules: Sequence[DeviceRule]) -> None:
    """Attaches the program to a version 2 cgroup; detaches the previous one afterwards (no gap)."""
    from ringfence_runtime.cgroup import bpf

    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = bpf.attached(group)
        fd = bpf.load(program(rules))
        try:
            bpf.attach(group, fd)
        finally:
            os.close(fd)
        for old in before:
            bpf.detach(group, old)
            os.close(old)
    finally:
        os.close(group)
