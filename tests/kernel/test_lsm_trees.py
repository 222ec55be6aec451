# SPDX-License-Identifier: Apache-2.0
"""Files of the host at LSM hooks: written nowhere but where containers are commonly given a place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import (
    TREE_CGROUP,
    TREE_ENGINE,
    TREE_GIVEN,
    TREE_HOME,
    TREE_HOST,
    TREE_OF_STORAGE,
    TREE_OF_TERMINALS,
    TREE_STORAGE,
    Action,
    EventKind,
)
from tests.kernel.lsm import REFUSED, Outcome, evading, mounted
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.kernel.trees import host_rule, register, terminal_rule
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
DONE = Outcome(0)
HERE = "-100"  # AT_FDCWD
CHANGES = ["write", "empty", "truncate", "unlink", "chmod", "chown"]
MAKES = ["create", "mknod", "fifo", "bind", "symlink", "mkdir"]


@pytest.fixture(autouse=True)
def reset(probes: Probes) -> Iterator[None]:
    """Remove the trees after each test."""
    yield
    probes.kernel.map("host_trees").delete_all()


@pytest.fixture
def host(probes: Probes, tmp_path: Path) -> Path:
    """Files of a host, with the rule in force."""
    for name in ("etc", "volumes/one", "home/me/.config", "home/me/project", "engine/1234"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("etc/passwd", "volumes/one/data", "engine/1234/hosts", "engine/1234/config.json"):
        (tmp_path / name).write_text("kept")
    register(
        probes,
        tmp_path,
        {
            tmp_path / "volumes": TREE_GIVEN,
            tmp_path / "home/me": TREE_HOME,
            tmp_path / "engine": TREE_ENGINE,
        },
    )
    probes.enforce(host_rule("deny"))
    return tmp_path


#: linux/posix_acl_xattr.h: version, then tag, rights and number of each entry
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 6, number)
    for tag, number in ((1, 2**32 - 1), (2, 1000), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1))
)
ATTRIBUTES = {
    "set": "os.setxattr(path, 'trusted.rftest', b'x')",
    "removed": "os.removexattr(path, 'trusted.rfset')",
    "access list": f"os.setxattr(path, 'system.posix_acl_access', {_ACL!r})",
    "access list removed": "os.removexattr(path, 'system.posix_acl_access')",
}
_CHANGED = """
import os, sys
path = sys.argv[1]
try:
    {change}
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize("change", ATTRIBUTES)
def test_an_attribute_of_a_file_of_the_host_is_not_changed(
    probes: Probes, cgroup: Cgroup, host: Path, change: str
) -> None:
    """Whatever its name: access lists have hooks of their own from 6.2 on. What is given may be changed."""
    paths = (host / "etc/passwd", host / "volumes/one/data")
    for path in paths:
        os.setxattr(path, "trusted.rfset", b"x")
        if change == "access list removed":
            os.setxattr(path, "system.posix_acl_access", _ACL)
    probes.enforce(Rule(EventKind.SYS_SETXATTR, "deny", {1: {TREE_HOST}}))
    before = _attributes(paths[0])
    script = _CHANGED.format(change=ATTRIBUTES[change])
    statuses = [cgroup.run([sys.executable, "-c", script, str(path)]).returncode for path in paths]
    assert statuses == [errno.EPERM, 0]
    assert _attributes(paths[0]) == before
    (event,) = probes.wait(cgroup, EventKind.SYS_SETXATTR)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.parametrize("way", CHANGES)
def test_a_file_of_the_host_is_not_changed(
    probes: Probes, cgroup: Cgroup, names: str, host: Path, way: str
) -> None:
    """EPERM before the effect and one record; below a volume the same is done."""
    assert evading(cgroup, names, HERE, way, host / "etc/passwd") == REFUSED
    assert (host / "etc/passwd").read_text() == "kept"
    (event,) = probes.wait(cgroup, EventKind.FILE_OPEN)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert evading(cgroup, names, HERE, way, host / "volumes/one/data") == DONE


@pytest.mark.parametrize("way", MAKES)
def test_no_file_is_made_among_the_hosts(cgroup: Cgroup, names: str, host: Path, way: str) -> None:
    """Whatever its name, which no list has."""
    assert evading(cgroup, names, HERE, way, host / "etc/anything") == REFUSED
    assert not (host / "etc/anything").exists()
    assert evading(cgroup, names, HERE, way, host / "volumes/one/anything") == DONE


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("home/me/project/file", DONE),
        ("home/me/.profile", REFUSED),
        ("home/me/.config/autostart", REFUSED),
        ("home/me/bin", REFUSED),
        ("home/me/binary", DONE),
        ("home/me/project/.git", DONE),
        ("home/other", REFUSED),
        ("engine/1234/resolv.conf", DONE),
        ("engine/1234/hostname", DONE),
        ("engine/1234/hostnames", REFUSED),
        ("engine/1234/resolv.conf.d", REFUSED),
        ("engine/hosts2", REFUSED),
        ("volumes/.hidden", DONE),
    ],
)
def test_what_is_given_ends_where_the_host_runs_it(
    cgroup: Cgroup, names: str, host: Path, path: str, outcome: Outcome
) -> None:
    """A home's hidden files are its owner's; of an engine's, three files are the container's."""
    assert evading(cgroup, names, HERE, "create", host / path) == outcome


def test_an_engines_file_is_not_replaced_by_another(cgroup: Cgroup, names: str, host: Path) -> None:
    """The file for the container is written; its configuration is not."""
    assert evading(cgroup, names, HERE, "write", host / "engine/1234/hosts") == DONE
    assert evading(cgroup, names, HERE, "write", host / "engine/1234/config.json") == REFUSED


@pytest.mark.parametrize("way", ["rename", "link", "exchange"])
@pytest.mark.parametrize(
    ("name", "other"),
    [("etc/passwd", "volumes/one/data"), ("volumes/one/data", "etc/passwd")],
)
def test_no_name_crosses_the_border(
    cgroup: Cgroup, names: str, host: Path, way: str, name: str, other: str
) -> None:
    """Neither out of the host's files nor into them; within a volume it does."""
    if way == "link":
        (host / other).unlink()
    assert evading(cgroup, names, HERE, way, host / name, host / other) == REFUSED
    (host / "volumes/one/second").write_text("x")
    if way == "link":
        (host / "volumes/one/second").unlink()
        (host / "volumes/one/data").write_text("x")
    assert evading(cgroup, names, HERE, way, host / "volumes/one/data", host / "volumes/one/second") == DONE


def test_another_mount_of_it_changes_nothing(
    cgroup: Cgroup, names: str, host: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A bind mount of a directory, and one with a name that is given elsewhere."""
    other = tmp_path_factory.mktemp("other") / "volumes"
    other.mkdir()
    with mounted("--bind", host / "etc", other):
        assert evading(cgroup, names, HERE, "write", other / "passwd") == REFUSED
        assert evading(cgroup, names, HERE, "create", other / "new") == REFUSED
    with mounted("-t", "tmpfs", "none", other):
        assert evading(cgroup, names, HERE, "create", other / "new") == DONE


@pytest.mark.parametrize("way", [*CHANGES, "rename"])
def test_the_root_of_another_container_is_not_changed(
    probes: Probes, cgroup: Cgroup, names: str, host: Path, way: str
) -> None:
    """A filesystem that an engine mounted; what is given on it may be changed."""
    with mounted("-t", "tmpfs", "none", host / "engine"):
        for name in ("root", "volume"):
            (host / "engine" / name).mkdir()
            (host / "engine" / name / "file").write_text("kept")
        given = {host / "engine": TREE_OF_STORAGE, host / "engine/volume": TREE_GIVEN}
        register(probes, host, given)
        probes.enforce(host_rule("deny", TREE_STORAGE))
        for name, outcome in (("root", REFUSED), ("volume", DONE)):
            file = host / "engine" / name / "file"
            words = (file, file.with_name("moved")) if way == "rename" else (file,)
            assert evading(cgroup, names, HERE, way, *words) == outcome
        assert (host / "engine/root/file").read_text() == "kept"


def test_cgroups_of_others_are_not_changed(probes: Probes, cgroup: Cgroup, names: str) -> None:
    """Its own one and those below it are the container's, whatever it does there."""
    probes.enforce(host_rule("deny", TREE_CGROUP))
    own = cgroup.child("below").path
    with new_cgroup() as other:
        for path, outcome in ((own, DONE), (other.path, REFUSED)):
            assert evading(cgroup, names, HERE, "chmod", path / "cgroup.procs") == outcome
            assert evading(cgroup, names, HERE, "chown", path) == outcome
            assert evading(cgroup, names, HERE, "mkdir", path / "made") == outcome
            assert evading(cgroup, names, HERE, "write", path / "cgroup.procs") == outcome


@pytest.mark.parametrize("way", ["chmod", "chown", "unlink", "rename", "device"])
def test_names_of_devices_among_the_hosts_files_are_not_changed(
    cgroup: Cgroup, names: str, host: Path, way: str
) -> None:
    """Their modes neither; they are opened by the rules of devices."""
    for directory, outcome in ((host / "etc", REFUSED), (host / "volumes/one", DONE)):
        os.mknod(directory / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        assert evading(cgroup, names, HERE, "write", directory / "null") == DONE
        words = [directory / ("new" if way == "device" else "null")]
        words += [directory / "moved"] if way == "rename" else []
        assert evading(cgroup, names, HERE, way, *words) == outcome


def test_a_terminal_of_the_host_is_not_opened(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """Nor is its mode changed; one of another devpts is the container's."""
    for name in ("host", "own"):
        (tmp_path / name).mkdir()
    options = ("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "none")
    with mounted(*options, tmp_path / "host"), mounted(*options, tmp_path / "own"):
        register(probes, Path("/proc"), {tmp_path / "host": TREE_OF_TERMINALS})
        probes.enforce(terminal_rule("deny"))
        for name, outcome in (("host", REFUSED), ("own", DONE)):
            with terminal(tmp_path / name) as path:
                assert evading(cgroup, names, HERE, "open", path) == outcome
                assert evading(cgroup, names, HERE, "chmod", path) == outcome


@contextlib.contextmanager
def terminal(directory: Path) -> Iterator[Path]:
    """Makes one."""
    maker = os.open(directory / "ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(maker, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK
    try:
        yield directory / "0"
    finally:
        os.close(maker)


def test_a_given_directory_itself_stays_where_it_is(cgroup: Cgroup, names: str, host: Path) -> None:
    """Its mode may change; its name belongs to the directory above."""
    assert evading(cgroup, names, HERE, "rename", host / "volumes", host / "home/me/moved") == REFUSED
    assert evading(cgroup, names, HERE, "chmod", host / "volumes") == DONE


def test_a_file_too_deep_to_be_judged_is_the_hosts(cgroup: Cgroup, names: str, host: Path) -> None:
    """Fails closed: 130 directories below a volume."""
    for depth, outcome in ((100, DONE), (130, REFUSED)):
        deep = host.joinpath("volumes", *["d"] * depth)
        deep.mkdir(parents=True, exist_ok=True)
        assert evading(cgroup, names, HERE, "create", deep / "file") == outcome


def test_reading_and_other_filesystems_are_let_through(cgroup: Cgroup, names: str, host: Path) -> None:
    """The rule is about writing."""
    assert evading(cgroup, names, HERE, "open", host / "etc/passwd") == DONE


def test_without_the_rule_all_of_it_is_done(probes: Probes, cgroup: Cgroup, names: str, host: Path) -> None:
    """The control."""
    probes.enforce()
    assert evading(cgroup, names, HERE, "write", host / "etc/passwd") == DONE
    assert subprocess.run(["rm", str(host / "etc/passwd")], check=True).returncode == 0
