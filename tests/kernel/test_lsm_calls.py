# SPDX-License-Identifier: Apache-2.0
"""System calls that are decided at LSM hooks: refused with EPERM, reported once; a similar call
passes.

Each refusal has its controls: the same call without the rule does not fail with EPERM, and a
similar call that the rule does not cover passes under the rule.
"""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from ringfence.abi import FLAG_COMPAT, Action, EventKind, Mechanism
from tests.kernel.probes import Probes, results
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
HOST = 4
PTRACE_SEIZE = 0x4206
SAME_CALL_NS = 100_000_000  # RF_SAME_CALL_NS of lsm.h
NEWUSER, NEWNS, NEWUTS = 0x10000000, 0x20000, 0x04000000


class Case(NamedTuple):
    """An attack of act.c and its twin; `operands` are the rule's conditions, `masks` their bits."""

    kind: EventKind
    attack: str
    twin: str = "name:twin"
    operands: Mapping[int, set[int]] = MappingProxyType({})
    masks: Mapping[int, int] = MappingProxyType({})
    text: bytes | None = None

    def rule(self, action: str = "deny") -> Rule:
        return Rule(self.kind, action, dict(self.operands), dict(self.masks), self.text)


CASES = [
    Case(K.SYS_UNSHARE, f"unshare:{NEWUSER}", f"unshare:{NEWUTS}", {0: {NEWUSER}}, {0: NEWUSER}),
    Case(K.SYS_UNSHARE, f"unshare:{NEWNS}", f"unshare:{NEWUTS}", {0: {NEWNS}}, {0: NEWNS}),
    Case(K.SYS_SETNS, f"setns:/proc/1/ns/uts:{NEWUTS}", f"setns:/proc/self/ns/mnt:{NEWNS}", {1: {HOST}}),
    Case(K.SYS_SETNS, f"setnspid:1:{NEWUTS}", "name:twin", {1: {HOST}}),
    Case(K.SYS_CLONE, f"sys:56:{NEWUSER | 17}", "forks:2", {0: {NEWUSER}}, {0: NEWUSER}),
    Case(K.SYS_OPEN_TREE, "sys:428:-100:=/tmp:1", "sys:428:-100:=/tmp:0"),
    Case(K.SYS_FSOPEN, "sys:430:=ext4:0", "sys:430:=tmpfs:0", text=b"ext4\0"),
    Case(K.SYS_FSPICK, "sys:433:-100:=/:0"),
    Case(K.SYS_FSMOUNT, "sys:432:-1:0:0"),
    Case(K.SYS_MOUNT_SETATTR, f"sys:442:-100:=/:0:={'x' * 32}:32"),
    Case(K.SYS_PTRACE, "ptrace:1", "sys:101:0", {1: {HOST}, 0: {PTRACE_SEIZE}}),
    Case(K.SYS_BPF, "sys:321:0:0:0", "sys:321:1:0:0", {0: {0}}),
    Case(K.SYS_PERF_EVENT_OPEN, "perf"),
    Case(K.SYS_PERF_EVENT_OPEN, "perfcgroup", "perf", {0: {HOST}}),
    Case(K.SYS_MODULE_LOAD, "sys:175:0:0:=x", "sys:313:-1:=x:0", {0: {1}}),
    Case(K.SYS_MODULE_LOAD, "sys:313:-1:=x:0", "sys:175:0:0:=x", {0: {2}}),
    Case(K.SYS_MODULE_UNLOAD, "sys:176:=no_such_module:0"),
    Case(K.SYS_KEXEC, "sys:246:0:0:0:4095"),
    Case(K.SYS_CAPSET, "capset"),
    Case(K.SYS_SETUID, "setuid:0", "sys:117:0:0:0", {1: {1}}),
    Case(K.SYS_SETGID, "sys:106:0", "sys:119:0:0:0", {1: {1}}),
    Case(K.SYS_SETGID, "sys:116:0:0", "sys:106:0", {1: {5}}),
    Case(K.SYS_USERFAULTFD, "sys:323:0", "sys:323:1", {0: {0}}),
    Case(K.SYS_USERFAULTFD, "uffdev", "sys:323:1", {0: {0}}),
    Case(K.SYS_IO_URING_SETUP, "uring"),
    Case(K.SYS_KEYCTL, "sys:250:1:0", "sys:250:6:-3:0:0", {0: {1}, 1: {1}}),
    Case(K.SYS_KEYCTL, "sys:248:=user:=rf-test:=x:1:-2", "sys:250:0:-3:1", {1: {2}}),
    Case(K.SYS_IOPL, "sys:172:3", "sys:173:0:1:0", {0: {1}}),
    Case(K.SYS_SYSLOG, "sys:103:10:0:0", "sys:103:9:0:0", {0: {10}}),
    Case(K.SYS_REBOOT, "sys:169:1:1:0"),
    Case(K.SYS_SWAP, "sys:167:=/no/such/file:0", "sys:168:=/no/such/file", {0: {1}}),
    Case(K.SYS_SETTIME, "sys:164:0:0"),
    Case(K.SYS_ACCT, "sys:163:0"),
    Case(K.SYS_FANOTIFY_INIT, "sys:300:0:0", "sys:300:512:0", {0: {0}}),
    Case(K.SYS_SETTIME, "sys:164:0:0", "sys:227:77:0", {1: {1}}),
    Case(K.SYS_KEYCTL, "sys:249:=user:=rf-absent:=x:0", "sys:249:=user:=rf-absent:0:0", {1: {3}, 2: {1}}),
    Case(K.SYS_SETDOMAIN, "sys:170:=x:-1", "sys:171:=x:-1", {0: {1}}),
    Case(K.SYS_SOCKET, "socket:38:5:0", "socket:1:1:0", {0: {38}}),
    Case(K.SYS_SOCKET, "socket:40:1:0", "socket:2:1:0", {0: {40}}),
    Case(K.SETSOCKOPT, "setsockopt:1:2:4", "setsockopt:1:9:4", {2: {1 << 32 | 2}}),
    Case(K.SETSOCKOPT, "setsockopt:0:64:8192", "setsockopt:1:2:8192", {0: {0}, 1: {64}}),
    Case(K.SYS_SOCKET, "sys:53:1:3:0:=xxxxxxxx", "sys:53:1:1:0:=xxxxxxxx", {1: {3}}, {1: 15}),
]
#: a twin may fail for other reasons, and `keyctl` without a keyring, but not with EPERM
_NAMES = [f"{case.kind.label} {case.attack.replace('x' * 32, 'x')}" for case in CASES]


@pytest.fixture
def modprobe(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """A program of the test in modprobe's place, and its arguments. Only in a virtual machine."""
    if not force.in_guest():
        force.elsewhere("changes the kernel itself: in virtual machines only")
    setting, asked = Path("/proc/sys/kernel/modprobe"), tmp_path / "asked"
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o755)
    script = tmp_path / "modprobe"
    script.write_text(f'#!/bin/sh\necho "$3" >>{asked}\n')  # kernel/module/kmod.c: modprobe -q -- NAME
    script.chmod(0o755)
    before = setting.read_text()
    setting.write_text(str(script))
    yield lambda: asked.read_text().split() if asked.exists() else []
    setting.write_text(before)


def run(cgroup: Cgroup, act: str, *commands: str) -> dict[str, int]:
    """Run commands of act.c, armed in the container; return their results. They end by themselves."""
    done: subprocess.CompletedProcess[bytes] = cgroup.run([act, *commands], capture_output=True)
    assert done.returncode == 0, done
    return results(done)


def one(cgroup: Cgroup, act: str, command: str) -> int:
    """Returns the result of one command."""
    (value,) = run(cgroup, act, command).values()
    return value


@pytest.mark.parametrize("case", CASES, ids=_NAMES)
def test_a_call_is_refused_before_its_effect(probes: Probes, cgroup: Cgroup, act: str, case: Case) -> None:
    """EPERM, the process lives on, and one record has the refused call and the mechanism."""
    if "sys:56" not in case.attack:  # without the rule it would make a second process of the test
        assert one(cgroup, act, case.attack) != -errno.EPERM
    probes.enforce(case.rule())
    assert one(cgroup, act, case.twin) != -errno.EPERM
    assert probes.events(cgroup, case.kind) == []
    assert one(cgroup, act, case.attack) == -errno.EPERM
    (event,) = probes.wait(cgroup, case.kind)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


#: clone would make a second process of the test
_ALONE = [(case, name) for case, name in zip(CASES, _NAMES, strict=True) if "sys:56" not in case.attack]


@pytest.mark.parametrize("case", [case for case, _ in _ALONE], ids=[name for _, name in _ALONE])
def test_a_call_is_reported_once_however_many_hooks_it_triggers(
    probes: Probes, cgroup: Cgroup, act: str, case: Case
) -> None:
    """setns checks three capabilities, and an alert lets it continue to the next check.

    A call that takes long between two checks, as one that is the first to switch perf on, is
    reported at each.
    """
    probes.enforce(case.rule("alert"))
    assert one(cgroup, act, case.attack) != -errno.EPERM
    reported = probes.wait(cgroup, case.kind)
    assert all(
        after.time_ns - before.time_ns >= SAME_CALL_NS for before, after in itertools.pairwise(reported)
    )
    assert {(event.action, event.mechanism) for event in reported} == {(Action.ALERT, Mechanism.OBSERVE)}


def test_a_request_for_a_module_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, modprobe: Callable[[], list[str]]
) -> None:
    """Before modprobe runs, by the kernel's copy of the
    name. The call fails as if there were no module.
    """
    probes.enforce(Rule(K.MODULE_REQUEST, "deny", text=b"net-pf-11\0"))
    assert one(cgroup, act, "socket:11:5:0") == -errno.EAFNOSUPPORT
    (event,) = probes.wait(cgroup, K.MODULE_REQUEST)
    assert (event.text, event.action, event.mechanism) == (b"net-pf-11", Action.DENY, hook_mechanism())
    assert one(cgroup, act, "socket:12:5:0") == -errno.EAFNOSUPPORT
    assert modprobe() == ["net-pf-12"]


def test_a_kill_also_refuses_the_call(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The process ends, and its call had no effect."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    done = cgroup.run([act, f"unshare:{NEWUTS}"], capture_output=True)
    assert (done.returncode, results(done)) == (-9, {})
    (event,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert (event.action, event.mechanism) == (Action.KILL, hook_mechanism())


def test_a_descriptor_of_a_foreign_process_is_refused(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """pidfd_getfd from init; a process's own descriptor passes."""
    getfd = ("sys:434:1:0", "sys:438:3:0:0")
    probes.enforce(Rule(K.SYS_PIDFD_GETFD, "deny", {0: {HOST}}))
    assert run(cgroup, act, *getfd)["sys"] == -errno.EPERM
    (event,) = probes.wait(cgroup, K.SYS_PIDFD_GETFD)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


@pytest.mark.parametrize(
    ("kind", "command", "operands"),
    [(K.SYS_UNSHARE, f"unshare32:{NEWUTS}", {}), (K.SYS_SOCKET, "socket32:38:5:0", {0: {38}})],
    ids=["unshare", "socketcall"],
)
def test_32_bit_calls_reach_the_same_hook(
    probes: Probes, cgroup: Cgroup, act: str, kind: EventKind, command: str, operands: dict[int, set[int]]
) -> None:
    """int 0x80, and socketcall, whose arguments lie in memory."""
    probes.enforce(Rule(kind, "deny", operands))
    assert one(cgroup, act, command) == -errno.EPERM
    (event,) = probes.wait(cgroup, kind)
    assert event.mechanism == hook_mechanism()
    assert event.flags & FLAG_COMPAT


def test_an_attempt_without_the_capability_is_refused_by_the_kernel(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """It fails. No program of BPF-LSM runs, so it is not reported; those at functions come first."""
    probes.enforce(Rule(K.SYS_UNSHARE, "deny"))
    nobody = ["setpriv", "--reuid", "65534", "--clear-groups", act, f"unshare:{NEWUTS}"]
    directory = Path(act).parent
    for path in (directory, *directory.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)
    done = cgroup.run(nobody, capture_output=True)
    assert results(done) == {"unshare": -errno.EPERM}, done
    seen = [event.action for event in probes.events(cgroup, K.SYS_UNSHARE)]
    assert seen == ([Action.DENY] if hook_mechanism() is Mechanism.HOOK else [])


def test_a_host_process_is_not_restricted(probes: Probes, act: str) -> None:
    """The rules apply to containers only."""
    probes.enforce(Rule(K.SYS_SOCKET, "deny"), Rule(K.SYS_UNSHARE, "deny"))
    done = subprocess.run([act, "socket:1:1:0", f"unshare:{NEWUTS}"], capture_output=True, check=True)
    assert results(done)["socket"] >= 0
    assert results(done)["unshare"] == 0
    assert os.getuid() == 0
