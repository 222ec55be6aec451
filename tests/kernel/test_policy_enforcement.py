# SPDX-License-Identifier: Apache-2.0
"""Policies from end to end: YAML, compiler, maps, the real probes, the result of a call."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from ringfence.abi import Action, EventKind, Mechanism
from tests.kernel.enforcer import Enforcer
from tests.kernel.probes import LABEL, results, run
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.scenes import cgroup_fixture
from tests.unit.policy.documents import Document, Seen, policy, rule

pytestmark = pytest.mark.root
K = EventKind
PORT = 4711
CONNECT = f"connect:127.0.0.1:{PORT}"
TO_PORT: Document = {"event": "network.connect", "match": {"port": PORT, "address": "127.0.0.0/8"}}
NEW_UTS: Document = {"match": {"flags": "CLONE_NEWUTS"}, "action": "kill"}
UNSHARE = f"unshare:{0x04000000}"


cgroup = cgroup_fixture(LABEL, after="enforcer")


def test_deny_refuses_a_connection_before_it_is_made(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """EPERM, reported with the rule, its file and line, and the mechanism. Another port passes."""
    enforcer.enforce(policy(rule(id="port", **TO_PORT, action="deny")))
    assert results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}
    event, found = enforcer.alert(cgroup, K.NET_CONNECT)
    assert (event.action, event.mechanism) == (Action.DENY, Mechanism.CGROUP)
    assert (found.rule_id, found.file, found.line) == ("port", "trial.yaml", 10)
    assert results(run(cgroup, act, f"connect:127.0.0.1:{PORT + 1}"))["connect"] != -errno.EPERM


def test_a_range_of_ipv4_applies_to_ipv6_sockets_too(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """::ffff:127.0.0.1 is the same address."""
    enforcer.enforce(policy(rule(**TO_PORT, action="deny")))
    assert results(run(cgroup, act, f"connect6:,,ffff,127.0.0.1:{PORT}")) == {"connect6": -errno.EPERM}


def test_kill_ends_the_process_at_the_call(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """A deny that needs SIGKILL on this node; other flags pass."""
    enforcer.enforce(policy(rule(match={"flags": "CLONE_NEWUTS"}, action="deny")))
    passed = run(cgroup, act, f"unshare:{0x08000000}")
    assert results(passed) == {"unshare": 0}
    killed = run(cgroup, act, UNSHARE)
    assert killed.returncode == -signal.SIGKILL
    assert results(killed) == {}
    event, found = enforcer.alert(cgroup, K.SYS_UNSHARE)
    assert (event.action, event.mechanism) == (Action.KILL, Mechanism.KILL)
    assert (found.asked_action, found.action) == (Action.DENY, Action.KILL)


def test_audit_mode_reports_and_allows(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """The alert has the action that would have been taken."""
    enforcer.enforce(policy(rule(**NEW_UTS), mode="audit"))
    assert results(run(cgroup, act, UNSHARE)) == {"unshare": 0}
    event, found = enforcer.alert(cgroup, K.SYS_UNSHARE)
    assert (event.action, found.enforced.action) == (Action.ALERT, Action.KILL)


def test_an_exception_clears_its_own_rule_only(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """The program passes the rule with the exception; the stricter other rule still applies."""
    known = [{"exe": act}]
    enforcer.enforce(policy(rule(id="a", **NEW_UTS, exceptions=known)))
    assert results(run(cgroup, act, UNSHARE)) == {"unshare": 0}
    enforcer.enforce(policy(rule(id="a", **NEW_UTS, exceptions=[{"exe": act + "x"}])))
    assert run(cgroup, act, UNSHARE).returncode == -signal.SIGKILL
    both = (rule(id="a", **NEW_UTS, exceptions=known), rule(id="b", **NEW_UTS))
    enforcer.enforce(policy(*both))
    assert run(cgroup, act, UNSHARE).returncode == -signal.SIGKILL
    assert enforcer.alert(cgroup, K.SYS_UNSHARE)[1].rule_id in ("a", "b")


def test_an_exception_holds_for_the_containers_that_it_names(
    enforcer: Enforcer, cgroup: Cgroup, act: str
) -> None:
    """Not while nothing is known of a container, and not for another one."""
    mine = {"for": {"names": ["web-*"]}, "exe": act}
    enforcer.enforce(policy(rule(id="a", **NEW_UTS, exceptions=[mine])))
    assert run(cgroup, act, UNSHARE).returncode == -signal.SIGKILL
    enforcer.assign(cgroup, "web-1")
    assert results(run(cgroup, act, UNSHARE)) == {"unshare": 0}
    enforcer.assign(cgroup, "db-1")
    assert run(cgroup, act, UNSHARE).returncode == -signal.SIGKILL


def test_negated_values_match_everything_else(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """Also for values that no rule names."""
    match = {"family": {"not": ["AF_UNIX", "AF_INET"]}}
    enforcer.enforce(policy(rule(event="socket", match=match, action="kill")))
    assert results(run(cgroup, act, "socket:1:1:0"))["socket"] >= 0
    assert run(cgroup, act, "socket:16:3:0").returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("path", "killed"),
    [
        ("proc:uptime", True),
        ("proc:upt*", True),
        ("proc:**/uptime", True),
        ("proc:uptim", False),
        ("proc:uptime2", False),
        ("sysfs:uptime", False),
        ("proc:sys/**", False),
    ],
)
def test_files_are_found_by_filesystem_and_path(
    enforcer: Enforcer, cgroup: Cgroup, act: str, path: str, killed: bool
) -> None:
    """By full path, by prefix, by name, and not by a partial component."""
    enforcer.enforce(policy(rule(event="file.open", match={"path": path, "access": "read"}, action="kill")))
    done = run(cgroup, act, f"open:/proc/uptime:{os.O_RDONLY}")
    assert (done.returncode == -signal.SIGKILL) is killed


def test_a_link_leads_to_the_same_file(enforcer: Enforcer, cgroup: Cgroup, act: str, tmp_path: Any) -> None:
    """The object is checked, not the name used."""
    (tmp_path / "innocent").symlink_to("/proc/uptime")
    enforcer.enforce(policy(rule(event="file.open", match={"path": "proc:uptime"}, action="kill")))
    done = run(cgroup, act, f"open:{tmp_path}/innocent:{os.O_RDONLY}")
    assert done.returncode == -signal.SIGKILL


def test_a_sysctl_is_refused_by_name(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """Writes only; the written value is the current one."""
    match = {"sysctl": ["kernel.randomize_va_space", "vm/*"], "access": "write"}
    enforcer.enforce(policy(rule(event="sysctl.access", match=match, action="deny")))
    for name in ("kernel/randomize_va_space", "vm/swappiness"):
        assert results(run(cgroup, act, f"rewrite:/proc/sys/{name}")) == {"rewrite": -errno.EPERM}
    assert results(run(cgroup, act, "rewrite:/proc/sys/net/ipv4/ip_default_ttl"))["rewrite"] != -errno.EPERM
    assert results(run(cgroup, act, "open:/proc/sys/vm/swappiness:0"))["open"] >= 0


def test_devices_are_refused_by_number_but_for_exceptions(
    enforcer: Enforcer, cgroup: Cgroup, act: str, tmp_path: Any
) -> None:
    """Every device, except null."""
    one = rule(
        event="device.access", match={"device": "a *:*"}, exceptions=[{"device": "c 1:3"}], action="deny"
    )
    enforcer.enforce(policy(one))
    done = results(run(cgroup, act, "open:/dev/null:0", f"mknod:{tmp_path}/b:b:259:1048575"))
    assert done["open"] >= 0
    assert done["mknod"] == -errno.EPERM


def test_policies_apply_to_the_containers_they_select(enforcer: Enforcer, act: str) -> None:
    """Two containers, one policy by name; a container without known metadata is not selected."""
    enforcer.enforce(policy(rule(**NEW_UTS), names=["web-*"]))
    with new_cgroup(LABEL) as web, new_cgroup(LABEL) as other:
        assert results(run(web, act, UNSHARE)) == {"unshare": 0}
        assert enforcer.assign(web, "web-1") == {0}
        assert enforcer.assign(other, "db-1") == frozenset()
        assert run(web, act, UNSHARE).returncode == -signal.SIGKILL
        assert results(run(other, act, UNSHARE)) == {"unshare": 0}
        enforcer.generations.clear(enforcer.probes.slot(web))
        assert results(run(web, act, UNSHARE)) == {"unshare": 0}


def test_what_is_learned_late_of_an_ended_container_changes_nothing(
    enforcer: Enforcer, cgroup: Cgroup, act: str
) -> None:
    """Its slot has another owner by then, which keeps its own policies."""
    enforcer.enforce(policy(rule(**NEW_UTS), names=["web-*"]))
    slot, ended = enforcer.probes.slot(cgroup), cgroup.id + 1_000_000
    enforcer.assign(cgroup, "db-1")
    assert enforcer.generations.assign(slot, ended, Seen("web-1")) == frozenset()
    assert results(run(cgroup, act, UNSHARE)) == {"unshare": 0}
    enforcer.assign(cgroup, "web-1")
    assert enforcer.generations.assign(slot, ended, Seen("db-1")) == frozenset()
    assert run(cgroup, act, UNSHARE).returncode == -signal.SIGKILL


def test_a_container_is_under_policy_before_anything_is_known(enforcer: Enforcer, act: str) -> None:
    """`containers: all` covers a container created afterwards, without any action from user space."""
    enforcer.enforce(policy(rule(**NEW_UTS)))
    with new_cgroup(LABEL) as late:
        assert run(late, act, UNSHARE).returncode == -signal.SIGKILL


def test_the_right_rule_of_a_thousand_is_found(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """The first, the last, one between; and none where no rule matches."""
    many = [
        policy(
            rule(id=f"r{n}", event="network.connect", match={"port": 5000 + n}, action="deny"), name=f"p{n}"
        )
        for n in range(1000)
    ]
    enforcer.enforce(*many)
    for port in (5000, 5077, 5999):
        assert results(run(cgroup, act, f"connect:127.0.0.1:{port}")) == {"connect": -errno.EPERM}
    assert results(run(cgroup, act, "connect:127.0.0.1:6000"))["connect"] != -errno.EPERM
    rules = [
        enforcer.generations.rule(event.generation, event.rule)
        for event in enforcer.probes.wait(cgroup, K.NET_CONNECT, 3)
    ]
    assert [found.rule_id for found in rules if found] == ["r0", "r77", "r999"]
