# SPDX-License-Identifier: Apache-2.0
"""The rules of the pack match what their titles say, beyond the one attack that each is tested with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, DIM_FACTS, EventKind
from ringfence.policy import Rule, load_policies
from ringfence.policy.operand import fnv1a
from ringfence.policy.samples import Sample, device_sample, file_sample, rule_matches, sample
from ringfence.policy.shared_operands import TASK_WORDS

PACK = load_policies([Path(__file__).resolve().parents[3] / "policies"])
RULES = {rule.id: rule for policy in PACK.policies for rule in policy.rules}
K = EventKind


def written(filesystem: str, path: str, type: str = "file") -> Sample:
    """Returns an open of the file for writing."""
    return file_sample(
        K.FILE_OPEN, filesystem, path.encode(), f"{path} is written", access="write", type=type
    )


def of_host(filesystem: str, path: str, type: str = "file") -> Sample:
    """Returns an open for writing of a file in a tree of the host."""
    return file_sample(
        K.FILE_OPEN, filesystem, path.encode(), f"{path} is written", access="write", type=type, tree="host"
    )


def read(filesystem: str, path: str) -> Sample:
    """Returns an open of the file for reading."""
    return file_sample(K.FILE_OPEN, filesystem, path.encode(), f"{path} is read", access="read", type="file")


def connected(address: str, port: int) -> Sample:
    """Returns a TCP connection."""
    packed = ipaddress.ip_address(address).packed
    return sample(K.NET_CONNECT, f"{address}:{port} is connected to", address=packed, port=port)


def sent(address: str, port: int) -> Sample:
    """Returns a datagram without a connection."""
    packed = ipaddress.ip_address(address).packed
    return sample(K.NET_SENDMSG, f"{address}:{port} is sent to", address=packed, port=port, protocol="udp")


def reached(name: str) -> Sample:
    """Returns a connection to a unix socket."""
    return sample(K.UNIX_CONNECT, f"{name} is connected to", text=name.encode())


def by(program: str, one: Sample, task: str = "") -> Sample:
    """Returns the event as caused by that program, in a task with that fact."""
    facts = TASK_WORDS[task] if task else 0
    numbers = {**one.numbers, DIM_EXE: fnv1a(program.encode()), DIM_FACTS: facts}
    return replace(one, what=f"{one.what} by {program} ({task})", numbers=numbers)


def of_process(name: str, owner: str, access: str = "read") -> Sample:
    """Returns an open of a file of /proc/PID of a process that belongs to `owner`."""
    return file_sample(
        K.FILE_OPEN, "proc", f"/7/{name}".encode(), f"{name} of {owner}: {access}",
        access=access, type="file", process=owner,
    )  # fmt: skip


def looked(owner: str, via: str, mode: str = "read") -> Sample:
    """Returns a look into a process."""
    return sample(K.PROCESS_LOOK, f"{mode} of {owner} via {via}", mode=mode, target=owner, via=via)


def signalled(number: str | int, owner: str) -> Sample:
    """Returns a signal to a process."""
    return sample(K.SYS_SIGNAL, f"{number} to {owner}", signal=number, target=owner)


APISERVER = "/usr/local/bin/kube-apiserver"


def set_to(name: str) -> Sample:
    """Returns a write to a sysctl."""
    return sample(K.SYSCTL_ACCESS, f"{name} is set", access="write", text=name.encode())


#: rule -> events that it must match, events that it must not match
REACH: dict[str, tuple[list[Sample], list[Sample]]] = {
    # The parts of procfs that runtimes mount read-only or mask.
    "kernel-filesystem-write": (
        [
            written("proc", path)
            for path in (
                "/bus/pci/00/00.0",
                "/irq/default_smp_affinity",
                "/mtrr",
                "/scsi/scsi",
                "/acpi/wakeup",
                "/dynamic_debug/control",
            )
        ]
        + [
            written("aafs", "/.remove"),
            written("selinuxfs", "/enforce"),
            written("selinuxfs", "/booleans/deny_ptrace"),
            written("smackfs", "/load2"),
            written("resctrl", "/schemata"),
        ],
        [
            written("selinuxfs", "/access"),
            read("proc", "/irq/default_smp_affinity"),
            written("proc", "/self/oom_score_adj"),
            written("proc", "/7/uid_map"),
        ],
    ),
    # Files of the host are objects: a path means nothing, whatever the filesystem.
    "host-file-write": (
        [
            of_host("disk", "/etc/group"),
            of_host("tmpfs", "/systemd/system/x.service"),
            of_host("disk", "/opt/cni/bin/calico"),
            of_host("overlay", "/usr/bin/ls"),
            of_host("disk", "/etc/cron.d", type="directory"),
            of_host("disk", "/etc/rc.local", type="symlink"),
            of_host("tmpfs", "/initctl", type="fifo"),
            # a new name, owner or mode of a device
            of_host("disk", "/srv/sda", type="block-device"),
            of_host("tmpfs", "/null", type="character-device"),
        ],
        [
            written("disk", "/etc/group"),
            written("overlay", "/usr/bin/ls"),
            read("disk", "/usr/bin/ls"),
            # an open of a device writes to no tree (tests/kernel/test_trees.py)
            written("tmpfs", "/null", type="character-device"),
        ],
    ),
    "sysfs-control-write": (
        [
            written("sysfs", path)
            for path in (
                "/devices/pci0000:00/0000:00:01.0/config",
                "/devices/pci0000:00/0000:00:01.0/resource0",
                "/module/kernel/parameters/panic",
                "/bus/pci/drivers/e1000/bind",
                "/power/state",
                "/devices/system/cpu/cpu1/online",
                "/devices/pci0000:00/0000:00:01.0/uevent",
                "/devices/pci0000:00/0000:00:01.0/d3cold_allowed",
                "/fs/ext4/sda1/trigger_fs_error",
                "/devices/platform/30be0000.ethernet/driver_override",
                "/devices/platform/30be0000.ethernet/net/eth0/device/reset",
                "/devices/platform/30be0000.ethernet/net/eth0/uevent",
                "/devices/platform/soc/1c19000.usb/remove",
                "/devices/platform/regulatory.0/firmware/regulatory.db/loading",
                "/devices/platform/soc/any/attribute_of_a_driver",
                "/devices/pci0000:00/0000:00:01.0/net/eth0/device/rescan",
            )
        ],
        [
            *(
                written("sysfs", f"/devices/platform/30be0000.ethernet/net/eth0/{name}")
                for name in (
                    "queues/rx-0/rps_cpus",
                    "queues/rx-0/rps_flow_cnt",
                    "queues/tx-0/xps_cpus",
                    "queues/tx-0/xps_rxqs",
                    "queues/tx-0/tx_maxrate",
                    "queues/tx-0/byte_queue_limits/limit_max",
                    "gro_flush_timeout",
                    "threaded",
                    "mtu",
                )
            ),
            written("sysfs", "/devices/virtual/net/lo/mtu"),
            written("sysfs", "/devices/pci0000:00/0000:00:01.0/host0/scsi_host/host0/scan"),
            read("sysfs", "/devices/pci0000:00/0000:00:01.0/config"),
        ],
    ),
    "sysctl-hardening": (
        [
            set_to(name)
            for name in (
                "dev/tty/legacy_tiocsti",
                "dev/tty/ldisc_autoload",
                "kernel/seccomp/actions_logged",
                "kernel/oops_limit",
                "kernel/warn_limit",
                "kernel/io_uring_group",
                "kernel/kexec_load_limit_reboot",
                "user/max_user_namespaces",
            )
        ],
        [set_to("net/ipv4/ip_forward"), set_to("kernel/hostname")],
    ),
    "sysctl-node": (
        [
            set_to(name)
            for name in (
                "kernel/hung_task_panic",
                "kernel/softlockup_panic",
                "kernel/hardlockup_panic",
                "kernel/unknown_nmi_panic",
                "kernel/max_rcu_stall_to_panic",
                "kernel/watchdog",
                "kernel/nmi_watchdog",
                "kernel/soft_watchdog",
                "kernel/printk",
            )
        ],
        [set_to("vm/max_map_count"), set_to("kernel/shmmax"), set_to("kernel/msgmax")],
    ),
    # include/linux/miscdevice.h
    "raw-device": (
        [device_sample("an HBA's control", 10, minor, "write") for minor in (220, 221, 222)],
        [device_sample("/dev/fuse", 10, 229, "write"), device_sample("/dev/net/tun", 10, 200, "write")],
    ),
    "control-device": (
        [
            device_sample("what resumes the kernel from a file", 10, 231, "write"),
            device_sample("processors' microcode", 10, 184, "write"),
            device_sample("devices made up in user space", 10, 203, "write"),
        ],
        [device_sample("/dev/fuse", 10, 229, "write"), device_sample("/dev/kvm", 10, 232, "write")],
    ),
    "cloud-metadata": (
        [
            connected("169.254.42.42", 80),  # Scaleway
            connected("fd00:42::42", 80),
            connected("169.254.0.23", 80),  # Tencent
            connected("fe80::a9fe:a9fe", 80),  # OpenStack
            connected("fd00:c1::a9fe:a9fe", 80),  # Oracle
            sent("169.254.169.254", 80),
        ],
        [connected("169.254.42.42", 53), connected("169.254.20.10", 80), sent("169.254.169.254", 53)],
    ),
    # kubeadm, RKE2 and others run the control plane as static pods on the node's network.
    "kubelet-api": (
        [connected("10.0.0.2", 10250), by("/usr/bin/curl", connected("10.0.0.2", 10250), "host-network")]
        + [by(APISERVER, connected("10.0.0.2", 10250))],
        [by(APISERVER, connected("10.0.0.2", 10250), "host-network"), connected("10.0.0.2", 10256)],
    ),
    "etcd-api": (
        [connected("10.0.0.2", 2379), by(APISERVER, connected("10.0.0.2", 2379))],
        [
            by(APISERVER, connected("127.0.0.1", 2379), "host-network"),
            by("/usr/local/bin/etcd", connected("10.0.0.3", 2380), "host-network"),
        ],
    ),
    # The default sockets of runtimes, by distribution.
    "runtime-socket": (
        [
            reached(name)
            for name in (
                "/run/k3s/containerd/containerd.sock",
                "/var/run/k3s/containerd/containerd.sock",
                "/run/k0s/containerd.sock",
                "/run/docker/containerd/containerd.sock",
                "/run/user/1000/docker.sock",
                "/run/user/1000/podman/podman.sock",
                "/var/snap/microk8s/common/run/containerd.sock",
                "/var/snap/lxd/common/lxd/unix.socket",
                "/var/lib/incus/unix.socket",
            )
        ],
        [
            reached("/run/user/1000/bus"),
            reached("/run/dbus/system_bus_socket"),
            reached("/csi/csi.sock"),
            reached("/var/run/postgresql/.s.PGSQL.5432"),
        ],
    ),
    # Relations of processes: own ones may be read, and names of others.
    "process-file-foreign": (
        [of_process(name, owner) for name in ("mem", "environ", "maps") for owner in ("host", "other")],
        [
            *(of_process("environ", owner) for owner in ("self", "container", "unknown")),
            *(of_process(name, "host") for name in ("stat", "status", "cmdline", "comm", "io")),
        ],
    ),
    "process-file-write": (
        [of_process("oom_score_adj", "host", "write"), of_process("comm", "other", "write")],
        [of_process("oom_score_adj", "container", "write"), of_process("oom_score_adj", "host")],
    ),
    "process-look": (
        [looked("host", "open"), looked("other", "call")],
        [looked("host", "lookup"), looked("self", "open"), looked("container", "call")],
    ),
    "host-file-attribute": (
        [sample(K.SYS_SETXATTR, "an attribute of a host's file", tree="host", text=b"user.x")],
        [sample(K.SYS_SETXATTR, "an attribute of its own file", text=b"user.x")],
    ),
    "process-control": (
        [looked("host", "lookup", "attach")],
        [looked("host", "lookup", "read"), looked("container", "lookup", "attach")],
    ),
    "signal-foreign": (
        [signalled("SIGKILL", "host"), signalled(40, "other")],
        [signalled("none", "host"), signalled("SIGKILL", "container"), signalled("SIGKILL", "unknown")],
    ),
}


def _samples() -> Iterator[object]:
    for rule, (matched, unmatched) in REACH.items():
        for one in matched:
            yield pytest.param(RULES[rule], one, True, id=f"{rule}: {one.what}")
        for one in unmatched:
            yield pytest.param(RULES[rule], one, False, id=f"not {rule}: {one.what}")


@pytest.mark.parametrize(("rule", "one", "expected"), list(_samples()))
def test_a_rule_does_what_its_title_says(rule: Rule, one: Sample, expected: bool) -> None:
    """And no more than that."""
    assert rule_matches(rule, one) == expected
