# SPDX-License-Identifier: Apache-2.0
"""The possible findings: one table of checks, each with its score, its reason and its fix."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CHECKS", "Check", "Finding", "Unseen", "severity_of"]

_LEAST = (("critical", 90), ("high", 70), ("medium", 40), ("low", 10), ("info", 0))
_ESCAPE, _PRIVILEGES, _CREDENTIALS = ("T1611",), ("T1068",), ("T1552",)


def severity_of(score: int) -> str:
    """Returns the severity of a score of 0 to 100."""
    return next(word for word, least in _LEAST if score >= least)


class Check(NamedTuple):
    """One kind of finding. `scope`: container or node."""

    id: str
    scope: str
    score: int  # 0 to 100: 90 is an escape to the host that needs no further weakness
    title: str
    fix: str
    attack: tuple[str, ...] = _ESCAPE


class Finding(NamedTuple):
    """One failed check. `subject` is a container's name or the node's."""

    check: Check
    subject: str
    detail: str
    identifier: str = ""  # of the container
    score: int = -1  # if it differs from the check's
    accepted: str = ""  # the reason for which it is accepted; empty: it is not

    @property
    def points(self) -> int:
        """0 to 100."""
        return self.check.score if self.score < 0 else self.score

    @property
    def severity(self) -> str:
        """info, low, medium, high or critical."""
        return severity_of(self.points)


class Unseen(NamedTuple):
    """Something that could not be examined: the absence of a finding of that check means nothing."""

    check: str
    what: str


_TABLE = (
    Check("privileged", "container", 95, "the container is privileged",
          "run it without --privileged (securityContext.privileged: false); add the one capability or device that"
          " it needs"),
    Check("runtime-socket", "container", 95, "a container runtime's socket is mounted: write access to it is root"
          " access to the node", "remove the mount, or at least use a proxy that allows only the needed calls"),
    Check("host-root", "container", 90, "the host's root directory is mounted",
          "mount the one directory that is needed, read-only"),
    Check("host-device", "container", 85, "a device of the host, or all of them, is in the container",
          "pass single devices only; never disks or memory"),
    Check("host-etc", "container", 80, "the host's /etc (or root's home) is mounted",
          "mount single files, read-only"),
    Check("kubelet-dir", "container", 80, "the kubelet's directory is mounted: secrets of all pods of the node",
          "remove the mount, or mount one subdirectory read-only", _CREDENTIALS),
    Check("host-proc", "container", 75, "the host's /proc, or a writable part of /proc/sys, is in the container",
          "remove the mount; keep the runtime's maskedPaths and readonlyPaths"),
    Check("sysfs-writable", "container", 70, "/sys is writable: uevent_helper and firmware paths allow an escape",
          "leave /sys read-only"),
    Check("cgroup-writable", "container", 70, "the cgroup file system is writable: release_agent (version 1) allows"
          " an escape", "mount it read-only; use cgroup version 2"),
    Check("host-log", "container", 45, "the host's /var/log is mounted: the kubelet's log reader follows links"
          " in it to any file", "mount it read-only, or one subdirectory"),
    Check("host-path", "container", 40, "a directory of the host is mounted", "use a volume; mount it read-only"),
    Check("host-pid", "container", 70, "it is in the host's pid namespace", "hostPID: false; no --pid=host"),
    Check("host-network", "container", 50, "it is in the host's network: loopback services of the node, the metadata"
          " service", "hostNetwork: false; no --network=host"),
    Check("host-ipc", "container", 45, "it shares the host's System V IPC and POSIX queues",
          "hostIPC: false; no --ipc=host"),
    Check("host-mount-namespace", "container", 90, "it is in the host's mount namespace",
          "start it by a container runtime"),
    Check("host-uts", "container", 15, "it shares the host's UTS namespace", "no --uts=host"),
    Check("no-seccomp", "container", 55, "no seccomp filter: some 60 system calls more than the default profile"
          " allows", "seccompProfile: {type: RuntimeDefault}; no seccomp=unconfined", _PRIVILEGES),
    Check("strong-capabilities", "container", 60, "it has capabilities that affect the host",
          "capabilities: {drop: [ALL]}, then add what is needed"),
    Check("root-without-userns", "container", 25, "root in it is root on the node: no user namespace",
          "hostUsers: false (Kubernetes 1.33), --userns-remap, --userns=auto; or run as another user", _PRIVILEGES),
    Check("no-new-privs-off", "container", 15, "set-user-ID programs work in it",
          "allowPrivilegeEscalation: false; no-new-privileges", _PRIVILEGES),
    Check("unconfined", "container", 30, "no AppArmor or SELinux profile, though this node has it",
          "appArmorProfile: {type: RuntimeDefault}; no label=disable", _PRIVILEGES),
    Check("kernel-cve", "node", 75, "the kernel has a known container escape vulnerability",
          "update the kernel and restart the node", _PRIVILEGES),
    Check("kernel-unknown", "node", 5, "this kernel's version does not show which fixes it contains",
          "compare the distribution's advisories with the list in docs/reference/audit.md", _PRIVILEGES),
    Check("runtime-cve", "node", 75, "the container runtime has a known container escape vulnerability",
          "update it; running containers keep the old version until they are restarted"),
    Check("docker-tcp", "node", 95, "the Docker API listens on TCP: access to it is root access to the node",
          "listen on the Unix socket only, or verify client certificates (--tlsverify)"),
    Check("runtime-socket-mode", "node", 90, "every user of the node can write to a runtime's socket",
          "chmod 660, and use a separate group"),
    Check("kubelet-read-only-port", "node", 60, "the kubelet's read-only port answers without authentication",
          "readOnlyPort: 0", _CREDENTIALS),
    Check("kubelet-anonymous", "node", 90, "the kubelet answers anonymous requests: port 10250"
          " runs commands in every pod", "authentication: {anonymous: {enabled: false}}; authorization: {mode: Webhook}",
          _CREDENTIALS),
    Check("unprivileged-bpf", "node", 60, "every user can load BPF programs: the verifier is the only barrier",
          "sysctl kernel.unprivileged_bpf_disabled=1", _PRIVILEGES),
    Check("unprivileged-userns", "node", 20, "every user can create user namespaces: most kernel exploits of recent"
          " years start there", "limit them (user.max_user_namespaces, AppArmor) if nothing needs them", _PRIVILEGES),
    Check("core-pattern-pipe", "node", 10, "core_pattern runs a program as root for each crash, also in containers",
          "make that program and its directory inaccessible to containers"),
    Check("no-mac", "node", 35, "neither AppArmor nor SELinux is enabled", "enable one of them", _PRIVILEGES),
    Check("cgroup-v1", "node", 20, "cgroup version 1 is mounted: release_agent exists",
          "boot with the unified hierarchy"),
    Check("kernel-pointers", "node", 15, "kernel addresses can be read (kptr_restrict 0)",
          "sysctl kernel.kptr_restrict=1", _PRIVILEGES),
)  # fmt: skip
CHECKS = {check.id: check for check in _TABLE}
