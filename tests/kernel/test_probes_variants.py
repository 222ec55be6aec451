# SPDX-License-Identifier: Apache-2.0
"""Variants of what rules are about: other namespaces, other ABIs, more rules, fuller tables.

Each kills a defect of tools/mutants that the tests of the ordinary cases let pass.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence import abi
from ringfence.abi import FLAG_COMPAT, Action, Drop, EventKind, Relation
from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.lsm import NAME
from tests.kernel.probes import LABEL, Probes, need_32_bit_calls, results, running
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
K = EventKind
PROBES = {
    "observe": (K.SYS_SETNS, K.SYS_PERF_EVENT_OPEN, K.SYS_SOCKET, K.SYS_PTRACE, K.SYS_CHROOT, K.SYS_MOUNT)
}
CHROOTED, NEW_ROOT, ROOT_OF_HOST = 0, 1, 2  # operands of chroot
X32 = 0x40000000
NEWNS, NEWUTS, NEWIPC = 0x20000, 0x4000000, 0x8000000
PTRACE_SEIZE = 0x4206
SOCKETCALL, SOCKETPAIR, OPENAT2 = 102, 8, 437  # numbers of 32-bit calls


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("cgroup", 0x2000000),
        ("ipc", 0x8000000),
        ("net", 0x40000000),
        ("pid", 0x20000000),
        ("time", 0x80),
        ("user", 0x10000000),
    ],
)
def test_each_kind_of_namespace_of_the_host_is_the_hosts(
    probes: Probes, cgroup: Cgroup, act: str, kind: str, flag: int
) -> None:
    """Also where the container shares it: entering it is entering the host."""
    cgroup.run([act, f"setns:/proc/{os.getpid()}/ns/{kind}:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_SETNS)
    assert event.operands[:2] == (flag, Relation.HOST)


@pytest.mark.parametrize(
    ("option", "kind"), [("-C", "cgroup"), ("-i", "ipc"), ("-n", "net"), ("-u", "uts"), ("-Ur", "user")]
)
def test_a_namespace_of_its_own_is_the_containers(
    probes: Probes, cgroup: Cgroup, act: str, option: str, kind: str
) -> None:
    """And is not taken for another container's."""
    cgroup.run(["unshare", option, act, f"setns:/proc/self/ns/{kind}:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_SETNS)
    assert event.operands[1] == Relation.SELF


@contextmanager
def waiting(argv: list[str], said: bytes) -> Iterator[int]:
    """A process that has said this, and waits until the end of the block; its number."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == said
    try:
        yield process.pid
    finally:
        process.communicate(b"x")


def test_a_namespace_that_nobody_claimed_is_the_hosts(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Such as one of a service of the host."""
    with waiting(["unshare", "-u", act, "name:there", "wait"], b"name 0\n") as service:
        cgroup.run([act, f"setns:/proc/{service}/ns/uts:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_SETNS)
    assert event.operands[1] == Relation.HOST


def test_a_namespace_of_another_container_is_the_others(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """It belongs to the container whose task is in it."""
    with new_cgroup(LABEL) as elsewhere:
        argv = elsewhere.command(["unshare", "-u", act, "unshare:0", "wait"])
        with waiting(argv, b"unshare 0\n") as other:
            cgroup.run([act, f"setns:/proc/{other}/ns/uts:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_SETNS)
    assert event.operands[1] == Relation.OTHER


def test_a_namespace_of_an_ended_container_is_the_hosts(act: str) -> None:
    """The next container in the slot does not have what the last one made, though it still exists.

    Two of them: what the next one claims may take the place of one.
    """
    with running(observe=(K.SYS_SETNS,), slots=1, beats=0) as probes:
        with new_cgroup(LABEL) as before:
            argv = before.command(["unshare", "-ui", act, "unshare:0", "wait"])
            with waiting(argv, b"unshare 0\n") as made:
                left = [os.open(f"/proc/{made}/ns/{kind}", os.O_RDONLY) for kind in ("uts", "ipc")]
        try:
            wait_for(lambda: probes.kernel.map("containers").fill() == 0, "the slot to be free")
            with new_cgroup(LABEL) as cgroup:
                assert probes.is_enrolled(cgroup)
                entering = [f"setns:/proc/{os.getpid()}/fd/{fd}:0" for fd in left]
                assert cgroup.run([act, *entering], capture_output=True).stdout == b"setns 0\n" * 2
                events = probes.wait(cgroup, K.SYS_SETNS, 2)
                relations = [event.operands[:2] for event in events]
                assert relations == [(NEWUTS, Relation.HOST), (NEWIPC, Relation.HOST)]
        finally:
            for fd in left:
                os.close(fd)


def test_a_measured_cgroup_is_the_hosts(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """With PERF_FLAG_PID_CGROUP the number is a descriptor: no process of the container has it."""
    cgroup.run(["unshare", "-pf", act, "perfcgroup", "perf"], capture_output=True)
    first, second = probes.wait(cgroup, K.SYS_PERF_EVENT_OPEN, 2)
    assert (first.operands[0], second.operands[0]) == (Relation.HOST, Relation.SELF)


def test_every_process_is_the_hosts(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """perf_event_open with the number -1 measures all of them."""
    cgroup.run([act, "sys:298:=x:-1:0:-1:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_PERF_EVENT_OPEN)
    assert event.operands[0] == Relation.HOST


def test_flags_of_a_mount_are_those_that_the_kernel_uses(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Without the magic number of old programs, which looks like other flags."""
    cgroup.run([act, f"sys:165:=none:=/nowhere:=rf-no-such-fs:{0xC0ED0003}:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_MOUNT)
    assert event.operands[0] == 3


def test_a_chroot_to_the_hosts_root_is_decided_when_it_is_done(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """Its path may lead anywhere before."""
    probes.enforce(Rule(K.SYS_CHROOT, "kill", {NEW_ROOT: {ROOT_OF_HOST}}))
    assert results(cgroup.run([act, "sys:161:=/tmp"], capture_output=True)) == {"sys": 0}
    assert cgroup.run([act, "sys:161:=/"], capture_output=True).returncode == -signal.SIGKILL


def test_an_open_that_passed_is_checked_again_under_new_rules(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """By the same task, which remembers that no rule matched."""
    probes.enforce(Rule(K.FILE_OPEN, "kill", {1: {os.O_WRONLY}}))
    words = ["open:/etc/hostname:0", "wait", "open:/etc/hostname:0"]
    task = cgroup.popen([act, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert task.stdout
    assert task.stdout.readline().startswith(b"open ")
    probes.enforce(Rule(K.FILE_OPEN, "kill", {NAME: {name_hash(b"hostname")}}))
    task.communicate(b"x")
    assert task.returncode == -signal.SIGKILL


def test_a_later_weaker_rule_does_not_replace_a_kill(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The rule that kills is in the first word, alerts are in the next one."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"), *[Rule(K.SYS_UNSHARE)] * 100)
    assert cgroup.run([act, "unshare:0"], capture_output=True).returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert (event.action, event.rule) == (Action.KILL, 0)


def test_a_32_bit_socketpair_is_checked(probes: Probes, cgroup: Cgroup, narrow: str) -> None:
    """By socketcall, whose arguments lie in memory."""
    need_32_bit_calls()
    cgroup.run([narrow, str(SOCKETCALL), str(SOCKETPAIR), "@1,3,0,0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_SOCKET)
    assert (event.nr, event.operands[:2]) == (SOCKETCALL, (1, 3))
    assert event.flags & FLAG_COMPAT


def test_every_32_bit_open_is_checked(probes: Probes, cgroup: Cgroup, narrow: str, tmp_path: Path) -> None:
    """open, creat, openat and openat2."""
    need_32_bit_calls()
    secret = tmp_path / "secret"
    secret.write_text("x")
    probes.enforce(Rule(K.FILE_OPEN, "kill", {NAME: {name_hash(b"secret")}}))
    how = "@0,0,0,0,0,0"  # struct open_how: flags, mode, resolve
    for words in (
        ("5", f"={secret}", "0"),
        ("8", f"={secret}", "0600"),
        ("295", "-100", f"={secret}", "0"),
        (str(OPENAT2), "-100", f"={secret}", how, "24"),
    ):
        done = cgroup.run([narrow, *words], capture_output=True)
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, b""), words
        harmless = [word.replace("secret", "other") for word in words]
        assert cgroup.run([narrow, *harmless], capture_output=True).returncode == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is of x86-64")
@pytest.mark.parametrize("number", [101, 521])
def test_an_x32_call_is_the_native_one(probes: Probes, cgroup: Cgroup, act: str, number: int) -> None:
    """Seen also by a kernel that does not run it, if every call is: the entry comes first."""
    entries = NodeCapabilities.detect().compat_entries
    if entries and "x32_sys_call" not in entries:
        force.elsewhere("this kernel refuses x32 calls, and no program is at every call")
    cgroup.run([act, f"sys:{X32 + number}:{PTRACE_SEIZE}:1:0:0"], capture_output=True)
    (event,) = probes.wait(cgroup, K.SYS_PTRACE)
    assert (event.operands[0], event.operands[1]) == (PTRACE_SEIZE, Relation.HOST)


def test_any_number_of_exceptions_holds_at_once(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Twenty exceptions of one word, each of another rule."""
    kills = [Rule(K.SYS_UNSHARE, "kill")] * 20
    holding = [Rule(K.SYS_UNSHARE, clears=number, operands={0: {NEWUTS}}) for number in range(20)]
    probes.enforce(*kills, *holding)
    assert results(cgroup.run([act, f"unshare:{NEWUTS}"], capture_output=True)) == {"unshare": 0}
    assert cgroup.run([act, "unshare:0"], capture_output=True).returncode == -signal.SIGKILL


def test_rules_of_every_word_are_evaluated(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The rule that kills is the first of the last word, and every rule before it matches."""
    last = (abi.RULE_WORDS - 1) * 64
    probes.enforce(*[Rule(K.SYS_UNSHARE)] * last, Rule(K.SYS_UNSHARE, "kill"))
    assert cgroup.run([act, f"unshare:{NEWUTS}"], capture_output=True).returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert (event.action, event.rule) == (Action.KILL, last)


def test_a_root_that_is_a_directory_counts_as_changed(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """The second chroot of a task comes out of the first."""
    done = cgroup.run([act, f"sys:161:={tmp_path}", "sys:161:=/"], capture_output=True)
    assert done.stdout == b"sys 0\nsys 0\n"
    seen = [event.operands[CHROOTED] for event in probes.wait(cgroup, K.SYS_CHROOT, 2)]
    assert seen == [0, 1]


def test_a_root_below_very_many_mounts_counts_as_changed(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Mounts stacked on the root: deeper than is looked, the worse is assumed."""
    if os.stat(act).st_dev != os.stat("/").st_dev:
        force.elsewhere("the program is on another filesystem, which a mount on / hides")
    script = (
        'for i in $(seq "$1"); do mount --bind / / || exit 1; done; '
        'exec nsenter --mount=/proc/self/ns/mnt -- "$2" "sys:161:=/tmp"'
    )
    seen: list[int] = []
    for depth in (3, 17):
        done = cgroup.run(["sh", "-c", script, "sh", str(depth), act], capture_output=True)
        assert results(done) == {"sys": 0}, done
        seen.append(probes.wait(cgroup, K.SYS_CHROOT, len(seen) + 1)[-1].operands[CHROOTED])
    assert seen == [0, 1]


def test_drops_are_counted_when_their_table_is_full(act: str) -> None:
    """Then by event and reason alone."""
    with running(activity_rate=1, activity_burst=1) as probes, new_cgroup(LABEL) as cgroup:
        probes.kernel.set_observe(K.SYS_SOCKET, abi.OBSERVE_ACTIVITY)
        table = probes.kernel.map("drops")
        key = 0
        try:
            while True:
                table.set(abi.DROP_KEY.pack(0xFFFF, 0, key), bytes(8))
                key += 1
        except OSError:
            assert key
        cgroup.run([act, "times:500:socket:2:2:0"], capture_output=True)
        seen = len(probes.events(cgroup, K.SYS_SOCKET))
        lost = probes.kernel.losses.totals()[int(K.SYS_SOCKET), int(Drop.RATE_LIMIT)]
        assert (seen + lost, seen < 100) == (500, True)


def test_a_container_below_one_that_is_none_is_a_container(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The agent's own cgroup is no container, and its canary below it is one."""
    below = cgroup.child("canary")
    containers = probes.kernel.map("containers")
    slot = containers.get_int(cgroup.id.to_bytes(8, "little"))
    containers.set(cgroup.id.to_bytes(8, "little"), abi.NEVER_SLOT)
    containers.set(below.id.to_bytes(8, "little"), slot)
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    try:
        assert below.run([act, "unshare:0"], capture_output=True).returncode == -signal.SIGKILL
        assert cgroup.run([act, "unshare:0"], capture_output=True).returncode == 0
    finally:
        containers.delete(below.id.to_bytes(8, "little"))
        containers.set(cgroup.id.to_bytes(8, "little"), slot)


def test_a_container_below_any_cgroup_is_a_container(probes: Probes, act: str) -> None:
    """Most are below one that is known to nobody, such as an engine's; this one is not at a first level."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    with new_cgroup("engine") as engine:
        container = engine.child(f"{PREFIX}{LABEL}-below")
        assert probes.is_enrolled(container)
        assert container.run([act, "unshare:0"], capture_output=True).returncode == -signal.SIGKILL
        assert engine.run([act, "unshare:0"], capture_output=True).returncode == 0


def test_a_runtime_that_prepares_a_container_is_not_restricted_by_its_cgroup(
    act: str, tmp_path: Path
) -> None:
    """Nor has it storage. Once the container has started, whatever comes into its cgroup is restricted."""
    call = f"mknod:{tmp_path}/node:b:259:1048575"
    with running() as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(Rule(K.DEVICE_ACCESS, "deny", {0: {1}}))
        probes.kernel.map("unlisted").set(0, 1)
        prepares = [act, f"unshare:{NEWNS}", call]
        done = cgroup.run(prepares, armed=False, capture_output=True)
        assert results(done) == {"unshare": 0, "mknod": 0}
        (tmp_path / "node").unlink()
        assert cgroup.run([act, "name:started"], capture_output=True).returncode == 0
        done = cgroup.run(prepares, armed=False, capture_output=True)
        assert results(done) == {"unshare": 0, "mknod": -errno.EPERM}


def test_a_task_without_storage_is_restricted_by_its_cgroup(act: str, tmp_path: Path) -> None:
    """Its storage could not be made: it is found by its cgroup, and a device is refused."""
    node = f"mknod:{tmp_path}/node:b:259:1048575"
    with running() as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(Rule(K.DEVICE_ACCESS, "deny", {0: {1}}))
        child = cgroup.popen([act, "wait", node], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        probes.wait(cgroup, K.CONTAINER_START)
        fd = os.pidfd_open(child.pid)
        probes.kernel.map("tasks").delete(fd)
        os.close(fd)
        probes.kernel.map("unlisted").set(0, 1)
        said, _ = child.communicate(b"x")
        assert b"mknod -1" in said
