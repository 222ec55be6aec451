# SPDX-License-Identifier: Apache-2.0
"""Recognises containers by cgroup names, and reads facts about them from cgroup paths.

The kernel enrols by the same patterns at cgroup_mkdir (container.bpf.c); `matches` must agree with it. Only
what runtimes and the kubelet put into a path is used: nothing is looked up, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ringfence.abi import PATTERNS
from ringfence.config.values import Pattern
from ringfence.errors import ConfigError

__all__ = ["DEFAULT_PATTERNS", "Identity", "identify", "matches", "patterns_for"]

_HEX64 = re.compile(r"[0-9a-f]{64}")
_BASE36 = re.compile(r"[0-9a-z]{25}")
_SCOPE = ".scope"

DEFAULT_PATTERNS = tuple(
    Pattern(prefix, hex64=True) for prefix in ("", "docker-", "cri-containerd-", "crio-", "libpod-")
) + tuple(
    # The steps of a build: /buildkit/ID or /PARENT/buildkit/ID, and docker-ID.scope with the systemd driver
    # (executor/oci/spec.go, identity/randomid.go).
    Pattern(prefix, hex64=False, build=True)
    for prefix in ("", "docker-")
)
_RUNTIMES = {"docker-": "docker", "cri-containerd-": "containerd", "crio-": "cri-o", "libpod-": "podman"}
# Parents that only one runtime creates; below kubepods with the cgroupfs driver any runtime is possible.
_BUILDKIT = "buildkit"
_PARENTS = {"docker": "docker", "libpod_parent": "podman", "machine.slice": "podman", _BUILDKIT: _BUILDKIT}

# kubelet, pkg/kubelet/cm: /kubepods/burstable/pod<uid>/... (cgroupfs) and
# /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, - as _>.slice/... (systemd). A pod of
# class Guaranteed is directly below kubepods; a static pod's uid is a hash of 32 digits.
_UID = r"(?P<uid>[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_POD_CGROUPFS = re.compile(rf"(?:^|/)kubepods(?:/(?P<qos>besteffort|burstable))?/pod{_UID}(?:/|$)")
_POD_SYSTEMD = re.compile(rf"(?:^|[/-])kubepods(?:-(?P<qos>besteffort|burstable))?-pod{_UID}\.slice(?:/|$)")


class Identity(NamedTuple):
    """The facts in a cgroup path. Empty: not in the path."""

    id: str  # 64 hex digits, or the cgroup's own name
    runtime: str
    pod_uid: str
    qos: str  # guaranteed, burstable, besteffort
    driver: str  # cgroupfs, systemd: how the kubelet created the pod's cgroup


def patterns_for(configured: Iterable[Pattern] = (), *, known: bool = True) -> tuple[Pattern, ...]:
    """Returns the default patterns (if `known`) and the configured ones.

    Raises ConfigError if they exceed the capacity of the kernel's list.
    """
    merged = tuple(dict.fromkeys((*(DEFAULT_PATTERNS if known else ()), *configured)))
    if len(merged) > PATTERNS:
        raise ConfigError(
            f"containers.patterns: {len(merged)} patterns, but the kernel's list holds at most {PATTERNS}"
        )
    return merged


def matches(path: str, patterns: Iterable[Pattern]) -> Pattern | None:
    """Returns the first pattern that the last component of a cgroup's path matches, or None."""
    parents, _, name = path.rpartition("/")
    for pattern in patterns:
        if not name.startswith(pattern.prefix):
            continue
        rest = name[len(pattern.prefix) :].removesuffix(_SCOPE)
        if pattern.build:
            below = bool(pattern.prefix) or parents.rpartition("/")[2] == _BUILDKIT
            if below and _BASE36.fullmatch(rest):
                return pattern
        elif not pattern.hex64 or _HEX64.fullmatch(rest):
            return pattern
    return None


def identify(path: str) -> Identity:
    """Reads a cgroup path: id and runtime from its last component, pod and QoS class from its parents."""
    parents, _, name = path.rpartition("/")
    bare = name.removesuffix(_SCOPE)
    prefix, hexadecimal = bare[:-64], bare[-64:]
    if _HEX64.fullmatch(hexadecimal) and (not prefix or prefix in _RUNTIMES):
        identifier = hexadecimal
        runtime = _RUNTIMES.get(prefix) or _PARENTS.get(parents.rpartition("/")[2], "")
    elif found := _BASE36.fullmatch(bare.removeprefix("docker-")):
        in_build = parents.rpartition("/")[2] == _BUILDKIT or bare.startswith("docker-")
        identifier, runtime = (found[0], _BUILDKIT) if in_build else (name, "")
    else:
        identifier, runtime = name, ""
    for driver, expression in (("cgroupfs", _POD_CGROUPFS), ("systemd", _POD_SYSTEMD)):
        if found := expression.search(parents):
            uid = found["uid"].replace("_", "-")
            return Identity(identifier, runtime, uid, found["qos"] or "guaranteed", driver)
    return Identity(identifier, runtime, "", "", "")
