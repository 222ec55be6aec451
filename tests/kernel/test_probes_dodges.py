# SPDX-License-Identifier: Apache-2.0
"""A container's attempts to have something else checked than what it does.

Arguments that the probes cannot read yet, calls with the effect of others, numbers that mean
another process than they seem to.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind, Mechanism, Relation
from tests.kernel.probes import LABEL, Probes, need_32_bit_calls, results
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
K = EventKind
NEWNS, NEWUTS, NEWUSER = 0x20000, 0x4000000, 0x10000000
AF_ALG, AF_SMC = 38, 43
LIVES = {"clone3": 0, "lives": 1, "child": 5 << 8}
OBSERVED = (
    K.PROCESS_EXEC,
    K.SYS_CLONE,
    K.SYS_PTRACE,
    K.SYS_PIDFD_GETFD,
    K.SYS_MOUNT_SETATTR,
    K.SYS_QUOTACTL,
)
PROBES = {"observe": OBSERVED}


def do(cgroup: Cgroup, dodge: str, *words: str) -> dict[str, int]:
    """Run one command of dodge.c, armed in the container, to its end."""
    return results(cgroup.run([dodge, *words], capture_output=True))


# ---- arguments that lie where the probes cannot read them yet


def test_clone3_is_checked_by_the_flags_that_the_kernel_read(
    probes: Probes, cgroup: Cgroup, dodge: str
) -> None:
    """Its flags on a page that is not resident: both the caller and the child are killed."""
    probes.enforce(Rule(K.SYS_CLONE, "kill", {0: {NEWUSER}}, {0: NEWUSER}))
    done = cgroup.run([dodge, "clone3", hex(NEWUSER)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert "lives" not in results(done)
    (killed,) = [e for e in probes.wait(cgroup, K.SYS_CLONE) if e.action != Action.NONE]
    assert (killed.action, killed.mechanism) == (Action.KILL, Mechanism.KILL)
    assert killed.operands[0] & NEWUSER
    wait_for(lambda: not cgroup.pids(), "the child to be killed")


def test_a_child_that_no_rule_forbids_lives(probes: Probes, cgroup: Cgroup, dodge: str) -> None:
    """Other flags from the same page; a rule that only alerts."""
    probes.enforce(Rule(K.SYS_CLONE, "kill", {0: {NEWUSER}}, {0: NEWUSER}))
    assert do(cgroup, dodge, "clone3", hex(NEWUTS)) == LIVES
    probes.enforce(Rule(K.SYS_CLONE, "alert", {0: {NEWUSER}}, {0: NEWUSER}))
    assert do(cgroup, dodge, "clone3", hex(NEWUSER)) == LIVES


def test_unreadable_socketcall_arguments_are_treated_as_forbidden(
    probes: Probes, cgroup: Cgroup, dodge: str
) -> None:
    """Programs push its arguments on the stack before
    the call; other placement is an attempt to hide them.
    """
    need_32_bit_calls()
    probes.enforce(Rule(K.SYS_SOCKET, "kill", {0: {AF_ALG}}))
    assert cgroup.run([dodge, "socketcall", "38", "5", "0"]).returncode == -signal.SIGKILL
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    assert do(cgroup, dodge, "socketcall", "2", "2", "0") == {"socket": 4}


# ---- calls with the effect of others


@pytest.mark.parametrize("family", [2, 10])
def test_smc_by_protocol_counts_as_its_family(
    probes: Probes, cgroup: Cgroup, dodge: str, family: int
) -> None:
    """IPPROTO_SMC of 6.11 makes a TCP socket equivalent to AF_SMC."""
    probes.enforce(Rule(K.SYS_SOCKET, "kill", {0: {AF_SMC}}))
    assert not do(cgroup, dodge, "socket", str(family), "1", "256")
    assert do(cgroup, dodge, "socket", str(family), "1", "6") == {"socket": 3}


def test_open_tree_attr_changes_a_mount_as_mount_setattr_does(
    probes: Probes, cgroup: Cgroup, dodge: str
) -> None:
    """Without OPEN_TREE_CLONE it changes the mount itself."""
    probes.enforce(Rule(K.SYS_OPEN_TREE, "kill", {0: {1}}, {0: 1}))
    done = do(cgroup, dodge, "open_tree_attr", "/", "0")
    if done["open_tree_attr"] == -errno.ENOSYS:
        force.elsewhere("this kernel has no open_tree_attr")
    assert done["nosuid"] == 1
    assert probes.wait(cgroup, K.SYS_MOUNT_SETATTR)
    probes.enforce(Rule(K.SYS_MOUNT_SETATTR, "kill"))
    assert not do(cgroup, dodge, "open_tree_attr", "/", "0")


@pytest.mark.parametrize("call", ["open", "openat", "openat2"])
def test_truncating_a_file_counts_as_writing(
    probes: Probes, cgroup: Cgroup, dodge: str, tmp_path: Path, call: str
) -> None:
    """O_TRUNC needs no write access, and the kernel's
    file does not keep it. With O_PATH it has no effect.
    """
    file = tmp_path / "kept"
    file.write_text("x")
    probes.enforce(Rule(K.FILE_OPEN, "kill", {1: {1, 2}, 3: {name_hash(b"other")}}, {1: os.O_ACCMODE}))
    assert set(do(cgroup, dodge, "empties", call, str(file))) == {"emptied", "opened"}
    probes.enforce(Rule(K.FILE_OPEN, "kill", {1: {1, 2}, 3: {name_hash(b"kept")}}, {1: os.O_ACCMODE}))
    done = cgroup.run([dodge, "empties", call, str(file)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert results(done) == {"opened": 1}
    (killed,) = [e for e in probes.wait(cgroup, K.FILE_OPEN) if e.action == Action.KILL]
    assert killed.path.endswith(b"/kept")
    reads = ["/bin/sh", "-c", f"exec 3< {file}; echo read"]
    assert cgroup.run(reads, capture_output=True).stdout == b"read\n"


def test_quotactl_by_descriptor_is_quotactl(probes: Probes, cgroup: Cgroup, dodge: str) -> None:
    """The variant of 5.14, which names the filesystem by an open file."""
    do(cgroup, dodge, "quotactl_fd")
    assert probes.wait(cgroup, K.SYS_QUOTACTL)


# ---- numbers of processes


@pytest.mark.parametrize(
    ("command", "kind", "dim", "relation"),
    [
        ("seize_thread", K.SYS_PTRACE, 1, Relation.CONTAINER),
        ("getfd_thread", K.SYS_PIDFD_GETFD, 0, Relation.SELF),
        ("getfd_dead", K.SYS_PIDFD_GETFD, 0, Relation.CONTAINER),
    ],
)
def test_threads_and_dead_processes_belong_to_their_process(
    probes: Probes, cgroup: Cgroup, dodge: str, command: str, kind: EventKind, dim: int, relation: Relation
) -> None:
    """In the host's pid namespace, by number or pidfd: not taken for host processes."""
    done = do(cgroup, dodge, command)
    if done.get("getfd") == -errno.EINVAL:
        force.elsewhere("this kernel has no pidfd of a thread")
    (event,) = probes.wait(cgroup, kind)
    assert event.operands[dim] == relation


@contextmanager
def said(argv: list[str]) -> Iterator[tuple[int, int]]:
    """A running program: its pid on the host, and the pid that it prints.

    Processes that it starts end with its cgroup.
    """
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def test_processes_in_a_shared_pid_namespace_keep_their_containers(
    probes: Probes, cgroup: Cgroup, dodge: str
) -> None:
    """As in a pod with a shared pid namespace: the container is looked up by process."""
    sleeps = ["sh", "-c", "echo $$; exec sleep 600"]
    with new_cgroup(LABEL) as elsewhere, said(["unshare", "-pf", "--kill-child", *sleeps]) as (outer, first):
        assert first == 1
        child = Path(f"/proc/{outer}/task/{outer}/children").read_text().strip()
        enter = ["nsenter", "-t", child, "-p", "--"]
        with said([*enter, *elsewhere.command(sleeps)]) as (_, number):
            probes.wait(elsewhere, K.PROCESS_EXEC, 2)
            for target, relation in ((number, Relation.OTHER), (first, Relation.HOST)):
                subprocess.run([*enter, *cgroup.command([dodge, "seize", str(target)])], check=True)
                assert probes.wait(cgroup, K.SYS_PTRACE)[-1].operands[1] == relation
            probes.calm()
            subprocess.run([*enter, *cgroup.command([dodge, "seize_thread"])], check=True)
            assert probes.wait(cgroup, K.SYS_PTRACE)[-1].operands[1] == Relation.CONTAINER


# ---- namespaces


def test_the_hosts_files_are_the_hosts_in_whatever_mount_namespace(
    probes: Probes, cgroup: Cgroup, dodge: str, tmp_path: Path
) -> None:
    """Host services have mount namespaces of their own: entering one of them is entering the host."""
    probes.enforce(Rule(K.SYS_SETNS, "kill", {0: {NEWNS}, 1: {Relation.HOST}}, {0: NEWNS}))
    shutil.copy(dodge, tmp_path / "dodge")
    join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in set(cgroup.paths.values()))
    service = subprocess.Popen(["unshare", "-m", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
    try:
        assert service.stdout
        assert service.stdout.readline() == b"\n"
        with open(f"/proc/{service.pid}/ns/mnt", "rb") as namespace:
            done = subprocess.run(
                [
                    "sh",
                    "-ec",
                    f'{join} exec unshare -m -R {tmp_path} -- /dodge setns "$1"',
                    "sh",
                    str(namespace.fileno()),
                ],
                pass_fds=[namespace.fileno()],
                capture_output=True,
                check=False,
            )
    finally:
        service.kill()
        service.communicate()
    assert done.returncode == -signal.SIGKILL, done
    assert "open" not in results(done)
    (event,) = [e for e in probes.wait(cgroup, K.SYS_SETNS) if e.action == Action.KILL]
    assert event.operands[:2] == (NEWNS, Relation.HOST)


def test_a_containers_own_mounts_are_not_the_hosts(
    probes: Probes, cgroup: Cgroup, dodge: str, tmp_path: Path
) -> None:
    """A mount namespace of the container, entered by its descriptor."""
    probes.enforce(Rule(K.SYS_SETNS, "kill", {0: {NEWNS}, 1: {Relation.HOST}}, {0: NEWNS}))
    shutil.copy(dodge, tmp_path / "dodge")
    join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in set(cgroup.paths.values()))
    script = f"{join} exec unshare -m -R {tmp_path} -- /dodge unshare"
    done = subprocess.run(["sh", "-ec", script], capture_output=True, check=False)
    assert results(done) == {"unshare": 0, "open": -errno.ENOENT}
