# SPDX-License-Identifier: Apache-2.0
"""Tiers, modes, limits, and the placement of bits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.errors import PolicyError
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies
from ringfence.policy.operand import Network
from tests.unit.policy.documents import Document, load, policy, rule

USUAL = NodeTiers.usual()
CONNECT = {"event": "network.connect", "match": {"port": 80}}


def compiled(*documents: Document, node: NodeTiers = USUAL, mode: str | None = None) -> CompiledPolicies:
    """Compiles documents for a node."""
    return compile_policies(load(*documents), node, mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "action", "mechanism"),
    [
        ({"action": "deny"}, Action.KILL, Mechanism.KILL),
        ({"action": "kill"}, Action.KILL, Mechanism.KILL),
        ({"action": "alert"}, Action.ALERT, Mechanism.OBSERVE),
        ({"action": "deny", "otherwise": "alert"}, Action.ALERT, Mechanism.OBSERVE),
        ({"action": "deny", "otherwise": "kill"}, Action.KILL, Mechanism.KILL),
        ({**CONNECT, "action": "deny"}, Action.DENY, Mechanism.CGROUP),
        ({**CONNECT, "action": "deny", "otherwise": "alert"}, Action.DENY, Mechanism.CGROUP),
        ({**CONNECT, "action": "kill"}, Action.KILL, Mechanism.CGROUP),
        ({**CONNECT, "require": "deny"}, Action.DENY, Mechanism.CGROUP),
    ],
)
def test_a_rule_uses_the_strongest_mechanism_of_the_node(
    changes: Document, action: Action, mechanism: Mechanism
) -> None:
    """Without BPF-LSM: cgroup-BPF where there is a hook, SIGKILL elsewhere."""
    (one,) = compiled(policy(rule(**changes))).rules.values()
    assert (one.action, one.mechanism) == (action, mechanism)


SETUID_ON_DISK = {"event": "chmod", "match": {"mode": "setuid", "filesystem": "disk"}}
BY_PEER = {"event": "unix.connect", "match": {"server": "host"}}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"otherwise": "skip"}, "this node cannot deny it, and the rule has `otherwise: skip`"),
        (SETUID_ON_DISK, "only BPF-LSM knows `filesystem`"),
    ],
)
def test_a_rule_without_effect_here_is_left_out_with_a_note(changes: Document, why: str) -> None:
    """It would have a cost, or seem to be in force."""
    found = compiled(policy(rule(**changes)))
    assert not found.rules
    assert not found.events
    assert [note.rpartition("effective action on this node: ")[2] for note in found.notes] == [
        f"none ({why})"
    ]


def test_the_server_of_a_unix_socket_is_known_when_the_call_is_done() -> None:
    """So the process is killed there; not on a kernel where the call is not seen at all."""
    (one,) = compiled(policy(rule(**BY_PEER))).rules.values()
    assert (one.asked_action, one.action, one.mechanism) == (Action.DENY, Action.KILL, Mechanism.KILL)
    assert not compiled(policy(rule(**BY_PEER)), node=USUAL.without((EventKind.UNIX_CONNECT,), "old")).rules
    (alert,) = compiled(policy(rule(**BY_PEER, action="alert"))).rules.values()
    assert (alert.action, alert.mechanism) == (Action.ALERT, Mechanism.OBSERVE)


def test_such_a_rule_is_compiled_where_lsm_hooks_decide() -> None:
    """Each of the three."""
    hooks = {EventKind.SYS_UNSHARE: ("capable",), EventKind.SYS_CHMOD: ("path_chmod",)}
    node = USUAL.with_hooks(hooks | {EventKind.UNIX_CONNECT: ("unix_stream_connect",)})
    for changes in ({"otherwise": "skip"}, SETUID_ON_DISK, BY_PEER):
        (one,) = compiled(policy(rule(**changes)), node=node).rules.values()
        assert (one.action, one.mechanism) == (Action.DENY, Mechanism.LSM)


def test_a_condition_that_holds_for_an_unknown_value_is_kept() -> None:
    """`not` also holds for an unknown value: the rule matches more than with BPF-LSM."""
    changed = {"event": "unix.connect", "match": {"server": {"not": ["container"]}}}
    (one,) = compiled(policy(rule(**changed))).rules.values()
    assert one.mechanism is Mechanism.CGROUP


def test_the_word_node_is_replaced_by_the_nodes_addresses() -> None:
    """At compile time; also next to other addresses, and in exceptions."""
    own = Network(4, bytes((192, 0, 2, 7)), 32)
    node = replace(USUAL, addresses=frozenset({own}))
    match = {"address": ["node", "10.0.0.0/8"], "port": 2379}
    document = policy(rule(event="network.connect", match=match))
    assert load(document).names_node
    found = compiled(document, node=node)
    assert {(family, address) for _, family, address, _ in found.addresses if family == 4} == {
        (4, own.address),
        (4, bytes((10, 0, 0, 0))),
    }
    but = [{"address": "node"}]
    excepted = policy(rule(event="network.connect", match={"port": 2379}, exceptions=but))
    assert load(excepted).names_node
    assert [address for _, _, address, _ in compiled(excepted, node=node).addresses] == [own.address]
    assert not load(policy(rule(event="network.connect", match={"address": "10.0.0.1"}))).names_node


def test_lsm_is_preferred_if_available() -> None:
    """A node with an LSM mechanism for the event uses it."""
    node = USUAL.with_mechanism([EventKind.SYS_UNSHARE], Mechanism.LSM)
    (one,) = compiled(policy(rule(require="deny")), node=node).rules.values()
    assert (one.action, one.mechanism) == (Action.DENY, Mechanism.LSM)


def test_a_required_deny_that_is_not_available_is_refused() -> None:
    """Also in audit mode: the policy declares such a node unsuitable."""
    with pytest.raises(PolicyError) as caught:
        compiled(policy(rule(require="deny"), mode="audit"))
    assert "requires deny, which is not available for unshare" in str(caught.value)
    assert str(caught.value).startswith("trial.yaml:10:")


def test_a_weaker_effective_action_gives_a_note() -> None:
    """No rule is weakened silently."""
    (note,) = compiled(policy(rule())).notes
    assert "requests deny on unshare; effective action on this node: kill" in note
    assert not compiled(policy(rule(**CONNECT))).notes


def test_a_rule_on_a_blind_event_gives_a_note_and_has_no_bit() -> None:
    """The note has the reason."""
    node = USUAL.without([EventKind.SYS_UNSHARE], "no such call")
    found = compiled(policy(rule()), node=node)
    assert not found.rules
    assert "effective action on this node: none (no such call)" in found.notes[0]


def test_audit_turns_actions_into_alerts_and_keeps_the_outcome() -> None:
    """The outcome that mode enforce would have is kept."""
    (one,) = compiled(policy(rule(), mode="audit")).rules.values()
    assert (one.action, one.mechanism, one.asked_action) == (Action.ALERT, Mechanism.OBSERVE, Action.DENY)
    assert (one.enforced.action, one.enforced.mechanism) == (Action.KILL, Mechanism.KILL)


@pytest.mark.parametrize(
    ("override", "actions"),
    [
        (None, [Action.ALERT, Action.KILL]),
        ("policy", [Action.ALERT, Action.KILL]),
        ("audit", [Action.ALERT, Action.ALERT]),
        ("enforce", [Action.KILL, Action.KILL]),
    ],
)
def test_the_mode_override_applies_to_all_policies(override: str | None, actions: list[Action]) -> None:
    """It sets audit or enforce for the whole node."""
    both = (policy(rule(), mode="audit"), policy(rule(id="b"), name="b", mode="enforce"))
    assert [one.action for _, one in sorted(compiled(*both, mode=override).rules.items())] == actions


def test_events_with_different_mechanisms_get_different_bits() -> None:
    """A deny bit must never reach a program that cannot deny."""
    found = compiled(policy(rule(event=["network.connect", "socket"], match={"family": "AF_INET"})))
    by_event = {event: one.action for one in found.rules.values() for event in one.events}
    assert by_event == {EventKind.NET_CONNECT: Action.DENY, EventKind.SYS_SOCKET: Action.KILL}
    assert len(found.rules) == 2


def test_a_rule_and_its_exceptions_share_a_word() -> None:
    """The exceptions' bits are below their rule's bit, regardless of other rules."""
    some = [
        rule(id=f"r{n}", **CONNECT, exceptions=[{"exe": f"/x{m}", "task": "root"} for m in range(n % 9 + 1)])
        for n in range(150)
    ]
    found = compiled(policy(*some))
    for exception, bit in found.actions.clears.items():
        number = exception // 64 * 64 + bit
        assert number in found.rules
        assert exception < number
        assert found.actions.exceptions >> exception & 1
    assert not found.actions.exceptions & sum(1 << n for n in found.rules)


def test_exceptions_that_cannot_hold_use_no_bits() -> None:
    """Only device numbers of the rule's device type are kept."""
    match = {"device": "b *:*"}
    found = compiled(
        policy(rule(event="device.access", match=match, exceptions=[{"device": ["c 1:3", "c 5:*"]}]))
    )
    assert not found.actions.clears


def test_too_many_exceptions_are_refused_with_advice() -> None:
    """A rule has at most 63."""
    many = [{"port": n} for n in range(64)]
    with pytest.raises(PolicyError) as caught:
        compiled(policy(rule(event="network.connect", match="any", exceptions=many)))
    assert "has 64 exceptions once lists are expanded, at most 63 are supported" in str(caught.value)
    assert "join them into longer lists" in str(caught.value)


def test_too_many_rules_are_refused_with_advice() -> None:
    """There are 4,096 bits."""
    rules = [rule(id=f"r{n}", event="network.connect", match={"port": n}) for n in range(4097)]
    assert len(compiled(policy(*rules[:4096])).rules) == 4096
    with pytest.raises(PolicyError) as caught:
        compiled(policy(*rules))
    assert "need 4097 bits; there are 4096" in str(caught.value)
    assert "use lists in place of similar rules" in str(caught.value)


def test_too_many_different_flags_are_refused_with_advice() -> None:
    """Each combination is enumerated, so their number is limited."""
    rules = [rule(id=f"r{n}", event="mount", match={"flags": [1 << n]}) for n in range(15)]
    with pytest.raises(PolicyError) as caught:
        compiled(policy(*rules))
    assert "mount, flags" in str(caught.value)
    assert "test 15 different bits, at most 14 are supported: use fewer" in str(caught.value)


def test_a_dim_that_no_rule_tests_is_not_looked_up() -> None:
    """The hot path only has the cost of what is in use."""
    found = compiled(policy(rule(event="file.open", match={"path": "proc:sys/**"})))
    assert list(found.events[EventKind.FILE_OPEN].dims) == [1, 0, 0, 0, 0, 0, 2, 0]
