# SPDX-License-Identifier: Apache-2.0
"""The compiled tables, evaluated as in the kernel, give the same result as the rules read one by one."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.abi import Action, EventKind
from ringfence.policy import CompiledPolicies, NodeTiers, PolicySet, Rule, compile_policies
from ringfence.policy.model import Match
from ringfence.policy.operand import Networks, Predicate, Texts, fnv1a
from tests.unit.policy.documents import load, policy, rule
from tests.unit.policy.kernel_twin import Asked, Twin

EXAMPLES = 5000 if os.environ.get("RINGFENCE_FUZZ") else 300
PROGRAMS = ["/usr/bin/a", "/usr/bin/b"]
TASKS = ["root", "host-pid", {"none": ["in-user-namespace"]}, {"all": ["root", "no-seccomp"]}]
#: event -> operand -> values that a rule may give it
OPERANDS: dict[str, dict[str, list[Any]]] = {
    "clone": {"flags": ["CLONE_NEWUSER", ["CLONE_NEWNS", "CLONE_NEWPID"],
                        {"all": ["CLONE_NEWUSER", "CLONE_NEWNS"]},
                        {"any": ["CLONE_NEWNET"], "none": ["CLONE_NEWUSER"]}]},
    "mount": {"flags": ["MS_BIND", {"none": ["MS_REMOUNT", "MS_BIND"]}],
              "fstype": ["ext4", ["cgroup", "proc"], "cgr*", {"not": ["tmpfs", "pro*"]}, "*"]},
    "setns": {"nstype": ["CLONE_NEWNET", {"all": ["CLONE_NEWNET"], "none": ["CLONE_NEWNS"]}],
              "target": ["host", ["host", "other"], {"not": ["self"]}]},
    "file.open": {"path": ["proc:sys/kernel/core_pattern", ["cgroup:**/release_agent", "proc:sys/**"],
                           "proc:sys/k*", ["sysfs:**", "disk:etc/**/passwd"], "/etc/passwd", "**/mem"],
                  "filesystem": ["proc", ["disk", "cgroup"], {"not": ["proc", "ext4"]}],
                  "access": ["read", "write"], "type": ["file", {"not": ["block-device"]}],
                  "mount": ["foreign", ["none", "foreign"]], "name": ["passwd", {"not": ["mem"]}],
                  "flags": ["O_CREAT", {"none": ["O_TRUNC"]}]},
    "device.access": {"device": ["b *:*", ["c 1:3", "b 8:*"], ["c 1:*", "a *:*"], "a 8:1"],
                      "access": ["mknod", {"all": ["read", "write"]}]},
    "network.connect": {"address": ["169.254.169.254", ["10.0.0.0/8", "10.1.0.0/16"], "fd00:ec2::254",
                                    {"not": ["10.1.0.0/16", "0.0.0.0/0"]}, "::/0"],
                        "port": [80, ["8000-8003", 443], {"not": [80]}], "family": ["AF_INET"]},
    "unix.connect": {"socket": ["/run/x.sock", ["@shim/*", "/run/**"], {"not": ["/run/x.sock"]}]},
    "sysctl.access": {"sysctl": ["kernel/core_pattern", ["vm/*", "kernel.core_pattern"]],
                      "access": ["write"]},
}  # fmt: skip
#: values of events: those that the rules above name, and similar ones
NUMBERS = {
    "clone": [[0, 0x10000000, 0x20000, 0x10020000, 0x50000000, 0x40000011, 0x20000000]],
    "mount": [[0, 4096, 32, 4128, 16384]],
    "setns": [[0x40000000, 0x40020000, 0x20000, 0], [0, 1, 3, 4]],
    "file.open": [[0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0xEF53, 0x1], [0, 1, 2, 0o100, 0o1001],
                  [0o100000, 0o100000 | 1 << 16, 0o60000, 0o60000 | 2 << 16, 0o40000],
                  [fnv1a(name) for name in (b"passwd", b"mem", b"release_agent", b"other")]],
    "device.access": [[1, 2], [1, 2, 4, 6], [1 << 20 | 3, 8 << 20 | 1, 8 << 20 | 2, 7 << 20], [1, 8, 7]],
    "network.connect": [[80, 443, 8000, 8003, 8004], [2, 10], [6]],
    "unix.connect": [[0]],
    "sysctl.access": [[0, 1]],
}  # fmt: skip
STRINGS = {
    "mount": [b"", b"ext4", b"ext", b"ext44", b"cgroup", b"cgroup2", b"cgr", b"proc", b"tmpfs", b"x" * 200],
    "file.open": [
        b"/sys/kernel/core_pattern",
        b"/sys/kernel",
        b"/sys/x",
        b"/etc/passwd",
        b"/etc/a/passwd",
        b"/7/mem",
    ],
    "unix.connect": [b"/run/x.sock", b"/run/x.sock2", b"/run/y/z", b"\0shim/1", b"\0shim", b"", b"/other"],
    "sysctl.access": [b"kernel/core_pattern", b"vm/swappiness", b"vm", b"kernel/core_pattern_x"],
}
ADDRESSES = [(4, bytes([169, 254, 169, 254])), (4, bytes([10, 1, 2, 3])), (4, bytes([10, 2, 2, 3])),
             (4, bytes([1, 1, 1, 1])), (6, bytes.fromhex("fd000ec2") + bytes(10) + b"\x02\x54"),
             (6, bytes(16)), (6, bytes(10) + b"\xff\xff" + bytes([10, 1, 2, 3]))]  # fmt: skip


@st.composite
def blocks(draw: st.DrawFn, event: str) -> dict[str, Any]:
    """Draws a match block of that event."""
    operands = {**OPERANDS[event], "exe": PROGRAMS, "task": TASKS}
    names = draw(st.lists(st.sampled_from(sorted(operands)), min_size=1, max_size=3, unique=True))
    return {name: draw(st.sampled_from(operands[name])) for name in names}


@st.composite
def rules(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """Draws a rule, often with exceptions."""
    event = draw(st.sampled_from(sorted(OPERANDS)))
    match = "any" if draw(st.integers(0, 9)) == 0 else draw(blocks(event))
    exceptions = draw(st.lists(blocks(event), max_size=2)) or None
    action = draw(st.sampled_from(["alert", "kill", "deny"]))
    return rule(id=f"r{number}", event=event, match=match, exceptions=exceptions, action=action)


@st.composite
def sets(draw: st.DrawFn) -> PolicySet:
    """Draws one to four policies with one to four rules each."""
    made, number = [], 0
    for index in range(draw(st.integers(1, 4))):
        some = []
        for _ in range(draw(st.integers(1, 4))):
            some.append(draw(rules(number)))
            number += 1
        made.append(policy(*some, name=f"p{index}", mode=draw(st.sampled_from(["audit", "enforce"]))))
    return load(*made)


@st.composite
def events(draw: st.DrawFn) -> Asked:
    """Draws an event, mostly with values that a rule could name."""
    label = draw(st.sampled_from(sorted(NUMBERS)))
    numbers = [draw(st.sampled_from(values)) for values in NUMBERS[label]]
    numbers += [0] * (4 - len(numbers))
    return Asked(
        kind=EventKind.from_label(label),
        operands=(numbers[0], numbers[1], numbers[2], numbers[3]),
        facts=draw(st.sampled_from([0, 1, 8, 24, 64, 72, 0x7FFF])),
        exe=fnv1a(draw(st.sampled_from([b"/usr/bin/a", b"/usr/bin/b", b"/usr/bin/c"]))),
        text=draw(st.sampled_from(STRINGS.get(label, [b""]))),
        address=draw(st.sampled_from(ADDRESSES)) if label == "network.connect" else None,
    )


def holds(predicate: Predicate, asked: Asked) -> bool:
    """Returns True if the event satisfies a predicate."""
    if isinstance(predicate, Texts):
        return predicate.holds(asked.text)
    if isinstance(predicate, Networks):
        assert asked.address is not None
        return predicate.holds(*asked.address)
    return predicate.holds(asked.value(predicate.dim))


def matches(match: Match, asked: Asked) -> bool:
    """Returns True if the event satisfies one alternative of each condition of a block."""
    return all(
        any(all(holds(p, asked) for p in alternative) for alternative in c.alternatives) for c in match
    )


def applies(one: Rule, asked: Asked) -> bool:
    """Returns True if the event satisfies the rule's block and no exception."""
    return (
        asked.kind in one.events
        and matches(one.match[asked.kind], asked)
        and not any(matches(block[asked.kind], asked) for block in one.exceptions)
    )


def read_literally(found: PolicySet, active: frozenset[int], asked: Asked) -> tuple[Action, set[str]]:
    """Returns the strongest action of the rules that apply, and the rules with this action."""
    node = NodeTiers.usual()
    by_action: dict[Action, set[str]] = {}
    for index in active:
        one_policy = found.policies[index]
        for one in one_policy.rules:
            if applies(one, asked):
                action = node.outcome(asked.kind, one.action).action
                by_action.setdefault(action if one_policy.mode == "enforce" else Action.ALERT, set()).add(
                    one.id
                )
    strongest = max(by_action, default=Action.NONE)
    return strongest, by_action.get(strongest, set())


def check(found: PolicySet, compiled: CompiledPolicies, active: frozenset[int], asked: Asked) -> None:
    """Checks that both evaluations agree."""
    wanted, wanted_rules = read_literally(found, active, asked)
    action, number = Twin(compiled).verdict(asked, compiled.bits(active))
    assert action == wanted
    if number is None:
        assert not wanted_rules
    else:
        assert compiled.rules[number].rule_id in wanted_rules
        assert compiled.rules[number].action == action


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sets(), st.lists(events(), min_size=1, max_size=12), st.data())
def test_fuzz_tables_are_equivalent_to_the_rules(
    found: PolicySet, asked: list[Asked], data: st.DataObject
) -> None:
    """For any policies, any events, and any subset of the policies in force."""
    compiled = compile_policies(found, NodeTiers.usual())
    everything = range(len(found.policies))
    active = frozenset(data.draw(st.sets(st.sampled_from(everything)))) or frozenset(everything)
    for one in asked:
        check(found, compiled, active, one)


def test_rules_in_several_words_decide_exactly() -> None:
    """Two hundred rules on one event need several words; each value matches only its own rule."""
    many = [
        rule(id=f"p{n}", event="network.connect", match={"port": n}, action="deny") for n in range(1, 201)
    ]
    found = load(*(policy(one, name=f"n{index}") for index, one in enumerate(many)))
    compiled = compile_policies(found, NodeTiers.usual())
    every = compiled.bits(range(200))
    for port in (1, 64, 65, 200, 201):
        asked = Asked(EventKind.NET_CONNECT, (port, 2, 6, 0), address=(4, bytes(4)))
        action, number = Twin(compiled).verdict(asked, every)
        assert (action, number is not None and compiled.rules[number].rule_id) == (
            (Action.DENY, f"p{port}") if port <= 200 else (Action.NONE, False)
        )


def test_audit_reports_the_rule_that_would_have_won() -> None:
    """Regardless of its position: all rules only alert, and the strongest would have decided."""
    alerts = {"event": "network.connect", "match": {"port": 80}, "action": "alert"}
    denies = {"event": "network.connect", "match": {"port": [80, 81]}, "action": "deny"}
    found = load(policy(rule(id="alerts", **alerts), rule(id="denies", **denies), mode="audit"))
    compiled = compile_policies(found, NodeTiers.usual())
    asked = Asked(EventKind.NET_CONNECT, (80, 2, 6, 0), address=(4, bytes(4)))
    action, number = Twin(compiled).verdict(asked, compiled.bits(range(1)))
    assert action is Action.ALERT
    assert number is not None
    assert (compiled.rules[number].rule_id, compiled.rules[number].enforced.action) == ("denies", Action.DENY)
