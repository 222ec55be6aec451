# SPDX-License-Identifier: Apache-2.0
"""Findings about the node itself, and the facts that could not be examined.

Reads files below two roots (of /proc and /sys, and of the host's disks), which tests can replace.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ringfence.audit import daemons
from ringfence.audit.cves import RUNTIMES, kernel_version, runtime_cves, unfixed
from ringfence.audit.model import CHECKS, Finding, Unseen

__all__ = ["Node", "findings", "has_mac", "versions_of_runtimes"]

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_DOCKER, _KUBELET_READ_ONLY = 2375, 10255
_SOCKETS = tuple(
    f"run/{name}.sock"
    for name in (
        "docker", "containerd/containerd", "crio/crio", "podman/podman", "cri-dockerd",
        "k3s/containerd/containerd", "k0s/containerd",
    )
)  # fmt: skip
_DIRECTORIES = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
_LESS_SURE = 30  # points deducted if a distribution may have backported the fix


class Node(NamedTuple):
    """The node: its name, kernel, runtimes, and the roots of its files. `disks` None: same as `root`."""

    name: str
    release: str
    build: str = ""
    root: Path = Path("/")
    runtimes: Mapping[str, str] = {}  # name -> version, from `--version` or the runtime's socket
    disks: Path | None = None
    not_asked: tuple[str, ...] = ()  # runtimes whose version was not queried

    @property
    def host(self) -> Path:
        """Returns the root of the host's disks."""
        return self.disks or self.root


def findings(node: Node) -> Iterator[Finding | Unseen]:
    """Yields all findings about the node."""
    for look in (_kernel, _runtimes, _ports, _sockets, _sysctls, _system):
        yield from look(node)


def has_mac(root: Path = Path("/")) -> bool:
    """Returns True if AppArmor or SELinux is enabled."""
    apparmor = _read(root / "sys/module/apparmor/parameters/enabled").startswith("Y")
    return apparmor or _read(root / "sys/fs/selinux/enforce") == "1" or _selinux_is_hidden(root)


def _selinux_is_hidden(root: Path) -> bool:
    """Returns True if SELinux cannot be examined: a pod's sysfs is without selinuxfs.

    The kernel lists selinuxfs if SELinux was not disabled at boot.
    Source: init_sel_fs of security/selinux/selinuxfs.c
    """
    listed = "selinuxfs" in _read(root / "proc/filesystems").split()
    return listed and not _read(root / "sys/fs/selinux/enforce")


def versions_of_runtimes(run: Callable[[list[str]], str] | None = None) -> dict[str, str]:
    """Returns the `--version` output of runtimes in the usual directories; runs only root's programs."""
    found = {}
    for name in RUNTIMES:
        for directory in _DIRECTORIES:
            program = Path(directory, name)
            try:
                about = program.stat()
            except OSError:
                continue
            if about.st_uid == 0 and not about.st_mode & 0o022 and stat.S_ISREG(about.st_mode):
                found[name] = (run or _run)([str(program), "--version"])
                break
    return found


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL, env={}
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout[:500]


def _found(check: str, node: Node, detail: str, score: int = -1) -> Finding:
    return Finding(CHECKS[check], node.name, detail, "", score)


def _kernel(node: Node) -> Iterator[Finding | Unseen]:
    version, upstream = kernel_version(node.release, node.build, _read(node.root / "proc/version_signature"))
    if version is None:
        yield _found("kernel-unknown", node, node.release)
        return
    shown = ".".join(map(str, version))
    for cve in unfixed(version):
        score = CHECKS["kernel-cve"].score - (0 if upstream else _LESS_SURE)
        sure = "" if upstream else "; the distribution may have backported the fix: see its advisory"
        yield _found("kernel-cve", node, f"{cve.id} ({cve.what}): Linux {shown}{sure}", score)


def _runtimes(node: Node) -> Iterator[Finding | Unseen]:
    for name in node.not_asked:
        yield Unseen("runtime-cve", f"the version of {name}: the agent runs no program to query it")
    if node.runtimes and not node.not_asked and not {"runc", "crun"} & node.runtimes.keys():
        where = ", ".join(_DIRECTORIES)
        yield Unseen("runtime-cve", f"the version of the OCI runtime: neither runc nor crun is in {where}")
    for name, text in node.runtimes.items():
        if not re.search(r"\d\.\d", text):
            yield Unseen("runtime-cve", f"the version of {name}: it printed none")
        for cve, version, upstream in runtime_cves(name, text):
            score = CHECKS["runtime-cve"].score - (0 if upstream else _LESS_SURE)
            sure = "" if upstream else "; the distribution may have backported the fix: see its advisory"
            yield _found("runtime-cve", node, f"{cve.id} ({cve.what}): {name} {version}{sure}", score)


def _ports(node: Node) -> Iterator[Finding | Unseen]:
    """Yields findings about listeners in the host's network; services without TLS have their own ports."""
    listening = _listening(node)
    found = list(daemons.docker(node.name, node.root / "proc", node.host, listening))
    yield from found
    if _DOCKER in listening and not any(isinstance(one, Finding) for one in found):
        only_here = listening[_DOCKER] == {True}
        where = "on the loopback only" if only_here else "for other machines, too"
        yield _found("docker-tcp", node, f"port {_DOCKER}, {where}", 75 if only_here else -1)
    if False in listening.get(_KUBELET_READ_ONLY, set()):
        yield _found("kubelet-read-only-port", node, f"port {_KUBELET_READ_ONLY}")
    yield from daemons.kubelet(node.name, node.root / "proc", node.host, listening)


def _listening(node: Node) -> dict[int, set[bool]]:
    """Returns listening port -> {on the loopback?}."""
    listening: dict[int, set[bool]] = {}
    for name in ("tcp", "tcp6"):
        for line in _read(node.root / "proc/1/net" / name, most=4 << 20).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                address, _, port = fields[1].rpartition(":")
                listening.setdefault(int(port, 16), set()).add(_loopback(address))
    return listening


def _loopback(address: str) -> bool:
    """Returns True for a loopback address of /proc/net/tcp: words in the machine's byte order."""
    if len(address) == 8:
        return address.endswith("7F")
    return address == "0" * 24 + "01000000" or (
        address.startswith("0" * 16 + "FFFF0000") and address.endswith("7F")
    )


def _sockets(node: Node) -> Iterator[Finding | Unseen]:
    for name in _SOCKETS:
        try:
            mode = (node.host / name).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield Unseen("runtime-socket-mode", f"/{name}: {error.strerror}")
            continue
        if mode & stat.S_IWOTH:
            yield _found("runtime-socket-mode", node, f"/{name} has mode {stat.S_IMODE(mode):04o}")


def _sysctls(node: Node) -> Iterator[Finding | Unseen]:
    kernel = node.root / "proc/sys/kernel"
    if _read(kernel / "unprivileged_bpf_disabled") == "0":
        yield _found("unprivileged-bpf", node, "kernel.unprivileged_bpf_disabled = 0")
    allowed = _read(node.root / "proc/sys/user/max_user_namespaces") not in ("", "0")
    restricted = _read(kernel / "unprivileged_userns_clone") == "0" or (
        _read(kernel / "apparmor_restrict_unprivileged_userns") == "1"
    )
    if allowed and not restricted:
        yield _found("unprivileged-userns", node, "user.max_user_namespaces is not 0")
    pattern = _read(kernel / "core_pattern")
    if pattern.startswith("|"):
        yield _found("core-pattern-pipe", node, pattern[:120])
    if _read(kernel / "kptr_restrict") == "0":
        yield _found("kernel-pointers", node, "kernel.kptr_restrict = 0")


def _system(node: Node) -> Iterator[Finding | Unseen]:
    if _selinux_is_hidden(node.root):
        yield Unseen("no-mac", "if SELinux enforces: selinuxfs is not mounted here")
    elif not has_mac(node.root):
        yield _found("no-mac", node, "see /sys/kernel/security/lsm")
    if " - cgroup " in _read(node.root / "proc/1/mountinfo", most=1 << 20):
        yield _found("cgroup-v1", node, "controllers of version 1 are mounted")


def _read(path: Path, most: int = 4096) -> str:
    """Returns a file's content; empty if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        data = bytearray()
        while len(data) < most and (block := os.read(fd, 65536)):
            data += block
        return data[:most].decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
