# SPDX-License-Identifier: Apache-2.0
"""For every rule: an attack that it must match, and its benign twin, which it must not match.

The commands are those of tests/escape/attacks, or of ringfence.proof.host_attacks if the actor is
on the host. `outcome` is the required outcome of enforcement on a kernel without BPF-LSM: `denied`
by cgroup-BPF, `killed`, `seen` if the rule only alerts, `blind` if only BPF-LSM can see the attack.
`rows` are the rows of the escape checklist (ringfence.proof.checklist) that the attack covers.
Detectors have cases, too, each in its own container: `bundle` names the anomaly of the attacker's.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ringfence.proof.target_container import (
    BESIDE,
    DISK,
    FS,
    HELPER,
    LEAKED,
    MOUNT,
    NODE,
    OWN,
    PEER,
    RELEASE,
    TERMINAL,
    Kind,
)

__all__ = ["CASES", "Case", "Outcome", "cases_for"]

Outcome = Literal["denied", "killed", "seen", "blind"]


class Case(NamedTuple):
    """One attack on one rule. `lsm`: the outcome with BPF-LSM if that is not `denied`."""

    rule: str
    rows: tuple[int, ...]
    outcome: Outcome
    attack: str
    twin: str
    lsm: Outcome | None = None
    kind: Kind = "plain"  # the kind of container that both run in
    twin_kind: Kind | None = None  # the twin's kind, if it differs
    optional: bool = False  # the rule is in policies/optional
    bundle: str = ""  # the anomaly of the attacker's bundle: see ringfence.proof.bundles
    detector: bool = False
    host: bool = False  # the actor is on the host: the commands are those of host_attacks
    disposable: bool = False  # writes settings of the node: only on disposable machines

    @property
    def id(self) -> str:
        """A unique name: the rule and the attack's command."""
        return f"{self.rule}: {self.attack or self.bundle}"

    @property
    def needs_disk(self) -> bool:
        """True if the case needs the disk fixture."""
        words = f"{self.attack} {self.twin}"
        return any(word in words for word in (LEAKED, DISK, "/run/host-passwd", "/run/shared", "/var/log"))

    @property
    def needs_address(self) -> bool:
        """True if the case needs an address of the node."""
        return NODE in self.attack

    @property
    def with_lsm(self) -> Outcome:
        """The outcome of enforcement if BPF-LSM enforces the rule."""
        return self.lsm or ("denied" if self.outcome != "seen" else "seen")

    @property
    def tried(self) -> str:
        """The attack's command for display."""
        return self.attack or f"start: {self.bundle}"

    @property
    def lawful(self) -> str:
        """The twin's command for display."""
        return self.twin or "start: the same, benign"


CGROUP = "/run/cgroup-beside"
PROC = "/proc/sys"
CAPABILITY = "security.capability"
LXCFS = "/run/lxcfs/devices.allow"
D: Outcome = "denied"
K: Outcome = "killed"
S: Outcome = "seen"
B: Outcome = "blind"

CASES = (
    # credentials.yaml, devices.yaml
    Case("setuid-on-disk", (32,), B, "chmod 04755 /run/shared/tool", "chmod 0755 /run/shared/tool"),
    Case("setuid-file", (32,), S, "chmod 04755", "chmod 0755"),
    Case("capability-on-disk", (64,), B, f"setxattr {CAPABILITY} /run/shared/tool", "setxattr user.rftest /run/shared/tool"),
    Case("host-file-attribute", (14,), B, "setxattr user.rftest /run/host-passwd", "setxattr user.rftest /tmp/mode"),
    Case("capability-file", (64,), S, f"setxattr {CAPABILITY} /tmp/mode", "setxattr user.rftest /tmp/mode"),
    Case("block-device", (1, 2), D, "mknod b 259 1048575", "mknod b 0 0"),
    Case("raw-device", (26,), D, "mknod c 1 1", "mknod c 1 3"),
    Case("control-device", (28,), D, "mknod c 1 11", "mknod c 1 9"),
    Case("control-device", (58,), D, "mknod c 10 241", "mknod c 10 229"),
    Case("character-device", (26,), D, "device c 4 1", "mknod c 4 1"),
    Case("video-device", (58,), S, "device c 81 0", "mknod c 81 0"),  # as images that carry /dev do
    # files.yaml
    Case("helper-file", (4,), K, f"open {RELEASE} w", f"open {RELEASE} r"),
    Case("helper-file", (8,), K, "open /sys/kernel/uevent_helper w", "open /sys/kernel/uevent_helper r"),
    Case("devices-allow", (3,), K, f"open {CGROUP}/devices.allow w", f"open {CGROUP}/devices.list r"),
    Case("devices-allow", (46,), K, f"open {LXCFS} w", f"open {LXCFS} r"),
    Case("binfmt-register", (9,), K, "open /run/binfmt_misc/register w", "open /run/binfmt_misc/status r"),
    Case("sysrq-trigger", (10,), K, "open /proc/sysrq-trigger w", "open /proc/sysrq-trigger r"),
    Case("sysrq-trigger", (37,), K, "open /run/console w", "open /run/console r"),
    Case("kernel-memory-file", (28,), K, "open /proc/kpagecount r", "open /proc/meminfo r"),
    Case("kernel-symbols", (28,), S, "open /proc/kallsyms r", "open /proc/version r", lsm=D),
    Case("kernel-log-file", (28,), S, "open /proc/kmsg r", "open /proc/uptime r", lsm=D),
    Case("kernel-filesystem-write", (27,), K, "open /run/tracefs/trace_marker w", "open /run/tracefs/trace_clock r"),
    Case("sysfs-control-write", (8,), K, "open /sys/module/kernel/parameters/panic_on_warn w", "open /sys/module/kernel/parameters/panic_on_warn r"),
    Case("sysfs-write", (), S, "open /sys/class/net/lo/mtu w", "open /sys/class/net/lo/mtu r"),
    Case("host-file-write", (14,), K, "open /run/host-passwd w", "open /etc/passwd w"),
    Case("log-symlink", (15,), B, "symlink /etc/shadow /var/log/0.log", "symlink 1.log /var/log/0.log"),
    Case("log-symlink", (15,), B, "symlink ../../secret /var/log/0.log", "symlink /etc/passwd /tmp/0.log"),
    Case("foreign-file", (29,), K, f"openat {LEAKED} secret", "open /run/host-passwd r"),
    Case("foreign-file", (31,), K, "take /run/hand.sock secret", "open /run/host-passwd r"),
    Case("foreign-file", (35,), K, f"cwd {LEAKED} etc/passwd", "open etc/passwd r"),
    Case("foreign-file", (17,), K, f"open /proc/{HELPER}/root{DISK}/secret r", "open /proc/self/root/etc/passwd r", kind="host-pid"),
    Case("foreign-file", (34,), K, f"open /proc/{HELPER}/exe r", "open /proc/self/exe r", kind="host-pid"),
    Case("foreign-cgroup", (3, 4), K, f"open {CGROUP}/cgroup.procs w", f"open {OWN} w"),
    Case("host-terminal", (61,), K, f"open {TERMINAL} r", "open /dev/pts/ptmx r"),
    Case("file-by-handle", (13,), K, "handle /tmp", "open /tmp r"),
    Case("token-by-tool", (24,), S, "run /bin/cat /tmp/token", "open /tmp/token r"),
    Case("token-by-dropped-program", (24,), S, "drop open /tmp/token r", "open /tmp/token r", lsm=D),
    # node.yaml
    Case("forged-uevent", (70,), B, "uevent", "uevent", kind="host-network", twin_kind="plain", disposable=True),
    Case("swap-space", (65,), K, "swapon", "sethostname"),
    Case("clock-set", (65,), K, "settime", "adjtimex"),
    Case("clock-set", (65,), K, "adjtimex 0x4000", "adjtimex"),
    Case("process-accounting", (65,), K, "acct", "sethostname"),
    Case("quota-change", (65,), K, "quota 0x800008 /run/host-passwd", "quota 0x800007 /run/host-passwd"),
    Case("fanotify-group", (66,), K, "fanotify 0", "fanotify 0x200"),
    Case("fanotify-group", (66,), K, "fanotify 4", "fanotify 0x600"),
    Case("fanotify-permission", (66,), K, "fanotify 0x204", "fanotify 0x200"),
    Case("filesystem-ioctl", (67,), K, "fsioctl 0xc0045878", "fsioctl 0x80086601"),
    Case("filesystem-ioctl", (67,), K, "fsioctl 0xc0045877", "fsioctl 0x80086601"),
    Case("handle-ioctl", (13, 67), K, "fsioctl 0xc038586b", "fsioctl 0x80086601"),
    Case("tree-search", (67,), S, "fsioctl 0xd0009411", "fsioctl 0x80086601", lsm=D),
    Case("filesystem-trim", (67,), S, "fsioctl 0xc0185879", "fsioctl 0x80086601"),
    Case("key-upcall", (68,), K, "request_key words", "request_key"),
    # kernel.yaml
    Case("kernel-module", (11,), K, "finit_module", "sethostname"),
    Case("kernel-module", (11,), K, "init_module", "sethostname"),
    Case("kernel-module", (11,), K, "delete_module", "sethostname"),
    Case("kexec-load", (12,), K, "kexec", "sethostname"),
    Case("kexec-load", (12,), K, "kexec_file", "sethostname"),
    Case("bpf-call", (27, 54), K, "bpf 5", "filter"),
    Case("perf-node", (28,), K, "perf -1", "perf 0"),
    Case("io-ports", (26,), K, "ioperm 1", "ioperm 0"),
    Case("io-ports", (26,), K, "iopl 3", "iopl 0"),
    Case("kernel-log", (28,), S, "syslog 3", "syslog 10", lsm=D),
    Case("reboot-kernel", (12,), K, "reboot 0x45584543", "reboot 0x01234567"),
    Case("reboot-node", (10,), K, "reboot 0x01234567", "reboot 0", kind="host-pid"),
    Case("userfaultfd-kernel", (52,), K, "userfaultfd 0", "userfaultfd 1"),
    Case("io-uring", (57,), S, "io_uring", "userfaultfd 1", lsm=D),  # the same hook as the attack's
    Case("keyring-use", (52,), S, "keyctl 6", "keyctl 0"),
    Case("keyring-add", (52,), S, "add_key", "keyctl 0"),
    # mounts.yaml
    Case("mount-call", (1,), K, "mount ext4 /dev/null", "private /tmp"),
    Case("mount-call", (1,), K, "mount_magic tmpfs", "private /tmp"),
    Case("mount-call", (3, 4), K, "mount cgroup none devices", "private /tmp"),
    Case("mount-call", (9,), K, "mount binfmt_misc", "private /tmp"),
    Case("mount-call", (30,), K, "remount /tmp", "private /tmp"),
    Case("mount-call", (30,), K, "bind /proc", "private /tmp"),
    Case("mount-call", (55,), K, "mount overlay", "private /tmp"),
    Case("mount-new-api", (30,), K, "mount_setattr /tmp", "open_tree /etc 0"),
    Case("mount-new-api", (30,), K, "fspick /tmp", "open_tree /tmp 0"),
    Case("mount-new-api", (1, 51), K, "fsopen ext4", "open_tree /etc 0"),
    Case("mount-new-api", (51,), K, f"fsconfig {FS}", "open_tree /etc 0"),
    Case("mount-new-api", (1,), K, "fsmount", "open_tree /etc 0"),
    Case("mount-new-api", (31,), K, f"move_mount {MOUNT}", "open_tree /etc 0"),
    Case("mount-clone", (31,), K, "open_tree /etc 1", "open_tree /etc 0"),
    Case("mount-clone", (31,), K, "open_tree /etc 2", "open_tree /etc 0"),
    Case("umount-call", (30,), K, "umount /dev/shm", "private /dev/shm"),
    Case("pivot-root", (29,), K, "pivot_root /etc /etc", "chroot /tmp"),
    Case("chroot-again", (29,), K, "chroot_out /tmp", "chroot /tmp"),
    Case("chroot-host", (14,), K, "chroot /run/host", "chroot /tmp"),
    Case("rename-exchange-link", (33,), B, "exchange 2 link", "exchange 0 link"),
    Case("rename-exchange", (33,), S, "exchange 2", "exchange 0"),
    # namespaces.yaml
    Case("userns-create", (5,), K, "unshare 0x12020000", "unshare 0x04000000"),
    Case("userns-create", (50, 52, 56), K, "unshare 0x50000000", "unshare 0x40000000"),
    Case("userns-create", (51, 55), K, "clone 0x10000000", "clone 0x04000000"),
    Case("userns-create", (51, 55), K, "clone3 0x10000000", "clone3 0x04000000"),
    Case("setns-host", (16,), K, "setns /run/ns-host-uts", "setns /proc/self/ns/uts"),
    Case("setns-host", (16,), K, f"setns_pidfd {PEER} 0x04000000", "setns_pidfd 0 0x04000000", kind="host-pid"),
    Case("setns-host", (16,), K, "setns /run/ns-other-uts", "setns /proc/self/ns/uts"),
    Case("cgroup-leave", (4,), K, f"leave {BESIDE}", f"leave {OWN}", lsm=K),
    Case("foreign-abi-call", (16, 30), K, "unshare32 0x4000000", "unshare 0x4000000"),
    # network.yaml
    Case("cloud-metadata", (23,), D, "connect 169.254.169.254 80", "connect 169.254.169.254 53"),
    Case("cloud-metadata", (23,), D, "connect 168.63.129.16 32526", "connect 168.63.129.16 53"),
    Case("cloud-own-identity", (23,), S, "connect 169.254.170.23 80", "connect 169.254.170.24 80"),
    Case("docker-tcp", (22,), D, "connect 127.0.0.1 2375", "connect 127.0.0.1 2374"),
    Case("kubelet-api", (15, 22), D, "connect 127.0.0.1 10250", "connect 127.0.0.1 10251"),
    Case("etcd-node", (22,), D, f"connect {NODE} 2379", f"connect {NODE} 2378"),
    Case("etcd-api", (22,), S, "connect 127.0.0.1 2379", "connect 127.0.0.1 2378"),
    Case("runtime-socket", (21,), D, "unix /run/docker.sock", "unix /tmp/docker.sock"),
    Case("host-socket", (21,), K, "unix /run/dbus/system_bus_socket", "unix @/rftest.sock listen"),
    Case("shim-socket", (20,), D, "unix @/containerd-shim/rftest.sock listen", "unix @/rftest.sock listen"),
    Case("packet-socket", (25, 53), K, "socket 17 3 0", "socket 2 2 0"),
    Case("packet-socket", (25, 53), K, "socket 2 10 0x300", "socket 2 3 1"),
    Case("exploited-socket-family", (49,), K, "socket 38 5", "socket 1 1"),
    Case("exploited-socket-family", (49,), K, "socketcall 38 5", "socketcall 1 1"),
    Case("exploited-socket-family", (50,), K, "socket 33 2 2", "socket 10 1"),
    Case("exploited-socket-family", (58,), K, "socket 40 1", "socket 1 2"),
    Case("old-socket-family", (), S, "socket 4 2", "socket 10 2", lsm=D),
    Case("raw-ip-socket", (23,), S, "socket 2 3 255", "socket 2 3 1"),
    Case("netfilter-socket", (52,), S, "socket 16 3 12", "socket 16 3 0"),
    Case("netfilter-socket", (50,), S, "socket 16 3 6", "socket 16 3 0"),
    Case("xfrm-socket", (50,), K, "socket 16 3 6", "socket 16 3 0", kind="userns"),
    # processes.yaml
    Case("ptrace-foreign", (18,), K, f"ptrace {HELPER}", "ptrace", kind="host-pid"),
    Case("memory-foreign", (18,), K, f"process_vm {HELPER}", "process_vm", kind="host-pid"),
    Case("pidfd-getfd", (19,), K, f"getfd {HELPER} 1", "getfd", kind="host-pid"),
    Case("process-file-foreign", (18,), K, f"open /proc/{HELPER}/mem w", f"open /proc/{HELPER}/stat r", kind="host-pid"),
    Case("process-file-foreign", (18,), K, f"open /proc/{HELPER}/environ r", "open /proc/self/environ r", kind="host-pid"),
    Case("process-file-foreign", (18,), K, f"open /proc/{HELPER}/maps r", f"open /proc/{HELPER}/status r", kind="host-pid"),
    Case("process-file-write", (18,), K, f"open /proc/{HELPER}/oom_score_adj w", f"open /proc/{HELPER}/oom_score_adj r", kind="host-pid"),
    Case("process-object-foreign", (18,), K, f"held {HELPER} /memfd:rftest", "held 0 /memfd:rftest", kind="host-pid"),
    Case("process-object-foreign", (18,), K, f"held {HELPER} pipe:", "held 0 pipe:", kind="host-pid"),
    Case("process-look", (18,), K, f"kcmp {HELPER}", "kcmp", kind="host-pid"),
    Case("process-control", (18,), B, f"read_of {HELPER} personality", f"read_of {HELPER} wchan", kind="host-pid"),
    Case("signal-foreign", (69,), K, f"kill {HELPER} 28", "kill 0 28", kind="host-pid"),
    Case("signal-foreign", (69,), K, f"kill_pidfd {HELPER} 28", f"kill {HELPER} 0", kind="host-pid"),
    Case("memory-file", (47,), S, "open /proc/self/mem w", "open /proc/self/mem r", lsm=D),
    Case("terminal-injection", (61,), K, "tty", "tty 0x5413"),
    Case("exec-from-memory", (60,), K, "memfd /bin/true", "run /bin/true"),
    # sysctl.yaml
    Case("sysctl-helper", (6,), D, f"rewrite {PROC}/kernel/core_pattern", f"read {PROC}/kernel/core_pattern"),
    Case("sysctl-helper", (7,), D, f"rewrite {PROC}/kernel/modprobe", f"read {PROC}/kernel/modprobe"),
    Case("sysctl-helper", (36,), D, "rewrite /run/unmasked", "read /run/unmasked"),
    Case("sysctl-helper", (37,), D, "rewrite /run/console-pattern", "read /run/console-pattern"),
    Case("sysctl-hardening", (10,), D, f"rewrite {PROC}/kernel/randomize_va_space", f"read {PROC}/kernel/randomize_va_space"),
    Case("sysctl-node", (10,), D, f"rewrite {PROC}/vm/swappiness", f"rewrite {PROC}/net/ipv4/ip_default_ttl"),
    # invariants.yaml: the kernel runs what a deceived runtime wrote
    Case("unknown-helper", (6, 36, 38, 40), K, "host-helper core_pattern", "host-module", host=True, disposable=True),
    Case("unknown-helper", (4, 5), K, "host-helper release_agent", "host-module", host=True, disposable=True),
    Case("unknown-helper", (7,), K, "host-helper modprobe", "host-module", host=True, disposable=True),
    Case("task-drift", (59,), K, "exploit /run/exploit commit", "exploit /run/exploit nothing", lsm=K, disposable=True),
    Case("host-loads-container-code", (42, 43), B, "host-map image /bin/true", "host-map own", lsm=S, host=True),
    # optional/: reported only if enabled
    Case("token-read", (24,), S, "open /tmp/token r", "open /tmp/mode r", optional=True),
    Case("host-symlink", (15,), S, "symlink /etc", "symlink /tmp/work", optional=True),
    Case("new-program", (60,), S, "drop", "run /bin/true", optional=True),
    Case("splice-setuid", (48,), K, "splice /bin/su", "splice /bin/true", lsm=K, optional=True),
    # detectors
    Case("image-link", (36, 37, 39), S, "", "", bundle="image-link", detector=True),
    Case("spec-sysctl", (40,), S, "", "", bundle="spec-sysctl", detector=True),
    Case("spec-loader", (43,), S, "", "", bundle="spec-loader", detector=True),
    Case("spec-text", (41,), S, "", "", bundle="spec-text", detector=True),
    Case("host-root", (14, 45), S, "", "", bundle="host-root", detector=True),
    Case("host-root", (44,), S, "", "", bundle="mounted-root", detector=True),
    Case("helper-changed", (6, 38, 40), S, "host-helper core_pattern", "host-module", host=True, disposable=True, detector=True),
    Case("limit-hit", (62,), S, "bomb 200", "bomb 8", bundle="few-processes", detector=True),
    Case("task-burst", (62,), S, "bomb 1200 6000", "bomb 100 500", bundle="plain", detector=True),
    Case("sweep", (63,), S, "sweep 8", "bomb 8", bundle="plain", detector=True),
)  # fmt: skip


def cases_for(rule: str) -> list[Case]:
    """Returns the cases of one rule or detector."""
    return [case for case in CASES if case.rule == rule]
