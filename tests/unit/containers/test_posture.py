# SPDX-License-Identifier: Apache-2.0
"""The confinement of a container, in names and a score."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.containers.model import Posture, SensitiveMount
from ringfence.containers.posture import CAPABILITIES, capability_names, merge, namespace_names, scored

HEADER = Path("/usr/include/linux/capability.h")


@pytest.mark.skipif(not HEADER.exists(), reason="needs linux-libc-dev")
def test_capability_names_are_the_kernels() -> None:
    """With the same numbers."""
    found = dict(re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", HEADER.read_text(), re.MULTILINE))
    assert {name: str(number) for number, name in enumerate(CAPABILITIES)}.items() >= found.items()


def test_a_capability_without_a_name_keeps_its_number() -> None:
    """On a kernel newer than this agent."""
    assert capability_names(1 << 21 | 1 << 60) == ("CAP_SYS_ADMIN", "CAP_60")


def test_namespace_bits_have_names() -> None:
    """Such as CLONE_NEWNS and CLONE_NEWPID."""
    assert namespace_names(0x20000 | 0x20000000) == ("mnt", "pid")


ALL = capability_names((1 << 41) - 1)


def test_privileged_is_unlimited_in_the_hosts_user_namespace() -> None:
    """The first program may run as an unprivileged user: the bounding set decides."""
    held = Posture(capabilities=(), bounding=ALL, seccomp="disabled", user_namespace=False)
    assert scored(held).privileged
    assert not scored(Posture(bounding=ALL, seccomp="filter", user_namespace=False)).privileged
    assert not scored(Posture(bounding=ALL, seccomp="disabled", user_namespace=True)).privileged
    assert not scored(Posture(bounding=("CAP_CHOWN",), seccomp="disabled", user_namespace=False)).privileged


def test_the_score_rises_with_the_containers_privileges() -> None:
    """Low if confined, the maximum for `--privileged` with the host's root."""
    fenced = scored(Posture(capabilities=("CAP_CHOWN",), seccomp="filter", no_new_privs=True))
    socket = scored(Posture(sensitive_mounts=(SensitiveMount("runtime-socket", "a", "b", True),)))
    worst = scored(
        Posture(
            capabilities=ALL,
            bounding=ALL,
            seccomp="disabled",
            user_namespace=False,
            shared_namespaces=("pid", "net"),
            sensitive_mounts=(SensitiveMount("host-root", "/", "/host", True),),
        )
    )
    assert fenced.score == 0
    assert 0 < socket.score < worst.score == 100
    assert worst.reasons[0] == "host-root"


def test_capabilities_of_an_own_user_namespace_do_not_count() -> None:
    """They have no effect on the host."""
    assert scored(Posture(capabilities=ALL, user_namespace=True)).score == 0


def test_the_kernels_facts_override_those_of_files() -> None:
    """A configuration may request less than the task has."""
    kernel = Posture(capabilities=ALL, seccomp="disabled", user_namespace=False)
    file = Posture(capabilities=("CAP_CHOWN",), seccomp="filter", apparmor="docker-default", bounding=ALL)
    merged = merge(kernel, file)
    assert merged is not None
    assert (merged.capabilities, merged.seccomp, merged.apparmor) == (ALL, "disabled", "docker-default")
    assert merged.privileged
    assert merge(None, file) is file
    assert merge(kernel, None) is kernel
