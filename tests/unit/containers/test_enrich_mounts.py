# SPDX-License-Identifier: Apache-2.0
"""Which mounts hand out a part of the host."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.containers.enrich.mounts import MOUNTS_MAX, from_config, from_mountinfo
from ringfence.containers.model import Posture
from ringfence.containers.posture import scored

HOST = (
    "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    "23 22 0:21 / /proc rw - proc proc rw\n"
    "24 22 0:30 / /run rw - tmpfs tmpfs rw,mode=755\n"
    "25 22 8:2 / /var/lib/kubelet rw - xfs /dev/sda2 rw\n"
)


def bind(source: str, *options: str, target: str = "/x") -> dict[str, Any]:
    """A bind mount of config.json."""
    return {"source": source, "destination": target, "type": "bind", "options": ["rbind", *options]}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/", "host-root"),
        ("/etc", "host-etc"),
        ("/etc/kubernetes/pki", "kubelet"),
        ("/var/run/docker.sock", "runtime-socket"),
        ("/run/containerd/containerd.sock", "runtime-socket"),
        ("/run/crio/crio.sock", "runtime-socket"),
        ("/var/lib/incus/unix.socket", "runtime-socket"),
        ("/run", "runtime-socket"),
        ("/var/run", "runtime-socket"),
        ("/run/containerd", "runtime-socket"),
        ("/proc", "host-proc"),
        ("/dev", "host-dev"),
        ("/dev/sda", "host-dev"),
        ("/var/log", "host-log"),
        ("/var/lib/kubelet", "kubelet"),
        ("/root/.ssh", "host-path"),
    ],
)
def test_parts_of_the_host_are_named(source: str, kind: str) -> None:
    """By what they are, not by where they show."""
    [found] = from_config([bind(source)])
    assert (found.kind, found.source, found.writable) == (kind, source, True)


@pytest.mark.parametrize(
    "source",
    [
        "/srv/data",
        "/etcetera",
        "/var/lib/docker/containers/ab/hostname",
        "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~projected/token",
        "/var/lib/kubelet/pods/uid/etc-hosts",
        "/dev/null",
        "/run/secrets/app",
        "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/ab/shm",
    ],
)
def test_ordinary_volumes_are_not(source: str) -> None:
    """Nobody reads a warning that every pod has."""
    assert from_config([bind(source)]) == ()


def test_read_only_is_kept_apart() -> None:
    """It weighs less."""
    [found] = from_config([bind("/etc", "ro")])
    assert not found.writable


def test_own_kernel_filesystems_count_when_writable() -> None:
    """`--privileged` mounts /sys and cgroups writable."""
    mounts = [
        {"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": ["ro"]},
        {"type": "sysfs", "source": "sysfs", "destination": "/sys2", "options": ["rw"]},
        {"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup", "options": ["rw"]},
    ]
    assert [mount.kind for mount in from_config(mounts)] == ["sysfs-writable", "cgroup-writable"]


def test_mountinfo_shows_a_bind_mount_as_the_hosts_path() -> None:
    """Its device and root are compared with the host's own mounts: the source column says only the device."""
    task = (
        "50 1 0:50 / / rw - overlay overlay rw\n"
        "51 50 8:1 /etc /e rw - ext4 /dev/sda1 rw\n"
        "52 50 8:1 / /host ro - ext4 /dev/sda1 rw\n"
        "53 50 0:30 /docker.sock /var/run/docker.sock rw - tmpfs tmpfs rw\n"
        "54 50 8:1 /srv/data /data rw - ext4 /dev/sda1 rw\n"
        "55 50 8:2 /pods/u/volumes/v /v rw - xfs /dev/sda2 rw\n"
        "56 50 0:60 / /tmp rw - tmpfs tmpfs rw\n"
    )
    assert [(m.kind, m.source, m.target, m.writable) for m in from_mountinfo(task, HOST)] == [
        ("host-etc", "/etc", "/e", True),
        ("host-root", "/", "/host", False),
        ("runtime-socket", "/run/docker.sock", "/var/run/docker.sock", True),
    ]


def test_the_hosts_own_procfs_and_directories_of_sockets_are_seen() -> None:
    """As monitors mount them. A container's own /proc, and its own /run, are on other devices."""
    task = (
        "51 50 0:70 / /proc rw - proc proc rw\n"
        "56 51 0:70 /sys /proc/sys ro - proc proc rw\n"
        "52 50 0:21 / /host/proc ro - proc proc rw\n"
        "53 50 0:30 / /host/run rw - tmpfs tmpfs rw\n"
        "54 50 0:71 / /run rw - tmpfs tmpfs rw\n"
        "55 50 0:30 /containerd /c rw - tmpfs tmpfs rw\n"
    )
    assert [(m.kind, m.target, m.writable) for m in from_mountinfo(task, HOST)] == [
        ("host-proc", "/host/proc", False),
        ("runtime-socket", "/host/run", True),
        ("runtime-socket", "/c", True),
    ]


def test_a_procfs_that_nothing_covers_is_seen() -> None:
    """`--privileged`, or no readonlyPaths: /proc/sys can be written to, with no mount of its own."""
    own = "51 50 0:70 / /proc rw - proc proc rw\n"
    assert [(m.kind, m.writable) for m in from_mountinfo(own, HOST)] == [("proc-writable", True)]
    for line in (
        "60 51 0:70 /sys /proc/sys ro - proc proc rw\n",
        "60 51 0:75 / /proc/sys ro - tmpfs tmpfs ro\n",
    ):
        assert from_mountinfo(own + line, HOST) == ()
    assert from_mountinfo(own.replace("/proc rw", "/proc ro"), HOST) == ()


def test_a_device_node_and_writable_kernel_files_are_seen() -> None:
    """devtmpfs below a container is the host's /dev."""
    task = (
        "51 50 0:6 /sda /dev/sda rw - devtmpfs devtmpfs rw\n"
        "52 50 0:6 /null /dev/null rw - devtmpfs devtmpfs rw\n"
        "53 50 0:70 /sys /proc/sys rw - proc proc rw\n"
        "54 50 0:70 /sys /proc/sys ro - proc proc rw\n"
        "55 50 0:71 / /sys rw - sysfs sysfs ro\n"
        "56 50 0:72 / /c rw - cgroup cgroup rw,devices\n"
    )
    assert [m.kind for m in from_mountinfo(task)] == ["host-dev", "proc-writable", "cgroup-writable"]


def test_a_name_does_not_hide_a_mount() -> None:
    """The kernel escapes a newline; what Python takes for the end of a line, too, stands there as it is."""
    task = "54 50 0:70 /sys /proc\x0b\x85\u2028/sys rw - proc proc rw\n"
    assert [m.kind for m in from_mountinfo(task)] == ["proc-writable"]


def test_a_container_with_thousands_of_mounts_is_bounded() -> None:
    """It can make them itself."""
    task = "".join(f"{n} 1 8:1 /etc /e{n} rw - ext4 /dev/sda1 rw\n" for n in range(10_000))
    assert len(from_mountinfo(task, HOST)) == MOUNTS_MAX


@pytest.mark.parametrize(
    ("place", "root", "source"),
    [
        ("25 22 8:2 / /var/lib/kubelet rw - xfs x rw", "/pki", "/var/lib/kubelet/pki"),
        ("25 22 8:2 /a /var/log rw - xfs x rw", "/a", "/var/log"),
        ("25 22 8:2 /a/b /etc rw - xfs x rw", "/a/b/c", "/etc/c"),
        ("25 22 8:2 /a /etc rw - xfs x rw", "/ab", ""),
        ("25 22 8:2 / / rw - xfs x rw", "/", "/"),
    ],
)
def test_the_hosts_path_of_a_mount_is_found_by_device_and_root(place: str, root: str, source: str) -> None:
    """A host may have mounted only a part of the filesystem."""
    found = from_mountinfo(f"50 1 8:2 {root} /x rw - xfs x rw\n", place + "\n")
    assert [one.source for one in found] == ([source] if source else [])


def test_a_mount_of_the_configuration_is_judged_by_its_path() -> None:
    """A slash at its end is no other path; a bind is one by its type or an option."""
    for mount in (
        bind("/etc/"),
        {"source": "/etc/", "type": "none", "options": ["bind"]},
        {"source": "/etc", "type": "bind"},
    ):
        assert [one.kind for one in from_config([mount])] == ["host-etc"]
    assert from_config([{"source": "/etc", "type": "none", "options": []}]) == ()
    [root] = from_config([bind("//")])
    assert root.kind == "host-root"


def test_every_kind_of_a_mount_adds_to_the_score() -> None:
    """A read-only one half as much (Posture.score)."""
    sources = ("/", "/run", "/etc", "/proc", "/sys", "/dev", "/var/lib/kubelet", "/var/log", "/home")
    scores = {}
    for source in sources:
        [written], [read] = from_config([bind(source)]), from_config([bind(source, "ro")])
        score, less = (scored(Posture(sensitive_mounts=(one,))).score for one in (written, read))
        assert 0 < less == score // 2 < score
        assert scored(Posture(sensitive_mounts=(written, read, written))).score == score
        scores[written.kind] = score
    assert scores["host-root"] == scores["runtime-socket"] == max(scores.values())
    assert scores["host-path"] == min(scores.values())
