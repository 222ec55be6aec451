# SPDX-License-Identifier: Apache-2.0
"""Which mounts give a container access to parts of its host.

Two views: the mounts of a running task (/proc/PID/mountinfo: what is there) and those of config.json (what
was requested; the only view of a container that has ended).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ringfence.containers.enrich import safejson
from ringfence.containers.model import SensitiveMount
from ringfence_linux.mountinfo import MountLine, parse

__all__ = ["MOUNTS_MAX", "from_config", "from_mountinfo"]

MOUNTS_MAX = 64

# A source below one of these; the first that fits counts. Each is (kind, path), longest first where they
# nest.
_HOST_PATHS = (
    ("host-proc", "/proc"),
    ("sysfs-writable", "/sys"),
    ("kubelet", "/var/lib/kubelet"),
    ("kubelet", "/etc/kubernetes"),
    ("host-log", "/var/log"),
    ("host-dev", "/dev"),
    ("host-etc", "/etc"),
    ("host-path", "/root"),
    ("host-path", "/home"),
    ("host-path", "/boot"),
    ("host-path", "/usr"),
    ("host-path", "/var/lib/docker"),
    ("host-path", "/var/lib/containerd"),
    ("host-path", "/var/lib/containers"),
    ("host-path", "/run/containerd"),
)
_SOCKETS = re.compile(
    r"/(docker|containerd|crio|cri-dockerd|podman|buildkitd|kubelet|dockershim)\.sock$|/containerd\.sock\.ttrpc$|"
    r"/(lxd|incus)/unix\.socket$"
)
# Access to the directory is access to the sockets in it.
_SOCKET_DIRECTORIES = frozenset(
    f"{run}{name}"
    for run in ("/run", "/var/run")
    for name in ("", "/containerd", "/crio", "/docker", "/podman", "/k3s", "/k3s/containerd", "/k0s")
)
# What runtimes and the kubelet mount into every container, writable or not: no part of the host worth a word.
# A pod's volumes lie below the kubelet's directory, and so do its /etc/hosts and its termination log.
_HARMLESS = re.compile(
    r"/(hostname|hosts|resolv\.conf)$|^/etc/localtime$|"
    r"/kubelet/pods/[^/]+/(volumes|etc-hosts|containers)(/|$)|/sandboxes/[^/]+/shm$"
)
# What /dev of a container always holds.
_PLAIN_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fuse", "net/tun")
)
_LINES_MAX = 4096


def _bounded(mountinfo: str) -> Iterator[MountLine]:
    """At most _LINES_MAX mounts, with texts of at most TEXT_MAX: a container makes them itself."""
    for line in islice(parse(mountinfo), _LINES_MAX):
        line.root, line.target = line.root[: safejson.TEXT_MAX], line.target[: safejson.TEXT_MAX]
        line.source = line.source[: safejson.TEXT_MAX]
        yield line


def _below(path: str, base: str) -> bool:
    return path == base or path.startswith(base + "/")


def _host_kind(source: str) -> str | None:
    """What part of the host a path of the host is."""
    if source == "/":
        return "host-root"
    if source in _SOCKET_DIRECTORIES or _SOCKETS.search(source):
        return "runtime-socket"
    if source in _PLAIN_DEVICES or _HARMLESS.search(source):
        return None
    return next((kind for kind, base in _HOST_PATHS if _below(source, base)), None)


def from_config(mounts: list[Any]) -> tuple[SensitiveMount, ...]:
    """The sensitive ones of config.json's `mounts`, at most MOUNTS_MAX."""
    found = []
    for mount in mounts:
        source, target = safejson.text(mount, "source"), safejson.text(mount, "destination")
        kind, options = safejson.text(mount, "type"), safejson.children(mount, "options")
        writable = "ro" not in options
        if kind == "bind" or "bind" in options or "rbind" in options:
            sensitive = _host_kind(source.rstrip("/") or "/")
        elif writable:
            # procfs of its own is in every container, writable below the masks: the masks are not seen here.
            sensitive = {"sysfs": "sysfs-writable", "cgroup": "cgroup-writable"}.get(kind)
        else:
            sensitive = None
        if sensitive:
            found.append(SensitiveMount(sensitive, source, target, writable))
    return tuple(found[:MOUNTS_MAX])


def from_mountinfo(task: str, host: str = "") -> tuple[SensitiveMount, ...]:
    """The sensitive ones of a task's mountinfo, at most MOUNTS_MAX.

    `host` is the host's mountinfo: with it, a mount's device and root become the path of the host that it
    shows.
    """
    places, lines = _host_places(host), list(_bounded(task))
    procs = {line.device for line in _bounded(host) if line.fstype == "proc"}
    found = []
    for line in lines:
        kind = _kernel_kind(line)
        source = line.source
        if kind is None and line.target != "/" and line.device in places:
            source = _host_path(line, places[line.device])
            kind = _host_kind(source) if source else None
        elif kind is None and line.device in procs:  # a procfs of its own is on a device of its own
            kind = "host-proc"
        elif kind is None and _is_bare_proc(line, lines):
            kind = "proc-writable"
        if kind:
            found.append(SensitiveMount(kind, source, line.target, line.writable))
    return tuple(found[:MOUNTS_MAX])


def _is_bare_proc(line: MountLine, lines: list[MountLine]) -> bool:
    """A writable procfs over whose `sys` nothing is mounted, as runtimes mount it read-only."""
    covered = f"{line.target.rstrip('/')}/sys"
    whole = line.fstype == "proc" and line.root == "/" and line.writable
    return whole and not any(other.target == covered for other in lines)


def _kernel_kind(line: MountLine) -> str | None:
    """Kernel filesystems that matter if they are writable, whatever mounted them."""
    if line.fstype == "devtmpfs":
        return None if line.root in {name.removeprefix("/dev") for name in _PLAIN_DEVICES} else "host-dev"
    if not line.writable:
        return None
    if line.fstype == "proc" and line.root.startswith("/sys"):
        return "proc-writable"
    return {"sysfs": "sysfs-writable", "cgroup": "cgroup-writable", "cgroup2": "cgroup-writable"}.get(
        line.fstype
    )


# No mount of these shows a part of the host's own files.
_KERNEL_FILESYSTEMS = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "mqueue"))


def _host_places(host: str) -> dict[str, list[MountLine]]:
    """The host's mounts by device. Of its tmpfs mounts, only those that hold sockets and device nodes."""
    places: dict[str, list[MountLine]] = {}
    for line in _bounded(host):
        own = line.fstype == "tmpfs" and line.target not in ("/run", "/var/run", "/dev")
        if not own and line.fstype not in _KERNEL_FILESYSTEMS:
            places.setdefault(line.device, []).append(line)
    return places


def _host_path(line: MountLine, places: list[MountLine]) -> str:
    """Where on the host the tree lies that this mount shows; empty when no mount of the host shows it."""
    for place in places:
        if _below(line.root, place.root.rstrip("/")) or place.root == "/":
            below = line.root.removeprefix(place.root.rstrip("/"))
            return (place.target.rstrip("/") + below).rstrip("/") or "/"
    return ""
