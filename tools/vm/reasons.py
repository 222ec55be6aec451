# SPDX-License-Identifier: Apache-2.0
"""Why an attack is only told of: for every rule that lets its attack through on some kernel."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ABSENT", "EVERYWHERE", "UNSEEN", "WITHOUT_LSM"]

#: rules and detectors that only tell, whatever the kernel offers
EVERYWHERE: Mapping[str, str] = {
    "setuid-file": "package managers do it",
    "video-device": "containers that record video do it",
    "sysfs-write": "mostly harmless switches of devices; those that lead out have rules of their own",
    "token-by-tool": "a workload may read its own token by a tool, too",
    "keyring-use": "programs that log in and Kerberos do it",
    "keyring-add": "programs that log in and Kerberos do it",
    "rename-exchange": "deployments swap directories so; the fault is the runtime's that follows",
    "cloud-own-identity": "it is where a workload asks for what is its own",
    "new-program": "package managers and build steps bring programs",
    "helper-changed": "it is told of when it has happened; the write from inside is `sysctl-helper`",
    "host-loads-container-code": "it is a program of the host; whoever owns the node may let the rule deny",
    "setns-other": "node agents with hostPID do it for a living",
    "etcd-api": "some workloads bring an etcd of their own",
    "netfilter-socket": "side-cars set up redirection in their own network namespace",
    "token-read": "every workload that speaks to the API does it",
    "host-symlink": "images hold such links; the fault is whose who follows",
    "image-link": "it happens before the container runs: a runtime has to refuse it, as ours does",
    "spec-sysctl": "the runtime writes it before the container runs; from inside it is `sysctl-helper`",
    "spec-loader": "the runtime's hooks run before the container does",
    "spec-text": "who reads the text is a program of the host's",
    "host-root": "somebody has mounted it on purpose; what is written there meets `host-file-write`",
    "limit-hit": "the cgroup's limit has stopped it already",
    "task-burst": "the cgroup's limits have to stop it",
    "sweep": "each call alone is lawful, or meets its own rule",
}
#: rules that deny where BPF-LSM decides, and only tell where the one other way would be to kill
WITHOUT_LSM: Mapping[str, str] = {
    "kernel-symbols": "profilers read it, and to most it shows zeroes; the one other way is to kill",
    "kernel-log-file": "log collectors try it; the one other way is to kill",
    "memory-file": "debuggers of own processes do it, and go on when refused; the one other way is to kill",
    "token-by-dropped-program": "installers that bring their own client do it; the one other way is to kill",
    "kernel-log": "people type dmesg; the one other way is to kill",
    "io-uring": "libuv, MariaDB and others try it and do without when it is refused, but not when killed",
    "old-socket-family": "old network tools try these to see what there is; the one other way is to kill",
}
#: rules whose attack nobody sees without BPF-LSM, and what else of the row is seen there
UNSEEN: Mapping[str, str] = {
    "setuid-on-disk": "which filesystem it is on is known at the hook; `setuid-file` tells of the call",
    "log-symlink": "where the link is made is known at the hook; `host-symlink` tells of its text",
    "rename-exchange-link": "what names lead to is known at the hook; `rename-exchange` tells of the call",
    "terminal-injection": "every ioctl of the node would pay: `terminal-injection-anywhere` is optional",
    "host-loads-container-code": "a program of the host maps it: no call of a container is there to look at",
}
#: what an attack needs that not every kernel has
ABSENT: Mapping[str, str] = {
    "{release}": "version 2 of cgroups has no release_agent",
    "/run/cgroup-beside/devices.allow": "version 2 of cgroups has no devices.allow",
    "/sys/kernel/uevent_helper": "the kernel is built without a uevent helper",
    "/run/binfmt_misc/register": "binfmt_misc is a module that is not loaded",
    "/proc/sysrq-trigger": "the kernel is built without sysrq",
    "/run/console": "the kernel is built without sysrq, which the test's console leads to",
    "/proc/sys/kernel/modprobe": "the kernel is built without modules",
    "finit_module": "the kernel is built without modules",
    "init_module": "the kernel is built without modules",
    "delete_module": "the kernel is built without modules",
    "/run/exploit": "no headers of this kernel are to be had, to build the exploit's stand-in",
    "open_tree": "OPEN_TREE_NAMESPACE came after this kernel",
    "kexec": "the kernel is built without kexec",
    "kexec_file": "the kernel is built without kexec",
}
