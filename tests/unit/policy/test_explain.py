# SPDX-License-Identifier: Apache-2.0
"""The output of `policy explain`."""

from __future__ import annotations

from typing import Any

from ringfence.abi import EventKind, Mechanism
from ringfence.policy import NodeTiers
from ringfence.policy.explain import cautions, explain, explain_rule
from tests.unit.policy.documents import Document, load, policy, rule

USUAL = NodeTiers.usual()


def explained(node: NodeTiers = USUAL, **changes: object) -> str:
    """Explains one rule."""
    (one,) = load(policy(rule(**changes))).policies[0].rules
    return "\n".join(explain_rule(one, node))


def cautions_of(**changes: object) -> str:
    """Returns the cautions of one rule."""
    (one,) = load(policy(rule(**changes))).policies[0].rules
    return "\n".join(cautions(one))


def test_a_rule_is_one_sentence() -> None:
    """It has a condition, its exceptions, and the action."""
    text = explained(exceptions=[{"task": "host-pid", "why": "x"}], action="kill")
    assert "userns [high T1611] A container makes a user namespace (trial.yaml:10)" in text
    assert "when a process leaves a namespace for a new one, and flags is CLONE_NEWUSER" in text
    assert "unless task is host-pid" in text
    assert "action kill; effective: kill by SIGKILL" in text


def test_a_list_and_its_negation_are_explained() -> None:
    """As any of, none of, not."""
    assert "flags is any of CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET" in explained(
        match={"flags": ["CLONE_NEWNS", "CLONE_NEWPID", "CLONE_NEWNET"]}
    )
    assert "flags is none of CLONE_NEWNS" in explained(match={"flags": {"none": ["CLONE_NEWNS"]}})
    assert "target is not self" in explained(event="setns", match={"target": {"not": ["self"]}})


def test_every_tier_is_explained() -> None:
    """With the reason if the effective action is weaker than requested."""
    assert "deny before its effect, by cgroup-BPF" in explained(event="network.connect", match={"port": 80})
    assert "kill by SIGKILL" in explained()
    assert "(this node cannot deny it before its effect)" in explained()
    assert "alert observed and reported" in explained(otherwise="alert")
    assert "REFUSED, it requires deny" in explained(require="deny")
    assert "BLIND, no such call" in explained(USUAL.without([EventKind.SYS_UNSHARE], "no such call"))
    lsm = USUAL.with_mechanism([EventKind.SYS_UNSHARE], Mechanism.LSM)
    assert "deny before its effect, by BPF-LSM" in explained(lsm)


def test_a_decision_by_a_string_gives_a_caution() -> None:
    """Once for each operand, in the match or in an exception."""
    assert "`fstype` of mount is decided by a string" in cautions_of(event="mount", match={"fstype": "ext4"})
    both = cautions_of(match={"exe": "/a"}, exceptions=[{"exe": "/b", "task": "root"}])
    assert both.count("`exe` of unshare is decided by a string") == 1
    assert cautions_of() == ""


def test_a_rule_evaluated_for_every_open_gives_a_caution() -> None:
    """Unless it tests the filesystem, which is first."""
    assert "test the filesystem first" in cautions_of(event="file.open", match={"path": "/etc/passwd"})
    assert "`path` without a filesystem" in cautions_of(event="file.open", match={"path": "/etc/passwd"})
    assert cautions_of(event="file.open", match={"path": "proc:kcore"}) == ""


def test_an_exception_that_can_never_hold_gives_a_caution() -> None:
    """It is probably an error."""
    exceptions: list[Document] = [{"device": "c 1:3"}]
    match = {"device": "b *:*"}
    found = cautions_of(event="device.access", match=match, exceptions=exceptions)
    assert "no exception can ever hold" in found


def test_an_exception_that_always_holds_without_lsm_gives_a_caution() -> None:
    """The server's owner is not known there: `not host` always holds, and the rule never matches."""
    one: dict[str, Any] = {"event": "unix.connect", "match": {"socket": "/run/x.sock"}, "action": "deny"}
    wide, caution = [{"server": {"not": ["host"]}}], "the exception `server: not host` always holds"
    assert caution in cautions_of(**one, exceptions=wide)
    assert caution not in cautions_of(**one, exceptions=[{"server": "container"}])
    decides = USUAL.with_hooks({EventKind.UNIX_CONNECT: ("unix_stream_connect",)})
    assert caution in explained(**one, exceptions=wide)
    assert caution not in explained(decides, **one, exceptions=wide)


def test_policies_are_explained_with_their_containers_and_mode() -> None:
    """With `only`, just the named rules."""
    selector: Document = {"names": ["web-*"], "except": {"privileged": True}}
    found = load(policy(rule(), mode="audit"), policy(rule(id="other"), name="b", **selector))
    text = "\n".join(explain(found))
    assert "trial (trial.yaml:1): audit only" in text
    assert "for all containers; a new container from its first instruction" in text
    assert "for containers with name web-*, except those with full privileges; a new container once" in text
    only = "\n".join(explain(found, frozenset({"other"})))
    assert "userns" not in only
    assert "other [high" in only
