# SPDX-License-Identifier: Apache-2.0
"""Which files are the host's: from its mounts, and what containers are commonly given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.abi import (
    TREE_ENGINE,
    TREE_GIVEN,
    TREE_HOME,
    TREE_KEY,
    TREE_LOG_DIRECTORY,
    TREE_OF_HOST,
    TREE_OF_LOGS,
    TREE_OF_STORAGE,
    TREE_OF_TERMINALS,
)
from ringfence.bpf.maps import Map
from ringfence.daemon.tracking.host_trees import HostTrees

VOLUME_DEVICE = "8:2"
BASE = (
    "1 0 {root} / / rw - ext4 /dev/sda1 rw",
    "2 1 0:4 / /proc rw - proc proc rw",
    "3 1 0:20 / /run rw - tmpfs tmpfs rw",
)


class Table(Map):
    """The entries of the map."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], int] = {}

    def set(self, key: bytes | int, value: bytes | int, flags: int = 0) -> None:
        """Store one entry."""
        assert isinstance(key, bytes)
        assert isinstance(value, int)
        device, inode = TREE_KEY.unpack(key)
        self.entries[device, inode] = value

    def delete(self, key: bytes | int) -> bool:
        """Remove one entry."""
        assert isinstance(key, bytes)
        device, inode = TREE_KEY.unpack(key)
        return self.entries.pop((device, inode), None) is not None

    def filesystems(self, of: int = TREE_OF_HOST) -> frozenset[int]:
        """Returns the devices that are the host's, or of that kind."""
        return frozenset(device for (device, inode), kind in self.entries.items() if not inode and kind == of)

    def kind(self, path: Path) -> int | None:
        """Returns what the table says of a file of the test's own root."""
        inode = path.stat().st_ino
        return next((kind for (_, one), kind in self.entries.items() if one == inode), None)


def device(text: str) -> int:
    """Returns MAJOR:MINOR as the kernel packs it."""
    major, minor = map(int, text.split(":"))
    return major << 20 | minor


def own_device(root: Path) -> str:
    """Returns MAJOR:MINOR of the test's directory, which stands for the host's root."""
    number = root.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's root directory."""
    for name in ("proc/1", "var/log", "var/lib/docker/volumes", "home/alice", "home/bob", "root", "mnt"):
        (tmp_path / name).mkdir(parents=True)
    mounted(tmp_path)
    return tmp_path


def mounted(root: Path, *more: str) -> None:
    """Writes the host's mount table."""
    text = "\n".join((*BASE, *more)) + "\n"
    (root / "proc/1/mountinfo").write_text(text.format(root=own_device(root)))


def test_filesystems_of_the_host_are_its_own_and_those_of_containers_are_not(root: Path) -> None:
    """By mount point: those below an engine's, a kubelet's or a data directory are apart."""
    mounted(
        root,
        "10 1 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw",
        "11 3 0:51 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs rw - overlay overlay rw",
        "12 1 0:52 / /var/lib/kubelet/pods/1/volumes/secret rw - tmpfs tmpfs rw",
        f"13 1 {VOLUME_DEVICE} / /mnt/disk rw - xfs /dev/sdb rw",
        "14 1 0:53 / /home/alice/share rw - nfs4 server:/x rw",
        "15 1 8:3 / /boot rw - ext4 /dev/sda3 rw",
        "16 1 8:4 / /var/lib/docker rw - ext4 /dev/sda4 rw",
    )
    table = Table()
    HostTrees(table, root=root).close()
    assert table.filesystems() == {device(one) for one in (own_device(root), "0:20", "8:3", "8:4")}


def test_what_an_engine_mounted_for_containers_is_its_storage(root: Path) -> None:
    """Root directories of containers wherever the engine is, and its disks; not what containers share."""
    mounted(
        root,
        "10 1 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw",
        "11 3 0:51 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs rw - overlay overlay rw",
        "12 1 0:52 / /mnt/docker/overlay2/abc/merged rw - overlay overlay rw",
        "13 1 8:4 / /var/lib/containers/storage rw - xfs /dev/sdb rw",
        "14 1 0:53 / /var/lib/docker/containers/abc/mounts/shm rw - tmpfs shm rw",
        "15 1 0:54 / /var/lib/kubelet/pods/1/volumes/csi/mount rw - overlay overlay rw",
        "16 1 8:5 / /var/lib/kubelet/pods/1/volumes/csi2/mount rw - ext4 /dev/sdc rw",
        "17 1 8:5 / /var/lib/docker/plugins/x rw - ext4 /dev/sdc rw",
        "18 1 0:55 / /var/lib/docker/overlay2/def/merged rw - nfs4 server:/x rw",
        "19 1 0:56 net:[4026532000] /run/docker/netns/x rw - nsfs nsfs rw",
    )
    table = Table()
    HostTrees(table, root=root).close()
    assert table.filesystems(TREE_OF_STORAGE) == {device(one) for one in ("0:50", "0:51", "0:52", "8:4")}


def test_terminals_and_device_nodes_are_the_hosts(root: Path) -> None:
    """Every devpts that is mounted on the host, but for those of containers; and what is in /dev."""
    mounted(
        root,
        "10 1 0:5 / /dev rw - devtmpfs udev rw",
        "11 10 0:25 / /dev/pts rw - devpts devpts rw",
        "12 1 0:26 / /srv/build/dev/pts rw - devpts devpts rw",
        "13 1 0:27 / /var/lib/docker/overlay2/abc/merged/dev/pts rw - devpts devpts rw",
    )
    table = Table()
    HostTrees(table, root=root).close()
    assert table.filesystems(TREE_OF_TERMINALS) == {device("0:25"), device("0:26")}
    assert table.filesystems() == {device(one) for one in (own_device(root), "0:20", "0:5")}


def test_what_is_given_on_an_engines_disk_is_known(root: Path) -> None:
    """Its volumes, and the three files that it makes for each container."""
    for name in ("volumes", "overlay-containers"):
        (root / "var/lib/containers/storage" / name).mkdir(parents=True)
    mounted(root, "13 1 8:4 / /var/lib/containers/storage rw - xfs /dev/sdb rw")
    table = Table()
    HostTrees(table, root=root).close()
    assert table.kind(root / "var/lib/containers/storage/volumes") == TREE_GIVEN
    assert table.kind(root / "var/lib/containers/storage/overlay-containers") == TREE_ENGINE


def test_directories_that_containers_are_given_are_known_by_their_inode(root: Path) -> None:
    """So a bind mount or a link to them changes nothing."""
    table = Table()
    HostTrees(table, ["/var/lib/app*"], root=root).close()
    assert table.kind(root / "var/log") == TREE_LOG_DIRECTORY
    assert table.kind(root / "var/lib/docker/volumes") == TREE_GIVEN
    assert table.kind(root / "mnt") == TREE_GIVEN
    assert table.kind(root / "home/alice") == TREE_HOME
    assert table.kind(root / "root") == TREE_HOME
    assert table.kind(root / "var/lib") is None


def test_a_directory_that_is_bound_elsewhere_is_given_all_the_same(root: Path) -> None:
    """Only the root of a filesystem is not. A link stands for the bind mount."""
    (root / "var/copy").symlink_to("log")
    mounted(root, f"20 1 {own_device(root)} /var/log /var/copy rw - ext4 /dev/sda1 rw")
    table = Table()
    HostTrees(table, root=root).close()
    assert table.kind(root / "var/log") == TREE_LOG_DIRECTORY


def test_a_filesystem_for_logs_is_not_the_hosts_and_has_a_directory_of_logs(root: Path) -> None:
    """Mounted at /var/log or below; not storage of other machines, which may not answer."""
    mounted(
        root,
        "20 1 0:60 / /var/log rw - xfs /dev/sdb1 rw",
        "21 20 0:61 / /var/log/remote rw - nfs4 server:/x rw",
        "22 1 0:62 / /mnt rw - xfs /dev/sdc1 rw",
    )
    table = Table()
    HostTrees(table, root=root).close()
    assert table.kind(root / "var/log") == TREE_LOG_DIRECTORY
    assert {key for key, kind in table.entries.items() if kind == TREE_OF_LOGS} == {(device("0:60"), 0)}
    assert device("0:60") not in table.filesystems()


def test_a_directory_of_the_host_that_is_bound_among_logs_stays_the_hosts(root: Path) -> None:
    """`mount --bind /etc /var/log/etc`: a link stands for the mount."""
    (root / "etc").mkdir()
    (root / "var/log/etc").symlink_to("../../etc")
    mounted(root, f"20 1 {own_device(root)} /etc /var/log/etc rw - ext4 /dev/sda1 rw")
    table = Table()
    HostTrees(table, root=root).close()
    assert table.kind(root / "etc") is None


def test_directories_of_the_configuration_are_added(root: Path) -> None:
    """One pattern may mean several; one that does not exist is no error."""
    (root / "opt/stack/data").mkdir(parents=True)
    (root / "opt/other/data").mkdir(parents=True)
    table = Table()
    HostTrees(table, ["/opt/st*/data", "/no/such/directory"], root=root).close()
    assert table.kind(root / "opt/stack/data") == TREE_GIVEN
    assert table.kind(root / "opt/other/data") is None


def test_a_link_in_a_users_directory_gives_nothing(root: Path) -> None:
    """A user, or a container with its directory, could point it at the host's files."""
    (root / "etc").mkdir()
    (root / "home/alice/.local/share/docker").mkdir(parents=True)
    (root / "home/alice/.local/share/docker/volumes").symlink_to("/etc")
    (root / "home/mallory").symlink_to("/etc")
    table = Table()
    HostTrees(table, root=root).close()
    assert table.kind(root / "etc") is None


def test_the_root_of_a_filesystem_that_is_also_mounted_elsewhere_is_not_given(tmp_path: Path) -> None:
    """`mount --bind / /mnt`: the directory is the root then. A link stands for the mount."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "mnt").symlink_to("/")
    status = os.stat(tmp_path)
    (tmp_path / "proc/1/mountinfo").write_text(
        f"1 0 {os.major(status.st_dev)}:{os.minor(status.st_dev)} / / rw - ext4 /dev/sda1 rw\n"
    )
    table = Table()
    HostTrees(table, root=tmp_path).close()
    assert table.kind(tmp_path) is None
    assert table.filesystems() == {os.major(status.st_dev) << 20 | os.minor(status.st_dev)}


def test_a_directory_that_appears_is_given_at_the_next_look(root: Path) -> None:
    """A fresh node: the kubelet makes its directories while the agent runs."""
    table = Table()
    trees = HostTrees(table, ["/opt/late"], root=root)
    (root / "opt/late").mkdir(parents=True)
    trees.refresh()
    trees.close()
    assert table.kind(root / "opt/late") == TREE_GIVEN


def test_a_directory_that_is_gone_is_no_longer_given(root: Path) -> None:
    """Inode numbers are used again."""
    table = Table()
    trees = HostTrees(table, root=root)
    before = (root / "var/log").stat().st_ino
    (root / "var/log").rename(root / "var/log.old")
    for _ in range(11):
        trees.refresh()
    trees.close()
    assert before not in {inode for _, inode in table.entries}
    assert table.filesystems() == {device(own_device(root)), device("0:20")}


def test_without_a_mount_table_what_is_known_stays(root: Path) -> None:
    """An error is logged once."""
    table = Table()
    trees = HostTrees(table, root=root)
    before = dict(table.entries)
    (root / "proc/1/mountinfo").unlink()
    for _ in range(11):
        trees.refresh()
    trees.close()
    assert table.entries == before
    assert before
