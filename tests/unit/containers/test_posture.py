# SPDX-License-Identifier: Apache-2.0
"""The confinement of a container, in names and a score."""

from __future__ import annotations

from ringfence.containers.model import Posture, SensitiveMount
from ringfence.containers.posture import merge, scored
from ringfence_linux.capabilities import names

ALL = names((1 << 41) - 1)


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
