# SPDX-License-Identifier: Apache-2.0
"""Names of files at LSM hooks.

A file that is protected from being written is protected from losing, getting and changing its
name, too. Files of mounts that are not the container's own are refused in every way of access.

Each refusal has its control: the same act without the rule.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind
from tests.kernel.lsm import FLAGS, NAME, REFUSED, TYPE, Outcome, evading, mounted, named
from tests.kernel.probes import Probes, results
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
ACCESS, WRITE = 3, {1, 2}
OTHER, NONE, OUTSIDE = 1 << 16, 2 << 16, 3 << 16
WHOSE = 7 << 16
DONE = Outcome(0)
HERE = "-100"  # AT_FDCWD
#: the condition of invariant I2: files, directories and disks of mounts that are not the
#: container's
NOT_OWN = {
    kind | mount for kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFBLK) for mount in (OTHER, NONE, OUTSIDE)
}
I2 = [
    Rule(kind, "deny", {TYPE: NOT_OWN}, {TYPE: WHOSE | 0o170000})
    for kind in (K.FILE_OPEN, K.FILE_MAP, K.PROCESS_EXEC)
]


def protected(action: str = "deny") -> Rule:
    """Returns a rule: a file called `protected` may not be opened for writing."""
    return Rule(K.FILE_OPEN, action, {FLAGS: WRITE, NAME: {name_hash(b"protected")}}, {FLAGS: ACCESS})


def scene(directory: Path) -> None:
    """Create the files of the acts in their initial state."""
    subprocess.run(["rm", "-rf", str(directory)], check=True)
    (directory / "empty").mkdir(parents=True)
    (directory / "mine").write_text("mine")
    (directory / "protected").write_text("kept")


LOSES = ["write", "empty", "truncate", "unlink", "chmod", "chown"]
MOVES = ["link", "rename", "exchange"]
GETS = ["create", "mknod", "fifo", "bind", "symlink", "mkdir"]


@pytest.mark.parametrize("way", LOSES)
def test_a_protected_file_is_not_changed_by_its_name(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path, way: str
) -> None:
    """EPERM before the effect, one record; another file
    may be changed; without the rule this one, too.
    """
    place = tmp_path / "place"
    scene(place)
    probes.enforce(protected())
    assert evading(cgroup, names, HERE, way, place / "protected") == REFUSED
    assert (place / "protected").read_text() == "kept"
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert (event.action, event.mechanism, event.path[-10:]) == (Action.DENY, hook_mechanism(), b"/protected")
    assert event.inode == (place / "protected").stat().st_ino
    assert evading(cgroup, names, HERE, way, place / "mine") == DONE
    probes.enforce()
    assert evading(cgroup, names, HERE, way, place / "protected") == DONE


@pytest.mark.parametrize(
    ("way", "name", "other", "is_there"),
    [
        ("link", "protected", "new", True),
        ("link", "mine", "protected", False),
        ("rename", "protected", "new", True),
        ("rename", "protected", "mine", True),
        ("rename", "mine", "protected", True),
        ("rename", "mine", "protected", False),
        ("exchange", "mine", "protected", True),
        ("exchange", "protected", "mine", True),
    ],
)
def test_a_protected_name_is_neither_given_nor_taken(
    probes: Probes,
    cgroup: Cgroup,
    names: str,
    tmp_path: Path,
    way: str,
    name: str,
    other: str,
    is_there: bool,
) -> None:
    """A file from elsewhere does not get the name, whether it is taken or not; its owner keeps it."""
    place = tmp_path / "place"
    for rules, outcome in (([], DONE), ([protected()], REFUSED)):
        scene(place)
        if not is_there:
            (place / "protected").unlink()
        before = {path.name: path.stat().st_ino for path in place.iterdir()}
        probes.enforce(*rules)
        assert evading(cgroup, names, HERE, way, place / name, place / other) == outcome
        after = {path.name: path.stat().st_ino for path in place.iterdir()}
        assert (after == before) == (outcome == REFUSED)


@pytest.mark.parametrize("way", GETS)
def test_a_protected_name_is_not_made(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path, way: str
) -> None:
    """Nothing remains, not even an empty file: O_CREAT is checked before the file exists."""
    place = tmp_path / "place"
    scene(place)
    (place / "protected").unlink()
    probes.enforce(protected())
    assert evading(cgroup, names, HERE, way, place / "protected") == REFUSED
    assert not os.path.lexists(place / "protected")
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert (event.action, event.path[-10:]) == (Action.DENY, b"/protected")
    assert evading(cgroup, names, HERE, way, place / "other") == DONE
    probes.enforce()
    assert evading(cgroup, names, HERE, way, place / "protected") == DONE


@pytest.mark.parametrize("way", ["create", "empty", "unlink", "mknod"])
def test_an_act_is_reported_once(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path, way: str
) -> None:
    """In audit mode, where an open continues after the check of its name."""
    place = tmp_path / "place"
    scene(place)
    if way in ("create", "mknod"):
        (place / "protected").unlink()
    probes.enforce(protected("alert"))
    assert evading(cgroup, names, HERE, way, place / "protected") == DONE
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert event.action == Action.ALERT


def test_a_directory_that_is_named_in_a_rule_is_not_moved(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """Otherwise its contents would have another path.
    A directory is never opened for writing otherwise.
    """
    (tmp_path / "protected").mkdir()
    probes.enforce(protected())
    assert evading(cgroup, names, HERE, "rename", tmp_path / "protected", tmp_path / "away") == REFUSED
    assert evading(cgroup, names, HERE, "rmdir", tmp_path / "protected") == REFUSED
    assert evading(cgroup, names, HERE, "open", tmp_path / "protected") == DONE


def test_a_setuid_program_is_not_made_as_an_unnamed_file(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """O_TMPFILE with set-id bits: linkat would give it a name later."""
    rule = Rule(K.SYS_CHMOD, "deny", {0: {0o4000}}, {0: 0o4000})
    with mounted("-t", "tmpfs", "none", tmp_path):
        assert evading(cgroup, names, HERE, "tmpfile", tmp_path) == DONE
        probes.enforce(rule)
        assert evading(cgroup, names, HERE, "tmpfile", tmp_path) == REFUSED
    (event,) = probes.wait(cgroup, K.SYS_CHMOD)
    assert event.operands[0] & 0o7777 == 0o4755


def test_capabilities_of_a_file_are_not_set(
    probes: Probes, cgroup: Cgroup, act: str, names: str, tmp_path: Path
) -> None:
    """They make a program as powerful as setuid.
    Other attributes pass, and overlayfs's own copies.
    """

    def sets(path: Path, name: str) -> int:
        """Returns the result of setting the attribute."""
        done = cgroup.run([act, f"xattr:{path}:{name}"], capture_output=True)
        return results(done)["xattr"]

    with mounted("-t", "tmpfs", "none", tmp_path):
        for name in ("lower", "upper", "work", "root"):
            (tmp_path / name).mkdir()
        (tmp_path / "lower/tool").write_text("x")
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        assert sets(tmp_path / "lower/tool", "security.capability") == 0
        with mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"):
            probes.enforce(Rule(K.SYS_SETXATTR, "deny", text=b"security.capability\0"))
            assert sets(tmp_path / "root/tool", "security.capability") == -errno.EPERM
            (event,) = probes.wait(cgroup, K.SYS_SETXATTR)
            assert (event.text, event.mechanism) == (b"security.capability", hook_mechanism())
            assert sets(tmp_path / "root/tool", "trusted.other") == 0
        with mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"):
            (tmp_path / "upper/tool").unlink()
        with mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"):
            assert evading(cgroup, names, HERE, "write", tmp_path / "root/tool") == DONE
        assert len(probes.events(cgroup, K.SYS_SETXATTR)) == 1


@pytest.fixture
def leaked(tmp_path: Path) -> Iterator[int]:
    """A directory of the host's mounts as a descriptor that a container inherits: on a tmpfs."""
    with ExitStack() as stack:
        stack.enter_context(mounted("-t", "tmpfs", "none", tmp_path))
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, fd)
        yield fd


THROUGH = [*LOSES, *GETS, *MOVES, "open", "rmdir", "exec"]


@pytest.mark.parametrize("way", THROUGH)
def test_nothing_is_done_through_a_leaked_directory(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path, leaked: int, way: str
) -> None:
    """On any filesystem: files opened, changed, made, moved or run there are not the container's."""

    def act() -> Outcome:
        """Run the act on newly created files."""
        for path in tmp_path.iterdir():
            subprocess.run(["rm", "-rf", str(path)], check=True)
        (tmp_path / "file").write_bytes(Path("/bin/true").read_bytes())
        (tmp_path / "file").chmod(0o755)
        (tmp_path / "other").write_text("x")
        (tmp_path / "directory").mkdir()
        name = {"rmdir": "directory"}.get(way, "new" if way in GETS else "file")
        other = "other" if way == "exchange" else "new"
        return evading(cgroup, names, leaked, way, name, other, pass_fds=(leaked,))

    if way != "exec":  # its control leaves nothing to compare: see below
        assert act() == DONE
    probes.enforce(*I2)
    assert act() == REFUSED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file", "other"]


def test_a_program_of_a_foreign_mount_is_not_run(probes: Probes, cgroup: Cgroup, evade: str) -> None:
    """By /proc/PID/root. The same file in the container's mounts runs."""
    foreign = f"/proc/{os.getpid()}/root/bin/true"
    assert cgroup.run([evade, "exec", foreign, "-"]).returncode == 0
    probes.enforce(*I2)
    assert evading(cgroup, evade, "exec", foreign, "-") == REFUSED
    (event,) = probes.wait(cgroup, K.PROCESS_EXEC)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert cgroup.run([evade, "exec", "/bin/true", "-"]).returncode == 0


def test_a_directory_kept_from_the_first_namespace_is_the_containers(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """A directory that was opened before unshare(CLONE_NEWNS): the mount is the container's.

    As long as a process is left in that namespace, such as the container's first: its mounts end
    with it.
    """
    (tmp_path / "file").write_text("x")
    probes.enforce(*I2)
    among_others = 'sleep 600 & "$@"; kill $!'
    words = ("-c", among_others, "sh", names, HERE, "before", tmp_path, "file")
    assert evading(cgroup, "sh", *words) == DONE


def test_objects_without_a_mount_are_not_foreign(
    probes: Probes, cgroup: Cgroup, names: str, evade: str
) -> None:
    """memfd, pipes, namespaces and terminals of its own: reopened by /proc/self/fd."""
    probes.enforce(*I2)
    assert evading(cgroup, names, HERE, "memory", "-") == DONE
    assert evading(cgroup, evade, "open", "/proc/self/ns/net") == DONE
    assert evading(cgroup, evade, "ioctl", 0x80045430, "-") == DONE
    reader, writer = os.pipe()
    try:
        assert evading(cgroup, evade, "open", f"/proc/self/fd/{reader}", pass_fds=(reader,)) == DONE
    finally:
        os.close(reader)
        os.close(writer)


def test_a_fifo_and_a_terminal_of_the_hosts_stay_usable(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """nginx reopens /dev/stdout, which is one of these."""
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    master, terminal = os.openpty()
    probes.enforce(*I2)
    try:
        for fd in (fifo, terminal):
            assert evading(cgroup, evade, "open", f"/proc/self/fd/{fd}", pass_fds=(fd,)) == DONE
    finally:
        for fd in (fifo, master, terminal):
            os.close(fd)


def disk(directory: Path) -> ExitStack:
    """An ext4 filesystem in a file, mounted at directory/disk."""
    stack = ExitStack()
    image, place = directory / "image", directory / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([force.need_program("mkfs.ext4"), "-q", str(image)], check=True)
    subprocess.run(["modprobe", "-q", "loop"], check=False)
    stack.enter_context(mounted("-o", "loop", image, place))
    return stack


def test_a_mapping_of_an_overlay_on_a_disk_becomes_executable(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """The mapping has the underlying file, on a
    kernel-internal mount; rules are about the overlay's file.
    """
    with ExitStack() as stack:
        stack.enter_context(mounted("-t", "tmpfs", "none", tmp_path))
        stack.enter_context(disk(tmp_path))
        for name in ("upper", "work", "root"):
            (tmp_path / name).mkdir()
        (tmp_path / "disk/tool").write_bytes(Path("/bin/true").read_bytes())
        options = f"lowerdir={tmp_path}/disk,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        stack.enter_context(mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"))
        probes.enforce(*I2)
        assert evading(cgroup, names, HERE, "map", tmp_path / "root/tool") == DONE
        probes.enforce(named("tool", K.FILE_MAP))
        assert evading(cgroup, names, HERE, "map", tmp_path / "root/tool") == REFUSED
        (event,) = probes.wait(cgroup, K.FILE_MAP)
        assert event.path == b"/tool"
        assert event.fs_magic == 0x794C7630  # overlayfs: the file that was mapped
