# SPDX-License-Identifier: Apache-2.0
"""All attacks of the adversary, by class."""

from __future__ import annotations

from typing import NamedTuple

from tests.adversary import table_files, table_node, table_processes
from tests.adversary.attack import Attack

__all__ = ["ATTACKS", "CLASSES", "STARTED", "Class"]

ATTACKS: tuple[Attack, ...] = (*table_files.ATTACKS, *table_processes.ATTACKS, *table_node.ATTACKS)

#: classes whose attacks begin before the agent or need an agent of their own (test_starting.py)
STARTED = {"A1", "A2", "A6"}


class Class(NamedTuple):
    """A class of attacks: what stands against it with BPF-LSM and without, and what remains."""

    title: str
    hooks: str
    calls: str
    remains: str = ""


_SAME = "the same"
CLASSES = {
    "A1": Class("containers that were there before the agent", "bound by cgroup and mounts, armed in time",
                _SAME, "seconds, for a task that has executed nothing since it entered its mounts"),
    "A2": Class("tasks that start when the agent's memory is full", "the fork fails", "the child is killed",
                "containers together can keep each other from forking"),
    "A3": Class("namespaces of host services", "a namespace that no container owns is the host's: denied",
                "killed at the call", "that one call, without BPF-LSM"),
    "A4": Class("the host's own namespaces, also by races", "judged on the namespace, not on its descriptor",
                "read from the descriptor when the call begins", "a race for the descriptor without BPF-LSM"),
    "A5": Class("the maps that hold the rules", "bpf(2) is denied; maps are frozen",
                "maps are frozen"),
    "A6": Class("deciding programs that are kept busy", "buffers belong to the task", _SAME,
                "kernels that preempt skip programs at tracepoints; what `hook` denies is killed there by a "
                "backstop"),
    "B1": Class("writing the host's files", "by device and inode, denied by default", "killed at the open",
                "calls that open nothing, and truncation, without BPF-LSM"),
    "B2": Class("sockets of the host", "by the process that serves the socket", "killed when it is connected",
                "datagrams are judged by name without BPF-LSM"),
    "B3": Class("memory of host processes", "by the process that it belongs to", "killed at the open",
                "pipes and memfds through links of /proc/PID, without BPF-LSM"),
    "B4": Class("character devices", "by number or driver, denied by default", _SAME),
    "B5": Class("calls on the whole node: swap, clock, accounting", "denied", "killed at the call",
                "that one call, without BPF-LSM"),
    "B6": Class("module parameters, PCI and power by sysfs", "denied by subtree", "killed at the open",
                "attributes of devices outside of these subtrees, and of network cards on the "
                "platform bus, only alert"),
    "B7": Class("packets to the metadata service", "cgroup-BPF judges each packet of a socket", _SAME,
                "what the kernel rewrites, forwards or encapsulates after that"),
    "B8": Class("files of the host through its processes", "by the mount that the file is reached by",
                "opens are killed", "calls that open nothing, without BPF-LSM"),
    "B9": Class("fanotify, leases", "denied", "killed at the call", "leases, without BPF-LSM"),
    "B10": Class("ioctls that act on a filesystem", "denied by number", "killed at the call",
                 "that one call, without BPF-LSM"),
    "C1": Class("forged device events", "denied", "nothing", "all of it without BPF-LSM"),
    "C2": Class("exceptions for a program", "by the path of the image's program, until somebody drives it",
                _SAME, "an image that names its program so"),
    "C3": Class("file capabilities on shared files", "denied on disks", "killed at the call",
                "that one call, without BPF-LSM"),
    "C4": Class("signals to host processes, changes of them", "denied", "killed at the call",
                "without BPF-LSM: that one call, signals by F_SETOWN"),
    "C5": Class("FIFOs of the host", "by the host's trees", "killed at the open"),
    "C6": Class("helpers that the kernel starts for keys", "only known helpers run", _SAME,
                "a known helper gets the container's words"),
    "C10": Class("namespaces of other containers", "denied, as the host's", "killed at the call",
                 "that one call, without BPF-LSM"),
    "D1": Class("cgroups of the host and of other containers", "by the container's own cgroup",
                "killed at the open", "calls that open nothing, without BPF-LSM"),
    "D2": Class("terminals of the host", "by the devpts, and the session of the terminal",
                "killed at the open"),
}  # fmt: skip
