# SPDX-License-Identifier: Apache-2.0
"""What `policy explain` says."""

from __future__ import annotations

from typing import Any

from ringfence.abi import EventKind, Mechanism
from ringfence.policy import NodeTiers
from ringfence.policy.explain import cautions, explain, explain_rule
from tests.unit.policy.documents import Document, load, policy, rule

USUAL = NodeTiers.usual()


def explained(node: NodeTiers = USUAL, **changes: object) -> str:
    """One rule in words."""
    (one,) = load(policy(rule(**changes))).policies[0].rules
    return "\n".join(explain_rule(one, node))


def careful(**changes: object) -> str:
    """What its author should know."""
    (one,) = load(policy(rule(**changes))).policies[0].rules
    return "\n".join(cautions(one))


def test_a_rule_is_one_sentence() -> None:
    """When, unless, what."""
    text = explained(exceptions=[{"task": "host-pid", "why": "x"}], action="kill")
    assert "userns [high T1611] A container makes a user namespace (trial.yaml:10)" in text
    assert "when a process leaves a namespace for a new one, and flags is CLONE_NEWUSER" in text
    assert "unless task is host-pid" in text
    assert "asks for kill; here: kill by SIGKILL" in text


def test_a_list_and_its_negation_are_read_as_such() -> None:
    """Any of, none of, not."""
    assert "flags is any of CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET" in explained(
        match={"flags": ["CLONE_NEWNS", "CLONE_NEWPID", "CLONE_NEWNET"]}
    )
    assert "flags is none of CLONE_NEWNS" in explained(match={"flags": {"none": ["CLONE_NEWNS"]}})
    assert "target is not self" in explained(event="setns", match={"target": {"not": ["self"]}})


def test_every_rung_of_the_ladder_is_named() -> None:
    """With the reason where it is less than was asked."""
    assert "deny before its effect, by cgroup-BPF" in explained(event="network.connect", match={"port": 80})
    assert "kill by SIGKILL" in explained()
    assert "(nothing here denies it before its effect)" in explained()
    assert "alert seen and reported" in explained(otherwise="alert")
    assert "REFUSED, it requires deny" in explained(require="deny")
    assert "BLIND, no such call" in explained(USUAL.without([EventKind.SYS_UNSHARE], "no such call"))
    lsm = USUAL.with_mechanism([EventKind.SYS_UNSHARE], Mechanism.LSM)
    assert "deny before its effect, by BPF-LSM" in explained(lsm)


def test_what_is_decided_on_a_string_is_said() -> None:
    """Once each, whether in the match or in an exception."""
    assert "`fstype` of mount is decided on a string" in careful(event="mount", match={"fstype": "ext4"})
    both = careful(match={"exe": "/a"}, exceptions=[{"exe": "/b", "task": "root"}])
    assert both.count("`exe` of unshare is decided on a string") == 1
    assert careful() == ""


def test_what_is_asked_on_every_open_is_said() -> None:
    """Unless the filesystem comes first."""
    assert "test the filesystem first" in careful(event="file.open", match={"path": "/etc/passwd"})
    assert "`path` without a filesystem" in careful(event="file.open", match={"path": "/etc/passwd"})
    assert careful(event="file.open", match={"path": "proc:kcore"}) == ""


def test_an_exception_that_can_never_hold_is_said() -> None:
    """It is probably a mistake."""
    exceptions: list[Document] = [{"device": "c 1:3"}]
    match = {"device": "b *:*"}
    assert "no exception can ever hold" in careful(event="device.access", match=match, exceptions=exceptions)


def test_an_exception_that_always_holds_without_lsm_is_said() -> None:
    """Whose server it is, is not known there: `not host` is true of everything, and the rule silent."""
    one: dict[str, Any] = {"event": "unix.connect", "match": {"socket": "/run/x.sock"}, "action": "deny"}
    wide, told = [{"server": {"not": ["host"]}}], "the exception `server: not host` holds whatever it is"
    assert told in careful(**one, exceptions=wide)
    assert told not in careful(**one, exceptions=[{"server": "container"}])
    decides = USUAL.with_hooks({EventKind.UNIX_CONNECT: ("unix_stream_connect",)})
    assert told in explained(**one, exceptions=wide)
    assert told not in explained(decides, **one, exceptions=wide)


def test_policies_are_told_with_their_containers_and_mode() -> None:
    """And only the rules that were asked for."""
    selector: Document = {"names": ["web-*"], "except": {"privileged": True}}
    found = load(policy(rule(), mode="audit"), policy(rule(id="other"), name="b", **selector))
    text = "\n".join(explain(found))
    assert "trial (trial.yaml:1): audit only" in text
    assert "for all containers; a new one from its first instruction" in text
    assert "for containers with name web-*, except those with every privilege; a new one once" in text
    only = "\n".join(explain(found, frozenset({"other"})))
    assert "userns" not in only
    assert "other [high" in only
