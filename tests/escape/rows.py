# SPDX-License-Identifier: Apache-2.0
"""For every rule of the pack: an attack that it must meet, and the nearest lawful thing, which must pass.

Words are those of attacks/*.c. `outcome` is what enforcement must come to on a node without BPF-LSM: `denied`
by cgroup-BPF, `killed`, or `seen` where the rule only tells.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tests.escape.stage import HELPER, LEAKED, OWN

__all__ = ["OPTIONAL", "PACK", "Row"]

Outcome = Literal["denied", "killed", "seen"]


class Row(NamedTuple):
    """One rule. `host_pid`: both run in a container of the host's pid namespace (plain_twin: the twin not)."""

    rule: str
    outcome: Outcome
    attack: str
    twin: str
    host_pid: bool = False
    plain_twin: bool = False


BESIDE = "/run/cgroup-beside"
PROC = "/proc/sys"

PACK = (
    # credentials.yaml, devices.yaml
    Row("setuid-file", "seen", "chmod 04755", "chmod 0755"),
    Row("block-device", "denied", "mknod b 259 1048575", "mknod c 1 3"),
    Row("raw-device", "denied", "mknod c 1 1", "device c 1 3"),
    Row("control-device", "denied", "mknod c 1 11", "device c 1 9"),
    Row("video-device", "seen", "device c 81 0", "mknod c 81 0"),
    # files.yaml
    Row("helper-file", "killed", "open /run/release_agent w", "open /run/release_agent r"),
    Row("devices-allow", "killed", f"open {BESIDE}/devices.allow w", f"open {BESIDE}/devices.list r"),
    Row("binfmt-register", "killed", "open /run/binfmt_misc/register w", "open /run/binfmt_misc/status r"),
    Row("sysrq-trigger", "killed", "open /proc/sysrq-trigger w", "open /proc/uptime r"),
    Row("kernel-memory-file", "killed", "open /proc/kpagecount r", "open /proc/meminfo r"),
    Row("kernel-symbols", "seen", "open /proc/kallsyms r", "open /proc/version r"),
    Row("kernel-filesystem-write", "killed", "open /run/tracefs/trace_marker w", "open /run/tracefs/trace_clock r"),
    Row("sysfs-write", "seen", "open /sys/class/net/lo/mtu w", "open /sys/class/net/lo/mtu r"),
    Row("host-file-write", "killed", "open /run/host-passwd w", "open /etc/passwd w"),
    Row("foreign-file", "killed", f"openat {LEAKED} secret", "open /run/host-passwd r"),
    Row("file-by-handle", "killed", "handle /tmp", "open /tmp r"),
    # kernel.yaml
    Row("kernel-module", "killed", "finit_module", "open /proc/modules r"),
    Row("kexec-load", "killed", "kexec", "open /proc/version r"),
    Row("bpf-call", "killed", "bpf 5", "seccomp 2"),
    Row("perf-node", "killed", "perf -1", "perf 0"),
    Row("io-ports", "killed", "ioperm", "personality 0x0040000"),
    Row("kernel-log", "seen", "syslog 3", "syslog 10"),
    Row("reboot-kernel", "killed", "reboot 0x45584543", "reboot 0x01234567"),
    Row("reboot-node", "killed", "reboot 0x01234567", "reboot 0", host_pid=True),
    Row("userfaultfd-kernel", "killed", "userfaultfd 0", "userfaultfd 1"),
    Row("io-uring", "seen", "io_uring", "memfd_create"),
    Row("keyring-use", "seen", "keyctl 6", "keyctl 0"),
    Row("keyring-add", "seen", "add_key", "keyctl 0"),
    # mounts.yaml
    Row("mount-call", "killed", "mount tmpfs", "private /tmp"),
    Row("mount-new-api", "killed", "mount_setattr /tmp", "open_tree /etc 0"),
    Row("mount-clone", "killed", "open_tree /etc", "open_tree /etc 0"),
    Row("umount-call", "killed", "umount /dev/shm", "open /proc/self/mountinfo r"),
    Row("pivot-root", "killed", "pivot_root /tmp /tmp", "open / r"),
    Row("chroot-call", "seen", "chroot /tmp", "run /bin/pwd"),
    # namespaces.yaml
    Row("userns-create", "killed", "unshare 0x10000000", "unshare 0x04000000"),
    Row("setns-host", "killed", "setns /run/ns-host-uts", "setns /proc/self/ns/uts"),
    Row("setns-other", "seen", "setns /run/ns-other-uts", "setns /run/ns-other-uts", host_pid=True, plain_twin=True),
    Row("cgroup-leave", "killed", f"leave {BESIDE}/cgroup.procs", f"leave {OWN}"),
    Row("foreign-abi-call", "killed", "unshare32 0x200", "unshare 0x200"),
    # network.yaml
    Row("cloud-metadata", "denied", "connect 169.254.169.254 80", "connect 169.254.169.254 53"),
    Row("docker-tcp", "denied", "connect 127.0.0.1 2375", "connect 127.0.0.1 2374"),
    Row("kubelet-api", "denied", "connect 127.0.0.1 10250", "connect 127.0.0.1 10251"),
    Row("etcd-api", "seen", "connect 127.0.0.1 2379", "connect 127.0.0.1 2378"),
    Row("runtime-socket", "denied", "unix /run/docker.sock", "unix /tmp/docker.sock"),
    Row("shim-socket", "denied", "unix @/containerd-shim/rftest.sock", "unix @/rftest.sock"),
    Row("packet-socket", "killed", "socket 17 3 0", "socket 2 2 0"),
    Row("exploited-socket-family", "killed", "socket 38 5", "socket 1 1"),
    Row("old-socket-family", "seen", "socket 4 2", "socket 10 2"),
    Row("netfilter-socket", "seen", "socket 16 3 12", "socket 16 3 0"),
    # processes.yaml
    Row("ptrace-foreign", "killed", f"ptrace {HELPER}", "ptrace", host_pid=True),
    Row("memory-foreign", "killed", f"process_vm {HELPER}", "process_vm", host_pid=True),
    Row("pidfd-getfd", "killed", f"getfd {HELPER} 1", "getfd", host_pid=True),
    Row("memory-file-foreign", "killed", f"open /proc/{HELPER}/mem w", f"open /proc/{HELPER}/stat r", host_pid=True),
    Row("memory-file", "seen", "open /proc/self/mem w", "open /proc/self/mem r"),
    Row("exec-from-memory", "killed", "memfd /bin/busybox", "run /bin/true"),
    # sysctl.yaml
    Row("sysctl-helper", "denied", f"rewrite {PROC}/kernel/core_pattern", f"read {PROC}/kernel/core_pattern"),
    Row("sysctl-hardening", "denied", f"rewrite {PROC}/kernel/randomize_va_space", f"read {PROC}/kernel/randomize_va_space"),
    Row("sysctl-node", "denied", f"rewrite {PROC}/vm/swappiness", f"rewrite {PROC}/net/ipv4/ip_default_ttl"),
)  # fmt: skip

# policies/optional: told of where somebody asks for them.
OPTIONAL = (
    Row("token-read", "seen", "open /tmp/token r", "open /tmp/mode r"),
    Row("host-symlink", "seen", "symlink /etc", "symlink /tmp/work"),
    Row("terminal-injection", "killed", "tiocsti", "device c 1 3"),
    Row("splice-call", "seen", "splice", "memfd_create"),
)
