# SPDX-License-Identifier: Apache-2.0
"""Known container escapes by version of the kernel and of container runtimes.

Versions are upstream's. Distributions backport fixes into older versions: a finding about a version
that upstream did not build says so, and has a lower score. The absence of findings proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["KERNEL", "RUNTIMES", "KernelCve", "RuntimeCve", "kernel_version", "runtime_cves", "unfixed"]

Version = tuple[int, ...]


class KernelCve(NamedTuple):
    """`since`, `mainline`: releases that introduced and fixed it; `stable`: branch -> fixed patch level."""

    id: str
    what: str
    since: Version
    mainline: Version
    stable: Mapping[Version, int]


# From the change logs of the stable trees, as referenced by the CVE records.
KERNEL = (
    KernelCve("CVE-2021-22555", "netfilter compat: a write behind a heap buffer", (2, 6), (5, 12),
              {(5, 11): 15, (5, 10): 31, (5, 4): 113, (4, 19): 188, (4, 14): 231}),
    KernelCve("CVE-2021-33909", "seq_file: a path longer than 1 GB", (3, 16), (5, 14),
              {(5, 13): 4, (5, 12): 19, (5, 10): 52, (5, 4): 134, (4, 19): 198, (4, 14): 240}),
    KernelCve("CVE-2022-0185", "fsconfig: a heap overflow, from a user namespace", (5, 1), (5, 17),
              {(5, 16): 2, (5, 15): 16, (5, 10): 93, (5, 4): 173}),
    KernelCve("CVE-2022-0492", "release_agent of cgroup version 1 without CAP_SYS_ADMIN", (2, 6), (5, 17),
              {(5, 16): 6, (5, 15): 20, (5, 10): 97, (5, 4): 177, (4, 19): 229, (4, 14): 266}),
    KernelCve("CVE-2022-0847", "Dirty Pipe: writes to files that are only readable", (5, 8), (5, 17),
              {(5, 16): 11, (5, 15): 25, (5, 10): 102}),
    KernelCve("CVE-2022-2588", "cls_route: a use after free, from a user namespace", (2, 6), (6, 0),
              {(5, 19): 2, (5, 18): 18, (5, 15): 61, (5, 10): 137, (5, 4): 211, (4, 19): 256}),
    KernelCve("CVE-2023-0386", "overlayfs: set-user-ID files out of a user namespace", (5, 11), (6, 2),
              {(6, 1): 9, (5, 15): 91}),
    KernelCve("CVE-2023-32233", "nf_tables: a use after free of anonymous sets", (3, 13), (6, 4),
              {(6, 3): 2, (6, 2): 15, (6, 1): 28, (5, 15): 111, (5, 10): 180, (5, 4): 243, (4, 19): 283}),
    KernelCve("CVE-2024-1086", "nf_tables: a double free in verdicts", (3, 15), (6, 8),
              {(6, 7): 3, (6, 6): 15, (6, 1): 76, (5, 15): 149, (5, 10): 210, (5, 4): 269, (4, 19): 307}),
)  # fmt: skip


class RuntimeCve(NamedTuple):
    """`fixed`: the newest applies to all later branches; `since`: the branch that introduced it."""

    id: str
    what: str
    fixed: tuple[Version, ...]  # first fixed version of each branch with the fix, oldest first
    since: Version = (0, 0)


RUNTIMES: Mapping[str, tuple[RuntimeCve, ...]] = {
    "runc": (
        RuntimeCve("CVE-2019-5736", "a container overwrites the runtime's binary", ((1, 0, 0),)),
        RuntimeCve("CVE-2021-30465", "links changed while mounts are made", ((1, 0, 0),)),
        RuntimeCve("CVE-2024-21626", "a leaked directory descriptor leads to the host", ((1, 1, 12),)),
        RuntimeCve("CVE-2025-31133", "masked paths bound over a replaced /dev/null", ((1, 2, 8), (1, 3, 3))),
        RuntimeCve("CVE-2025-52565", "/dev/console bound before paths are masked", ((1, 2, 8), (1, 3, 3))),
        RuntimeCve("CVE-2025-52881", "its own writes to /proc led elsewhere", ((1, 2, 8), (1, 3, 3))),
    ),
    "cri-o": (
        RuntimeCve("CVE-2022-0811", "sysctls that are smuggled past its check, core_pattern among them",
                   ((1, 19, 6), (1, 20, 7), (1, 21, 6), (1, 22, 3), (1, 23, 2)), (1, 19)),
    ),
    "crun": (RuntimeCve("CVE-2022-27650", "inheritable capabilities that should not be", ((1, 4, 4),)),),
    "containerd": (
        RuntimeCve("CVE-2020-15257", "the shim's socket in the host's network", ((1, 3, 9), (1, 4, 3))),
        RuntimeCve("CVE-2022-23648", "image volumes that copy files of the host",
                   ((1, 4, 13), (1, 5, 10), (1, 6, 1))),
    ),
}  # fmt: skip


def kernel_version(release: str, build: str = "", signature: str = "") -> tuple[Version | None, bool]:
    """Returns (upstream version, True if upstream built it), as far as known.

    `release` and `build` are uname's; `signature` is Ubuntu's /proc/version_signature. Debian and Ubuntu
    state the upstream version of their kernels; Red Hat, SUSE and similar do not, and backport fixes of
    any age.
    """
    if found := re.fullmatch(r"Ubuntu \S+ (\d+)\.(\d+)\.(\d+)", signature.strip()):
        return (int(found[1]), int(found[2]), int(found[3])), False
    if found := re.search(r"Debian (\d+)\.(\d+)\.(\d+)", build):
        return (int(found[1]), int(found[2]), int(found[3])), False
    if re.search(r"\.(el|amzn|fc|uek|azl|cm)\d|-\d{6}\.\d.*-\w+$", release):  # the last form is SUSE's
        return None, False
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)", release)
    if not found:
        return None, False
    version = int(found[1]), int(found[2]), int(found[3] or 0)
    own = found[4] == "" or bool(re.fullmatch(r"-rc\d+\+?|\+", found[4]))
    if not own and version[2] == 0 and re.match(r"-\d", found[4]):
        return None, False  # 6.1.0-18-amd64: the patch level is elsewhere
    return version, own


def unfixed(version: Version) -> Iterator[KernelCve]:
    """Yields the vulnerabilities of upstream's kernel of this version."""
    branch, patch = version[:2], version[2]
    for cve in KERNEL:
        if branch < cve.since or branch >= cve.mainline:
            continue
        if branch not in cve.stable or patch < cve.stable[branch]:
            yield cve


def runtime_cves(name: str, text: str) -> Iterator[tuple[RuntimeCve, str, bool]]:
    """Yields (vulnerability, version, True if upstream built it) for the output of `NAME --version`."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)([^\s,]*)", text)
    if not found:
        return
    version = int(found[1]), int(found[2]), int(found[3])
    before_release = bool(re.match(r"-(rc|alpha|beta)", found[4]))
    for cve in RUNTIMES.get(name, ()):
        if version[:2] >= cve.since and not _is_fixed(version, cve.fixed, before_release=before_release):
            yield cve, found[0].lstrip("v"), found[4] == "" or before_release


def _is_fixed(version: Version, fixed: tuple[Version, ...], *, before_release: bool) -> bool:
    for good in fixed:
        if version[:2] == good[:2]:
            return version > good or (version == good and not before_release)
    return version > fixed[-1]
