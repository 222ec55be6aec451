# SPDX-License-Identifier: Apache-2.0
"""Packets are judged only where a rule refuses connections or datagrams."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ringfence.abi import EventKind
from ringfence.daemon.attach.plan import attach_plan, judges_packets
from ringfence.policy import NodeTiers, compile_policies
from tests.unit.bpf.test_lsm import CONFIG, NODE
from tests.unit.policy.documents import Document, load, policy, rule

K = EventKind
PACKETS = {"egress", "sock_create"}
METADATA = {"match": {"address": "169.254.169.254"}}
WITH = replace(NODE, cgroup=frozenset((*PACKETS, "connect4", "connect6", "connect_unix")))


def judged(mode: str = "enforce", **changes: object) -> bool:
    """Returns True if a set of this one rule judges packets."""
    document: Document = policy(rule(**{"event": "network.connect", **METADATA, **changes}), mode=mode)
    return judges_packets(compile_policies(load(document), NodeTiers.usual()))


@pytest.mark.parametrize("event", ["network.connect", "network.sendmsg"])
@pytest.mark.parametrize("action", ["deny", "kill"])
def test_a_rule_that_refuses_holds_for_packets(event: str, action: str) -> None:
    """Of either event."""
    assert judged(event=event, action=action)


def test_other_rules_cost_no_packet_anything() -> None:
    """Alerts, rules in mode audit, and rules on other events."""
    assert not judged(action="alert")
    assert not judged(mode="audit")
    assert not judged(event="network.bind")
    assert not judges_packets()


@pytest.mark.parametrize("packets", [True, False])
def test_the_programs_are_attached_only_then(*, packets: bool) -> None:
    """Beside those at the calls."""
    tiers = NodeTiers.of(WITH)
    plan = attach_plan(frozenset({K.NET_CONNECT}), CONFIG, WITH, "/cg", tiers, packets=packets)
    assert plan.cgroup is not None
    assert plan.cgroup & PACKETS == (PACKETS if packets else set())


def test_the_exit_of_connect_is_seen_for_the_server_of_a_socket() -> None:
    """Where the program at its begin is: that one knows the socket."""
    for node in (WITH, replace(WITH, cgroup=frozenset())):
        plan = attach_plan(frozenset({K.UNIX_CONNECT}), CONFIG, node, "/cg", NodeTiers.usual())
        assert ("connect" in plan.done) == ("connect_unix" in node.cgroup)
