# SPDX-License-Identifier: Apache-2.0
"""Drift without a kernel exploit: the task is unchanged; the probes' record of it is changed.

That fakes the cause, not the check. A module changes real tasks in the virtual machines
(test_lsm_drift.py). The workloads that change their credentials legitimately are real.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ringfence.abi import (
    DRIFT_CAPABILITIES,
    DRIFT_USER,
    NO_CALL,
    TASK,
    Action,
    EventKind,
    Mechanism,
    Relation,
)  # fmt: skip
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule
from tests.kernel.starving import offset_of
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
K = EventKind
_IDENTITY = struct.Struct("=11Q4I2I")  # struct rf_identity, behind rf_task in rf_armed
_PROXY, _USER_NS, _MNT, _NET, _PERMITTED, _EFFECTIVE, _UIDS = 1, 2, 3, 4, 9, 10, 11
NEWNS, NEWNET, NEWUSER = 0x20000, 0x40000000, 0x10000000


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """One set of probes for the module."""
    with running(rules=[Rule(K.TASK_DRIFT)]) as running_probes:
        yield running_probes


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container for one test."""
    with new_cgroup(LABEL) as made:
        yield made


def forget(probes: Probes, pid: int, **changed: int) -> None:
    """Make the probes' record of a task show less than the task has: this is the fake."""
    tasks, fd = probes.kernel.map("tasks"), os.pidfd_open(pid)
    try:
        value = bytearray(tasks.get(fd) or b"")
        fields = list(_IDENTITY.unpack_from(value, TASK.size))
        assert fields[0], "the task is not watched"
        for name, number in changed.items():
            if name == "entering":
                struct.pack_into("=I", value, offset_of("rf_armed", "entering"), number)
            elif name == "uid":
                fields[_UIDS : _UIDS + 4] = [number] * 4
            else:
                place = {"proxy": _PROXY, "user_ns": _USER_NS, "mnt": _MNT, "net": _NET}.get(name)
                places = (_PERMITTED, _EFFECTIVE) if place is None else (place,)
                for index in places:
                    fields[index] = number
        _IDENTITY.pack_into(value, TASK.size, *fields)
        tasks.set(fd, bytes(value))
    finally:
        os.close(fd)


class Task:
    """act, armed, waiting for a line before each of its commands."""

    def __init__(self, cgroup: Cgroup, act: str, *commands: str, before: Sequence[str] = ()) -> None:
        argv = [
            *before,
            act,
            "name:ready",
            *(word for command in commands for word in ("wait", command)),
            "wait",
        ]
        self.process = cgroup.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline() == b"name 0\n"

    def go(self) -> None:
        """Let it make its next call; nothing, if it was killed at the one before."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            os.write(self.process.stdin.fileno(), b"x")

    def end(self) -> int:
        self.process.communicate(timeout=patience(60))
        return self.process.returncode


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"permitted": 0x1FF}, DRIFT_CAPABILITIES),
        ({"permitted": 0, "uid": 1000}, DRIFT_CAPABILITIES | DRIFT_USER),
        ({"permitted": 0, "mnt": 0x1000}, DRIFT_CAPABILITIES | NEWNS),
        ({"permitted": 0, "net": 0x1000}, DRIFT_CAPABILITIES | NEWNET),
        ({"user_ns": 0x1000}, NEWUSER),
    ],
    ids=["capabilities", "user", "mounts", "network", "user namespace"],
)
def test_a_privilege_that_no_call_gave_is_drift(
    probes: Probes, cgroup: Cgroup, act: str, changed: dict[str, int], what: int
) -> None:
    """Reported once, at the next checkpoint, with what changed."""
    probes.enforce(Rule(K.TASK_DRIFT))
    task = Task(cgroup, act, "open:/proc/uptime:0", "threads:1", "unshare:0")
    forget(probes, task.process.pid, **changed)
    for _ in range(4):
        task.go()
    assert task.end() == 0
    (event,) = probes.events(cgroup, K.TASK_DRIFT)
    # A changed user namespace implies that the owner of the others changed, too.
    assert event.changed & (what | NEWUSER) == what
    assert event.action == Action.ALERT


@pytest.mark.parametrize(
    ("command", "at"),
    [
        ("open:/proc/uptime:0", K.FILE_OPEN),
        ("threads:1", K.SYS_CLONE),
        ("exec:true:true:true", K.PROCESS_EXEC),
        ("unshare:0", K.SYS_UNSHARE),
        ("socket:2:2:0", K.SYS_SOCKET),
    ],
)
def test_drift_is_killed_at_the_next_checkpoint(
    probes: Probes, cgroup: Cgroup, act: str, command: str, at: EventKind
) -> None:
    """Before the call has an effect."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    task = Task(cgroup, act, command)
    forget(probes, task.process.pid, permitted=0)
    task.go()
    assert task.end() == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.TASK_DRIFT)
    assert (event.at, event.action, event.mechanism) == (at, Action.KILL, Mechanism.KILL)
    assert event.permitted0 == 0
    assert event.permitted1 > 0


@pytest.mark.parametrize("proxy", [{"proxy": 0x1000}, {}], ids=["switched", "in place"])
@pytest.mark.parametrize(("action", "code"), [("alert", 0), ("kill", -signal.SIGKILL)], ids=["alert", "kill"])
def test_a_namespace_of_the_host_that_no_call_entered_is_decided(
    probes: Probes, cgroup: Cgroup, act: str, action: str, code: int, proxy: dict[str, int]
) -> None:
    """The task may enter it by its privileges: no drift, and the rule on setns holds all the same.

    In place: the task's nsproxy is at the same address, but has another namespace.
    """
    probes.enforce(Rule(K.TASK_DRIFT, "kill"), Rule(K.SYS_SETNS, action, {0: {NEWNET}, 1: {Relation.HOST}}))
    task = Task(cgroup, act, "open:/proc/uptime:0")
    forget(probes, task.process.pid, net=0x1000, **proxy)
    task.go()
    task.go()
    assert task.end() == code
    assert probes.events(cgroup, K.TASK_DRIFT) == []
    entries = [(event.nr, event.operands[:2]) for event in probes.events(cgroup, K.SYS_SETNS)]
    assert entries == ([(NO_CALL, (NEWNET, Relation.HOST))] if code else [])


@pytest.mark.parametrize(("entering", "code"), [(0, 0), (1, -signal.SIGKILL)], ids=["made", "entered"])
def test_an_unknown_namespace_is_the_hosts_after_setns(
    probes: Probes, cgroup: Cgroup, act: str, entering: int, code: int
) -> None:
    """Without a call of setns since the last check, the task can only have made it."""
    probes.enforce(Rule(K.TASK_DRIFT), Rule(K.SYS_SETNS, "kill", {0: {NEWNET}, 1: {Relation.HOST}}))
    task = Task(cgroup, act, "open:/proc/uptime:0", before=("unshare", "-n"))
    claims, slot = probes.kernel.map("namespace_claims"), probes.slot(cgroup)
    value = claims.get(slot)
    assert value
    claims.set(slot, bytes(len(value)))
    forget(probes, task.process.pid, proxy=0x1000, net=0x1000, entering=entering)
    task.go()
    task.go()
    assert task.end() == code


def test_a_child_is_compared_with_its_parents_record(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """A thread or process does not clear drift: the parent is checked before its child is created."""
    probes.enforce(Rule(K.TASK_DRIFT))
    task = Task(cgroup, act, "forks:1")
    forget(probes, task.process.pid, permitted=0)
    task.go()
    task.go()
    assert task.end() == 0
    (event,) = probes.events(cgroup, K.TASK_DRIFT)
    assert event.at == K.SYS_CLONE


def test_nothing_is_watched_without_a_rule(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The record is empty, and the check is one comparison."""
    probes.enforce(Rule(K.SYS_UNSHARE))
    task = Task(cgroup, act)
    fd = os.pidfd_open(task.process.pid)
    value = probes.kernel.map("tasks").get(fd) or b""
    os.close(fd)
    task.go()
    assert task.end() == 0
    assert _IDENTITY.unpack_from(value, TASK.size)[0] == 0


#: legitimate changes of credentials and namespaces
NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups"
BENIGN = {
    "su": 'su -s /bin/sh nobody -c "cat /proc/uptime; id"',
    "runuser": "runuser -u nobody -- cat /proc/uptime",
    "setpriv": f"{NOBODY} cat /proc/uptime",
    "setpriv keeps capabilities": "setpriv --reuid 65534 --clear-groups --inh-caps +net_raw "
    "--ambient-caps +net_raw sh -c 'cat /proc/uptime; ls /'",
    "capsh drops": "capsh --drop=cap_sys_admin,cap_net_raw -- -c 'cat /proc/uptime; ls /'",
    "capsh becomes": "capsh --keep=1 --user=nobody --inh=cap_net_raw --addamb=cap_net_raw -- "
    "-c 'cat /proc/uptime'",
    "sudo": "sudo -n -u nobody cat /proc/uptime",
    "sudo by nobody": f"{NOBODY} sudo -n true; cat /proc/uptime",
    "a setuid program by nobody": f"{NOBODY} {{suid}} /proc/uptime",
    "unshare -U": f"{NOBODY} unshare -U sh -c 'cat /proc/uptime; ls /'",
    "unshare -r, everything": f"{NOBODY} "
    "unshare -Urmnpuif --mount-proc sh -c 'cat /proc/uptime; mount -t tmpfs x /mnt; ls /mnt'",
    "unshare by root": "unshare -mnpuiCf sh -c 'cat /proc/uptime; ls /'",
    "nested": "unshare -Ur unshare -Urmn sh -c 'cat /proc/uptime; unshare -U cat /proc/uptime'",
    "nsenter into a child": "unshare -Urn sleep 600 & "
    "until nsenter -t $! -U -n cat /proc/uptime; do sleep 0.02; done; kill $!",
    "threads": "python3 -c '{threads}'",
    "back and forth": "python3 -c '{seteuid}'",
    "newuidmap": f"{NOBODY} unshare -U sh -c 'newuidmap $$ 0 65534 1; cat /proc/uptime'",
    "overlayfs": "d=$(mktemp -d); mount -t tmpfs x $d; cd $d; mkdir l u w m; echo a >l/f; chmod 666 l/f; "
    "mount -t overlay o -olowerdir=l,upperdir=u,workdir=w m && chmod 777 $d m && "
    "setpriv --reuid 65534 --clear-groups sh -c 'echo b >>m/f; cat m/f'",
    "access(2)": "setpriv --reuid 65534 --euid 0 sh -c 'test -r /etc/shadow; cat /proc/uptime' || true",
}
SCRIPTS = {
    "threads": 'import threading,os\nlook = lambda: open("/proc/uptime").read()\n'
    "for _ in range(8): t = threading.Thread(target=look); t.start(); t.join()\n"
    "os.setresuid(65534, 65534, 65534); look()",
    "seteuid": 'import os\nfor _ in range(9):\n for uid in (65534, 0): os.seteuid(uid); open("/proc/uptime")',
}
_NEEDS = {"su", "runuser", "setpriv", "capsh", "sudo", "unshare", "nsenter", "newuidmap", "python3"}


@pytest.mark.parametrize("workload", BENIGN)
def test_a_legitimate_change_is_no_drift(
    probes: Probes, cgroup: Cgroup, workload: str, tmp_path: Path
) -> None:
    """Giving privileges up, using existing ones, or gaining some by exec."""
    command = BENIGN[workload]
    for program in _NEEDS & set(re.findall(r"[\w-]+", command)):
        force.need_program(program)
    probes.enforce(Rule(K.TASK_DRIFT))
    suid = tmp_path / "suid"
    if "{suid}" in command:
        shutil.copy("/bin/cat", suid)
        suid.chmod(0o4755)
        for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            directory.chmod(directory.stat().st_mode | 0o111)
    for name, text in (SCRIPTS | {"suid": str(suid)}).items():
        command = command.replace(f"{{{name}}}", text)
    done = cgroup.run(["/bin/sh", "-c", command], capture_output=True, timeout=patience(60))
    assert done.returncode == 0, done.stderr
    assert probes.events(cgroup, K.TASK_DRIFT) == []
    assert probes.drops() == {}


def test_an_exec_into_a_running_container_is_no_drift(probes: Probes, cgroup: Cgroup) -> None:
    """A runtime joins the namespaces one by one, and executes the program last."""
    probes.enforce(Rule(K.TASK_DRIFT))
    init = cgroup.popen(["unshare", "-nuif", "sleep", "600"])
    sleeper = wait_for(
        lambda: next((p for p in cgroup.pids() if Path(f"/proc/{p}/comm").read_text() == "sleep\n"), None),
        "the container's program",
    )
    argv = ["nsenter", "-t", str(sleeper), "-m", "-n", "-u", "-i", "cat", "/proc/uptime"]
    done = cgroup.run(argv, armed=False, capture_output=True)
    init.kill()
    init.wait()
    assert done.returncode == 0, done.stderr
    assert probes.events(cgroup, K.TASK_DRIFT) == []
