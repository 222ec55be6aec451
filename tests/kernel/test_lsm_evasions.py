# SPDX-License-Identifier: Apache-2.0
"""Evasions of a rule on a file, each stopped at the
LSM hooks. Control: each works without the rule.
"""

from __future__ import annotations

import array
import os
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, Action, EventKind, Mechanism, Relation
from tests.kernel.lsm import MAGIC, NAME, REFUSED, TYPE, Outcome, evading, mounted, named
from tests.kernel.probes import Probes, results
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
PROC, SYSFS, CGROUP2 = 0x9FA0, 0x62656572, 0x63677270
FOREIGN, OUTSIDE, WHOSE = 1 << 16, 3 << 16, 7 << 16
OPENED = Outcome(0)
NEWUSER = 0x10000000
OSTYPE = "/proc/sys/kernel/ostype"
OBJECT = Rule(K.FILE_OPEN, "deny", {MAGIC: {PROC}}, text=b"/sys/kernel/ostype\0")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that a rule can name."""
    path = tmp_path / "secret"
    path.write_text("x")
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("open", OSTYPE),
        ("symlink", OSTYPE, "SCRATCH"),
        ("bind", OSTYPE, "SCRATCH"),
        ("mount", "proc", "SCRATCH", "sys/kernel/ostype"),
        ("fsmount", "proc", "sys/kernel/ostype"),
        ("namespace", OSTYPE),
        ("descriptor", OSTYPE),
        ("ring", OSTYPE),
        ("tree", "/proc", "sys/kernel/ostype"),
        ("move", "/proc", "SCRATCH", "sys/kernel/ostype"),
        ("childs", OSTYPE),
    ],
    ids=lambda words: words[0],
)
def test_an_object_of_proc_is_matched_by_every_path(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Links, bind mounts, second mounts by either API, mounts that are moved or
    detached, namespaces of its own and of a child, descriptors, rings: all refused.
    """
    filled = [str(tmp_path / "first") if word == "SCRATCH" else word for word in words]
    assert evading(cgroup, evade, *filled) == OPENED
    probes.enforce(OBJECT)
    filled = [str(tmp_path / "second") if word == "SCRATCH" else word for word in words]
    assert evading(cgroup, evade, *filled) == REFUSED
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert event.path == b"/sys/kernel/ostype"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            Rule(K.FILE_OPEN, "deny", {MAGIC: {SYSFS}}, text=b"/kernel/uevent_seqnum\0"),
            ("sysfs", "kernel/uevent_seqnum"),
        ),
        (
            Rule(K.FILE_OPEN, "deny", {MAGIC: {CGROUP2}, NAME: {name_hash(b"cgroup.controllers")}}),
            ("cgroup2", "cgroup.controllers"),
        ),
    ],
    ids=("sysfs", "cgroup2"),
)
def test_a_second_mount_shows_the_same_object(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path, rule: Rule, words: tuple[str, str]
) -> None:
    """Of sysfs and of cgroups, by either API."""
    kind, inside = words
    assert evading(cgroup, evade, "mount", kind, tmp_path / "first", inside) == OPENED
    assert evading(cgroup, evade, "fsmount", kind, inside) == OPENED
    probes.enforce(rule)
    assert evading(cgroup, evade, "mount", kind, tmp_path / "second", inside) == REFUSED
    assert evading(cgroup, evade, "fsmount", kind, inside) == REFUSED


@pytest.mark.parametrize("way", ["hardlink", "rename"])
def test_a_file_gets_no_other_name(
    probes: Probes, cgroup: Cgroup, evade: str, secret: Path, tmp_path: Path, way: str
) -> None:
    """By which the rule would not match it. Files that no rule names may get any name."""
    probes.enforce(named("secret"))
    assert evading(cgroup, evade, way, secret, tmp_path / "other") == REFUSED
    assert not (tmp_path / "other").exists()
    assert secret.stat().st_nlink == 1
    probes.enforce()
    assert evading(cgroup, evade, way, secret, tmp_path / "other") == OPENED


def test_a_file_is_not_replaced_by_a_rename(
    probes: Probes, cgroup: Cgroup, evade: str, secret: Path, tmp_path: Path
) -> None:
    """A file that may not be opened cannot be replaced by renaming another one over it."""
    (tmp_path / "mine").write_text("mine")
    probes.enforce(named("secret"))
    assert evading(cgroup, evade, "rename", tmp_path / "mine", secret) == REFUSED
    assert secret.read_text() == "x"
    probes.enforce()
    assert evading(cgroup, evade, "rename", tmp_path / "mine", secret) == OPENED


def test_a_thread_that_rewrites_the_path_gains_nothing(
    probes: Probes, cgroup: Cgroup, evade: str, secret: Path, tmp_path: Path
) -> None:
    """The file is checked, not the argument's text at some moment."""
    (tmp_path / "public").write_text("x")
    assert evading(cgroup, evade, "race", secret, tmp_path / "public") == OPENED
    probes.enforce(named("secret"))
    assert evading(cgroup, evade, "race", secret, tmp_path / "public") == REFUSED


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(K.SYS_CLONE, "deny", {0: {NEWUSER}}, {0: NEWUSER}), ("clone3twice", "-")),
        (
            Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}}),
            ("setnstwice", "/proc/self/ns/mnt", "/proc/1/ns/mnt"),
        ),
    ],
    ids=("clone3", "setns"),
)
def test_a_call_is_checked_each_time(
    probes: Probes, cgroup: Cgroup, evade: str, rule: Rule, words: tuple[str, ...]
) -> None:
    """With the same registers from the same place, but other
    memory contents or another file behind the descriptor.
    """
    assert evading(cgroup, evade, *words) == OPENED
    probes.enforce(rule)
    assert evading(cgroup, evade, *words) == REFUSED
    (event,) = probes.wait(cgroup, rule.event)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


def test_a_32_bit_call_reaches_the_same_hook(probes: Probes, cgroup: Cgroup, act: str, secret: Path) -> None:
    """int 0x80, which no tracepoint of a single call sees."""
    before = cgroup.run([act, f"open32:{secret}"], capture_output=True)
    if results(before).get("open32", -1) < 0:
        pytest.skip("this kernel runs no 32-bit calls")
    probes.enforce(named("secret"))
    assert results(cgroup.run([act, f"open32:{secret}"], capture_output=True)) == {"open32": -REFUSED.error}
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert event.flags & 1  # made by a 32-bit call


def test_a_handle_does_not_open_files_outside_the_mount(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """open_by_handle_at reaches every file of a filesystem
    if a part of it is mounted: that is `outside`.
    """
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    with mounted("-t", "tmpfs", "none", whole):
        (whole / "inside").mkdir()
        (whole / "host-file").write_text("x")
        (whole / "inside" / "own-file").write_text("x")
        with mounted("--bind", whole / "inside", part):
            assert evading(cgroup, evade, "handle", whole / "host-file", part) == OPENED
            probes.enforce(Rule(K.FILE_OPEN, "deny", {TYPE: {OUTSIDE}}, masks={TYPE: WHOSE}))
            assert evading(cgroup, evade, "handle", whole / "host-file", part) == REFUSED
            assert evading(cgroup, evade, "handle", whole / "inside" / "own-file", part) == OPENED
            assert evading(cgroup, evade, "open", part / "own-file") == OPENED


def test_a_file_of_the_hosts_mounts_is_foreign(
    probes: Probes, cgroup: Cgroup, evade: str, secret: Path
) -> None:
    """By /proc/PID/root. The same file in the container's mounts is its own."""
    foreign = f"/proc/{os.getpid()}/root{secret}"
    assert evading(cgroup, evade, "open", foreign) == OPENED
    probes.enforce(Rule(K.FILE_OPEN, "deny", {TYPE: {FOREIGN}}, masks={TYPE: WHOSE}))
    assert evading(cgroup, evade, "open", foreign) == REFUSED
    assert evading(cgroup, evade, "descriptor", foreign) == REFUSED
    assert evading(cgroup, evade, "open", secret) == OPENED


def handed_over(cgroup: Cgroup, evade: str, file: int) -> Outcome:
    """Returns the outcome of receiving a descriptor from outside."""
    local, foreign = socket.socketpair()
    with local, foreign:
        local.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
        return evading(cgroup, evade, "socket", foreign.fileno(), "-", pass_fds=(foreign.fileno(),))


def test_a_foreign_file_is_not_handed_over(probes: Probes, cgroup: Cgroup, evade: str, secret: Path) -> None:
    """SCM_RIGHTS from a host process: a file of its mounts is refused; a pipe is accepted."""
    rule = Rule(K.FILE_RECEIVE, "deny", {TYPE: {FOREIGN}}, masks={TYPE: WHOSE})
    pipes = os.pipe()
    with secret.open() as file:
        assert handed_over(cgroup, evade, file.fileno()) == OPENED
        probes.enforce(rule)
        assert handed_over(cgroup, evade, file.fileno()) == REFUSED
    (event,) = probes.wait(cgroup, K.FILE_RECEIVE)
    assert (stat.S_IFMT(event.mode), event.mechanism) == (stat.S_IFREG, hook_mechanism())
    assert handed_over(cgroup, evade, pipes[0]) == OPENED
    for end in pipes:
        os.close(end)


def test_a_thread_that_swaps_a_descriptor_does_not_get_into_the_host(
    probes: Probes, cgroup: Cgroup, evade: str
) -> None:
    """setns reads the descriptor before the hook does. A
    thread that passes is killed at its next checkpoint.
    """
    host = f"/proc/{os.getpid()}/ns/uts"
    words = ["unshare", "-u", evade, "setnsrace", "/proc/self/ns/uts", host]
    done = cgroup.run(words, capture_output=True, text=True)
    assert done.stdout.startswith("opened"), done
    probes.enforce(Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}}))
    done = cgroup.run(words, capture_output=True, text=True)
    assert not done.stdout.startswith("opened"), done
    assert done.returncode in (0, -signal.SIGKILL)


def test_a_ring_cannot_connect_where_a_call_may_not(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """To a unix socket and to an address, by a kernel worker."""
    path = tmp_path / "server"
    with socket.socket(socket.AF_UNIX) as server, socket.socket() as net:
        server.bind(str(path))
        server.listen()
        net.bind(("127.0.0.1", 0))
        net.listen()
        port = net.getsockname()[1]
        assert evading(cgroup, evade, "ringconnect", path) == OPENED
        assert evading(cgroup, evade, "ringconnect", port) == OPENED
        probes.enforce(
            Rule(K.UNIX_CONNECT, "deny", text=str(path).encode() + b"\0"),
            Rule(K.NET_CONNECT, "deny", {0: {port}}),
        )
        assert evading(cgroup, evade, "ringconnect", path) == REFUSED
        assert evading(cgroup, evade, "ringconnect", port) == REFUSED
    (unix,), (address,) = probes.wait(cgroup, K.UNIX_CONNECT), probes.wait(cgroup, K.NET_CONNECT)
    assert (unix.action, unix.mechanism) == (Action.DENY, hook_mechanism())
    assert (address.action, address.mechanism) == (Action.DENY, Mechanism.CGROUP)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """The root of a container, an overlay of one program and a file that a rule can name."""
    busybox = force.need_program("busybox")
    with mounted("-t", "tmpfs", "none", tmp_path):
        for name in ("image", "image/mnt", "image/proc", "upper", "work", "root"):
            (tmp_path / name).mkdir()
        shutil.copy2(busybox, tmp_path / "image/busybox")
        (tmp_path / "image/secret").write_text("x")
        options = f"lowerdir={tmp_path}/image,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        with mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"):
            yield tmp_path / "root"


def inside(cgroup: Cgroup, root: Path, *argv: str) -> bool:
    """Returns True if a program succeeds as the first one of a container with that root."""
    words = ["unshare", "-m", f"--root={root}", *argv]
    return cgroup.run(words, armed=False, capture_output=True).returncode == 0


def test_an_exception_is_for_the_images_program(probes: Probes, cgroup: Cgroup, image: Path) -> None:
    """Another program at an excepted path gains nothing: not by overwriting
    it, by a mount over it, or by another root that has it at that path.
    """
    exception = Rule(K.FILE_OPEN, clears=1, operands={DIM_EXE: {name_hash(b"/busybox")}})
    look = ("/busybox", "cat", "/secret")
    other_root = ("/busybox", "sh", "-c", "exec /busybox chroot /mnt /busybox cat /secret")
    over_it = (
        "/busybox",
        "sh",
        "-c",
        "/busybox mount --bind /mnt/busybox /busybox; exec /busybox cat /secret",
    )
    with mounted("-t", "tmpfs", "none", image / "mnt"):
        for name in ("busybox", "secret"):
            shutil.copy2(image / name, image / "mnt" / name)
        for way in (look, other_root, over_it):
            assert inside(cgroup, image, *way), way
        probes.enforce(exception, named("secret"))
        assert inside(cgroup, image, *look)
        for way in (other_root, over_it):
            assert not inside(cgroup, image, *way), way
        shutil.copy2(image / "busybox", image / "new")
        (image / "new").rename(image / "busybox")
        assert not inside(cgroup, image, *look)
        probes.enforce()
        assert inside(cgroup, image, *look)
