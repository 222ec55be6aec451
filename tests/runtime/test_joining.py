# SPDX-License-Identifier: Apache-2.0
"""Namespaces joined by path: each kind, and the restrictions if the path leads to the host's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box
from tests.support import force
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
BOTH_INITS = True

FILES = {"network": "net", "mount": "mnt"}


def join(box: Box, kind: str, path: str) -> Box:
    """Let the container join a namespace."""
    spaces = [each for each in box.config["linux"]["namespaces"] if each["type"] != kind]
    box.config["linux"]["namespaces"] = [*spaces, {"type": kind, "path": path}]
    return box


@pytest.fixture
def holder() -> Iterator[int]:
    """A process with namespaces of its own, of every kind but user."""
    words = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time", "--fork", "--kill-child"]
    with subprocess.Popen(["unshare", *words, "sleep", "3600"]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        wait_for(lambda: children.read_text().strip(), "the holder")
        child = int(children.read_text())
        wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", "the holder to sleep")
        yield child
        parent.kill()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup", "pid", "time"])
def test_a_namespace_of_each_kind_is_joined(box: Box, holder: int, kind: str) -> None:
    """The process is in the namespace at the path."""
    name = FILES.get(kind, kind)
    join(box, kind, f"/proc/{holder}/ns/{name}")
    if kind == "uts":
        del box.config["hostname"]
    wanted = os.readlink(f"/proc/{holder}/ns/{name}")
    assert box.args("/bin/readlink", f"/proc/self/ns/{name}").output().strip() == wanted


def test_a_user_namespace_is_joined(boxes: Any) -> None:
    """The namespace of another container: its ids are this one's."""
    first, second = boxes(), boxes()
    for box in (first, second):
        os.chmod(box.directory.parent, 0o755)
    first.config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        first.config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 4000}]
    pid = first.start().state()["pid"]
    join(second, "user", f"/proc/{pid}/ns/user")
    got = second.shell("readlink /proc/self/ns/user; cat /proc/self/uid_map").output().split()
    assert got == [os.readlink(f"/proc/{pid}/ns/user"), "0", "0", "4000"]


def test_a_mount_is_mapped_as_the_joined_user_namespace(boxes: Any, tmp_path: Path) -> None:
    """`idmap` without a mapping of its own: the host's id 0 is 0 inside, although it is 5000 outside."""
    first, second = boxes(), boxes()
    for box in (first, second):
        os.chmod(box.directory.parent, 0o755)
        os.chown(Path(box.directory, box.config["root"]["path"]), 5000, 5000)
    first.config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        first.config["linux"][key] = [{"containerID": 0, "hostID": 5000, "size": 4000}]
    join(second, "user", f"/proc/{first.start().state()['pid']}/ns/user")
    (tmp_path / "file").touch()
    second.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind", "idmap"]}
    )
    got = second.args("/bin/stat", "-c", "%u %g", "/data/file").run()
    if "cannot be id-mapped" in got.stderr:
        force.elsewhere(
            "this kernel cannot id-map the filesystem of the temporary directory (tmpfs: from 6.3)"
        )
    assert got.stdout.split() == ["0", "0"], got.stderr


def test_a_joined_mount_namespace_is_copied_and_its_processes_keep_their_root(box: Box, holder: int) -> None:
    """Its mounts are seen; no process in it is moved to the container's root."""
    before = Path(f"/proc/{holder}/mountinfo").read_text()
    place = box.directory / "foreign"
    place.mkdir()
    enter = ["nsenter", f"--mount=/proc/{holder}/ns/mnt", "--"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "rftest", str(place)], check=True)
    subprocess.run([*enter, "sh", "-c", f"echo seen > {place}/file"], check=True)
    there = Path(f"/proc/{holder}/mountinfo").read_text()
    join(box, "mount", f"/proc/{holder}/ns/mnt")
    box.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(place), "options": ["rbind"]}
    )
    got = box.shell("cat /data/file; readlink /proc/self/ns/mnt").output().split()
    assert got[0] == "seen"
    assert got[1] not in (os.readlink(f"/proc/{holder}/ns/mnt"), os.readlink("/proc/self/ns/mnt"))
    assert os.readlink(f"/proc/{holder}/root") == "/"
    assert os.stat(f"/proc/{holder}/root").st_ino == os.stat("/").st_ino
    assert Path(f"/proc/{holder}/mountinfo").read_text() == there != before


def test_an_idmapped_mount_in_a_joined_mount_namespace_is_refused(box: Box, holder: int) -> None:
    """It cannot be made there, and is not silently omitted."""
    join(box, "mount", f"/proc/{holder}/ns/mnt")
    box.config["mounts"].append(
        {
            "destination": "/data", "type": "bind", "source": "/tmp", "options": ["rbind"],
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        }
    )  # fmt: skip
    assert f"mounts[{len(box.config['mounts']) - 1}].options" in box.refused()


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/proc/thread-self/ns/mnt"])
def test_the_hosts_own_mount_namespace_is_refused(box: Box, path: str) -> None:
    """Building a container in it would change the host's root."""
    before = mounts()
    assert "host's own" in join(box, "mount", path).refused()
    after = mounts()
    # Others may mount and unmount at the same time; old mounts are unchanged, and the runtime
    # added none.
    assert all(after[number] == line for number, line in before.items() if number in after)
    assert set(before) & set(after)
    assert not [line for line in after.values() if str(box.directory) in line]


def mounts() -> dict[str, str]:
    """Returns the lines of mountinfo by mount id."""
    return {line.split()[0]: line for line in Path("/proc/self/mountinfo").read_text().splitlines()}


# The written value is the host's current one: a failing test must not change the host.
SETTINGS = [
    ("network", "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
    ("ipc", "kernel.msgmax", "/proc/sys/kernel/msgmax"),
    ("user", "user.max_time_namespaces", "/proc/sys/user/max_time_namespaces"),
    ("uts", "kernel.domainname", "/proc/sys/kernel/domainname"),
]


@pytest.mark.parametrize(("kind", "name", "file"), SETTINGS)
def test_a_sysctl_of_a_joined_namespace_that_is_the_hosts_is_refused(
    box: Box, kind: str, name: str, file: str
) -> None:
    """A path to it is no namespace of the container (CVE-2022-0811 by another way)."""
    join(box, kind, f"/proc/self/ns/{FILES.get(kind, kind)}")
    if kind == "uts":
        del box.config["hostname"]
    box.config["linux"]["sysctl"] = {name: Path(file).read_text().strip()}
    message = box.refused()
    assert f"linux.sysctl.{name}" in message
    assert "host's own" in message


def test_a_link_to_the_hosts_namespace_is_the_hosts(box: Box, tmp_path: Path) -> None:
    """The target counts: here by a bind mount of its file."""
    place = tmp_path / "mine"
    place.touch()
    subprocess.run(["mount", "--bind", "/proc/self/ns/net", str(place)], check=True)
    try:
        box.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "0"}
        assert "host's own" in join(box, "network", str(place)).refused()
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("key", ["hostname", "domainname"])
def test_the_hosts_name_is_not_set(box: Box, key: str) -> None:
    """Nor its domain."""
    for each in ("hostname", "domainname"):
        box.config.pop(each, None)
    box.config[key] = os.uname().nodename
    message = join(box, "uts", "/proc/self/ns/uts").refused()
    assert f"config: {key}: " in message


def test_a_sysctl_of_a_pods_namespace_is_set(box: Box, holder: int) -> None:
    """The twin: a joined namespace that is not the host's."""
    join(box, "network", f"/proc/{holder}/ns/net")
    box.config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "77"}
    got = box.args("/bin/cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").output()
    assert got == "77\n"


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/ns/ipc", "/no/such", "/dev/null"])
def test_a_file_that_is_no_such_namespace_is_refused(box: Box, path: str) -> None:
    """With its kind and its path."""
    message = join(box, "network", path).refused()
    assert f"the network namespace {path}: " in message
