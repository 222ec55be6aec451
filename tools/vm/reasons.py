# SPDX-License-Identifier: Apache-2.0
"""Why an attack is only reported: for every rule that does not stop its attack on some kernel."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ABSENT", "EVERYWHERE", "UNSEEN", "WITHOUT_LSM"]

#: rules and detectors that only alert on every kernel
EVERYWHERE: Mapping[str, str] = {
    "setuid-file": "package managers do it",
    "capability-file": "package managers do it; `capability-on-disk` denies it where it matters",
    "filesystem-trim": "it changes no data, and maintenance jobs do it",
    "video-device": "containers that record video do it",
    "sysfs-write": "mostly harmless device settings; those that allow an escape have their own rules",
    "token-by-tool": "a workload can legitimately read its own token with a tool",
    "keyring-use": "login programs and Kerberos do it",
    "keyring-add": "login programs and Kerberos do it",
    "rename-exchange": "deployments exchange directories so; the fault is in a runtime that follows links",
    "cloud-own-identity": "workloads request their own credentials there",
    "new-program": "package managers and build steps install programs",
    "helper-changed": "it is reported after the change; `sysctl-helper` covers a write from inside",
    "host-loads-container-code": "the actor is a program of the host; an operator can set the rule to deny",
    "etcd-api": "some workloads run their own etcd",
    "raw-ip-socket": "routing daemons and scanners use them; `cloud-metadata` and its like hold for packets",
    "netfilter-socket": "side-cars set up redirection in their own network namespace",
    "token-read": "every workload that uses the API does it",
    "host-symlink": "images contain such links; the fault is in the program that follows them",
    "image-link": "it happens before the container runs: a runtime must refuse it, and Ringfence's does",
    "spec-sysctl": "the runtime writes it before the container runs; `sysctl-helper` covers it from inside",
    "spec-loader": "the runtime's hooks run before the container does",
    "spec-text": "a program of the host reads the text",
    "host-root": "it was mounted on purpose; `host-file-write` covers writes to it",
    "limit-hit": "the cgroup's limit has already stopped it",
    "task-burst": "the cgroup's limits must stop it",
    "sweep": "each call is legitimate, or has its own rule",
}
#: rules that deny with BPF-LSM, and only alert if the alternative would be a kill
WITHOUT_LSM: Mapping[str, str] = {
    "kernel-symbols": "profilers read it, and most processes see zeroes; the alternative is a kill",
    "kernel-log-file": "log collectors try it; the alternative is a kill",
    "memory-file": "debuggers do it, and continue if denied; the alternative is a kill",
    "token-by-dropped-program": "installers with their own client do it; the alternative is a kill",
    "kernel-log": "administrators run dmesg; the alternative is a kill",
    "io-uring": "libuv, MariaDB and others try it, and work without it if denied, but not if killed",
    "tree-search": "systemd and docker do it on Btrfs, and work without it if denied, but not if killed",
    "old-socket-family": "old network tools probe for these; the alternative is a kill",
}
#: rules with an attack that is not seen without BPF-LSM, and what else of the row is seen there
UNSEEN: Mapping[str, str] = {
    "setuid-on-disk": "only the hook knows the filesystem; `setuid-file` reports the call",
    "log-symlink": "only the hook knows the link's directory; `host-symlink` reports its target",
    "rename-exchange-link": "only the hook knows the files' types; `rename-exchange` reports the call",
    "capability-on-disk": "only the hook knows the filesystem; `capability-file` reports the call",
    "host-file-attribute": "only the hook knows the file; a call on a name opens nothing",
    "process-control": "the check is made at a read: no hook, no sign of it",
    "forged-uevent": "only the hook sees what is sent on a netlink socket",
    "host-loads-container-code": "a program of the host maps the file: there is no call of a container",
}
#: requirements of an attack that some kernels lack
ABSENT: Mapping[str, str] = {
    "{release}": "cgroup v2 has no release_agent",
    "/run/cgroup-beside/devices.allow": "cgroup v2 has no devices.allow",
    "/sys/kernel/uevent_helper": "the kernel is built without a uevent helper",
    "/run/binfmt_misc/register": "binfmt_misc is a module that is not loaded",
    "/proc/sysrq-trigger": "the kernel is built without sysrq",
    "/run/console": "the kernel is built without sysrq, the target of the test's console",
    "/proc/sys/kernel/modprobe": "the kernel is built without modules",
    "finit_module": "the kernel is built without modules",
    "init_module": "the kernel is built without modules",
    "delete_module": "the kernel is built without modules",
    "/run/exploit": "this kernel's headers, needed to build the simulated exploit, are not available",
    "open_tree": "OPEN_TREE_NAMESPACE came after this kernel",
    "kexec": "the kernel is built without kexec",
    "kexec_file": "the kernel is built without kexec",
}
