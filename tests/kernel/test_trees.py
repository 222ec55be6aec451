# SPDX-License-Identifier: Apache-2.0
"""Files of the host where nothing can be refused: the process is killed when the open is done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import (
    TREE_CGROUP,
    TREE_ENGINE,
    TREE_GIVEN,
    TREE_HOME,
    TREE_OF_STORAGE,
    TREE_OF_TERMINALS,
    TREE_STORAGE,
)
from tests.kernel.lsm import mounted
from tests.kernel.probes import Probes, results
from tests.kernel.trees import host_rule, register, terminal_rule
from tests.support.cgroups import Cgroup, hierarchies, new_cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
READ, WRITE = os.O_RDONLY, os.O_WRONLY
TIOCSPTLCK = 0x40045431
KINDS = {"volumes": TREE_GIVEN, "me": TREE_HOME, "engine": TREE_ENGINE}
FILES = (
    "etc/passwd", "volumes/data", "volumes/deep/er/data", "me/.profile", "me/project/data",
    "engine/1234/hosts", "engine/1234/config.json",
)  # fmt: skip


@pytest.fixture(autouse=True)
def reset(probes: Probes) -> Iterator[None]:
    """Remove the trees after each test."""
    yield
    probes.kernel.map("host_trees").delete_all()


def opened(cgroup: Cgroup, act: str, path: Path, flags: int) -> int:
    """Opens the file in the container. Returns the exit code, or the negative signal."""
    return cgroup.run([act, f"open:{path}:{flags}"], stdout=subprocess.DEVNULL).returncode


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        ("etc/passwd", WRITE, -signal.SIGKILL),
        ("etc/passwd", READ, 0),
        ("etc/passwd", READ | os.O_TRUNC, -signal.SIGKILL),
        ("etc/new", WRITE | os.O_CREAT, -signal.SIGKILL),
        ("volumes/data", WRITE, 0),
        ("volumes/deep/er/data", os.O_RDWR, 0),
        ("me/.profile", WRITE, -signal.SIGKILL),
        ("me/project/data", WRITE, 0),
        ("engine/1234/hosts", WRITE, 0),
        ("engine/1234/config.json", WRITE, -signal.SIGKILL),
    ],
)
def test_an_open_for_writing_is_killed_among_the_hosts_files(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, path: str, flags: int, code: int
) -> None:
    """By the directory that the file is in; the control is the same open without the rule."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    register(probes, tmp_path, {tmp_path / name: kind for name, kind in KINDS.items()})
    assert opened(cgroup, act, tmp_path / path, flags) == 0
    probes.enforce(host_rule("kill"))
    assert opened(cgroup, act, tmp_path / path, flags) == code


def test_a_containers_own_files_are_not_the_hosts(
    probes: Probes, cgroup: Cgroup, dodge: str, tmp_path: Path
) -> None:
    """Its root is among the host's files; a directory of the host that is mounted into it is the host's."""
    root, etc = tmp_path / "root", tmp_path / "etc"
    for directory in (root / "mounted", etc):
        directory.mkdir(parents=True)
    for file in (root / "own", etc / "passwd"):
        file.write_text("x")
    shutil.copy(dodge, root / "dodge")
    register(probes, tmp_path, {})
    probes.enforce(host_rule("kill"))
    with mounted("--bind", etc, root / "mounted"):
        for name, code in (("/own", 0), ("/mounted/passwd", -signal.SIGKILL)):
            assert emptied_from(root, cgroup, name) == (code, not code)


def emptied_from(root: Path, cgroup: Cgroup, name: str) -> tuple[int, bool]:
    """Opens a file for writing in a container with that root. Returns the exit code and if it was done."""
    join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in set(cgroup.paths.values()))
    start = f'{join} exec unshare -m -R {root} -- /dodge empties open "$1"'
    done = subprocess.run(["sh", "-ec", start, "sh", name], capture_output=True, check=False)
    return done.returncode, "emptied" in results(done)


def test_a_container_writes_its_own_root_and_not_anothers(
    probes: Probes, cgroup: Cgroup, dodge: str, tmp_path: Path
) -> None:
    """Both are overlays that an engine mounted; a volume on one of them is given."""
    own, other = (stack_of(tmp_path / name) for name in ("own", "other"))
    with overlay(own) as root, overlay(other) as another:
        for path in (root / "own", another / "file", another / "volume/file"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        (root / "mounted").mkdir()
        shutil.copy(dodge, root / "dodge")
        kinds = {root: TREE_OF_STORAGE, another: TREE_OF_STORAGE, another / "volume": TREE_GIVEN}
        register(probes, Path("/proc"), kinds)
        probes.enforce(host_rule("kill", TREE_STORAGE))
        with mounted("--bind", another, root / "mounted"):
            assert emptied_from(root, cgroup, "/own") == (0, True)
            assert emptied_from(root, cgroup, "/mounted/volume/file") == (0, True)
            assert emptied_from(root, cgroup, "/mounted/file") == (-signal.SIGKILL, False)


def stack_of(directory: Path) -> Path:
    """Makes the directories of an overlay's layers."""
    for name in ("lower", "layers", "merged"):
        (directory / name).mkdir(parents=True)
    return directory


@contextlib.contextmanager
def overlay(directory: Path) -> Iterator[Path]:
    """Mounts it; the upper layer is a tmpfs."""
    layers, merged = directory / "layers", directory / "merged"
    options = f"lowerdir={directory}/lower,upperdir={layers}/upper,workdir={layers}/work"
    with mounted("-t", "tmpfs", "none", layers):
        for name in ("upper", "work"):
            (layers / name).mkdir()
        with mounted("-t", "overlay", "-o", options, "none", merged):
            yield merged


@pytest.mark.parametrize("hierarchy", sorted(hierarchies()))
def test_a_container_writes_to_its_own_cgroups_and_to_no_others(
    probes: Probes, cgroup: Cgroup, act: str, hierarchy: str
) -> None:
    """In every hierarchy, of v1 and v2, whichever identifies containers; reading is free."""
    probes.enforce(host_rule("kill", TREE_CGROUP))
    below = cgroup.child("below").paths[hierarchy]
    with new_cgroup() as other:
        theirs = other.paths[hierarchy] / "cgroup.procs"
        for path, flags, code in (
            (cgroup.paths[hierarchy] / "cgroup.procs", WRITE, 0),
            (below / "cgroup.procs", os.O_RDWR, 0),
            (theirs, READ, 0),
            (theirs, WRITE, -signal.SIGKILL),
            (hierarchies()[hierarchy] / "cgroup.procs", WRITE, -signal.SIGKILL),
        ):
            assert opened(cgroup, act, path, flags) == code, path


@contextlib.contextmanager
def terminals(directory: Path) -> Iterator[tuple[Path, int]]:
    """Mounts a devpts and makes a terminal in it. Returns its name, and a descriptor of it."""
    directory.mkdir()
    with mounted("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "none", directory):
        maker = os.open(directory / "ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(maker, TIOCSPTLCK, struct.pack("i", 0))
        terminal = os.open(directory / "0", os.O_RDWR | os.O_NOCTTY)
        try:
            yield directory / "0", terminal
        finally:
            os.close(terminal)
            os.close(maker)


@pytest.mark.parametrize("flags", [READ, WRITE])
def test_a_terminal_of_the_host_is_not_opened(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, flags: int
) -> None:
    """One of a devpts of its own is, and so is what makes new ones."""
    with terminals(tmp_path / "host") as (hosts, _), terminals(tmp_path / "own") as (own, _):
        register(probes, Path("/proc"), {hosts.parent: TREE_OF_TERMINALS})
        assert opened(cgroup, act, hosts, flags) == 0
        probes.enforce(terminal_rule("kill"))
        assert opened(cgroup, act, hosts, flags) == -signal.SIGKILL
        assert opened(cgroup, act, hosts.with_name("ptmx"), flags) == 0
        assert opened(cgroup, act, own, flags) == 0


def test_a_console_that_the_container_was_given_is_its_own(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """Mounted alone while nobody has it, or the terminal of its own session; not of another's."""
    console = tmp_path / "console"
    console.touch()
    with terminals(tmp_path / "host") as (hosts, terminal), mounted("--bind", hosts, console):
        register(probes, Path("/proc"), {hosts.parent: TREE_OF_TERMINALS})
        probes.enforce(terminal_rule("kill"))
        assert opened(cgroup, act, console, READ) == 0
        for name in (hosts, console):
            session = ["setsid", "--ctty", act, f"open:{name}:{READ}"]
            assert cgroup.run(session, stdin=terminal, stdout=subprocess.DEVNULL).returncode == 0
        with subprocess.Popen(["setsid", "--ctty", "sleep", "1000"], stdin=terminal) as login:
            wait_for(lambda: session_has_terminal(login.pid), "the login")
            assert opened(cgroup, act, console, READ) == -signal.SIGKILL
            login.kill()


def session_has_terminal(pid: int) -> bool:
    """Field 7 of proc_pid_stat(5): tty_nr."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4] != "0"


def test_a_device_of_the_hosts_disk_is_opened_by_the_rules_of_devices(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """An open for writing writes to the device, and not to the host's files."""
    os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "file").touch()
    register(probes, tmp_path, {})
    probes.enforce(host_rule("kill"))
    assert opened(cgroup, act, tmp_path / "file", WRITE) == -signal.SIGKILL
    assert opened(cgroup, act, tmp_path / "null", WRITE) == 0
