# SPDX-License-Identifier: Apache-2.0
"""`features`: what engines are told that this runtime can do (features.md, features-linux.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ringfence_linux import syscalls
from tests.runtime.conftest import Box, Runtime

pytestmark = pytest.mark.root


@pytest.fixture
def told(runtime: Runtime) -> dict[str, Any]:
    """The document."""
    got = runtime("features")
    assert got.returncode == 0, got.stderr
    return dict(json.loads(got.stdout))


def version(text: str) -> tuple[int, ...]:
    """SemVer without a suffix, to be compared."""
    return tuple(int(word) for word in text.partition("-")[0].split("."))


def test_it_has_the_members_that_the_specification_requires(told: dict[str, Any]) -> None:
    """Versions from 1.0.0 on, the six hooks, the mount options."""
    assert version(told["ociVersionMin"]) == (1, 0, 0)
    assert version(told["ociVersionMax"]) >= (1, 2, 0)
    kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert told["hooks"] == kinds
    assert {"bind", "rbind", "ro", "rro", "idmap", "ridmap", "rprivate", "tmpcopyup"} <= set(
        told["mountOptions"]
    )
    namespaces = {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert set(told["linux"]["namespaces"]) == namespaces
    assert "CAP_SYS_ADMIN" in told["linux"]["capabilities"]
    for name in ("cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "mountExtensions", "netDevices"):
        assert name in told["linux"], name
    assert told["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert told["linux"]["intelRdt"]["enabled"] is False


def test_what_it_claims_for_mounts_it_takes(told: dict[str, Any], box: Box) -> None:
    """Each option on a mount that it is for; none is an unknown word to the filesystem."""
    needs = {"idmap", "ridmap", "copy-symlink", "src-nofollow", "dest-nofollow", "bind", "rbind", "remount"}
    apart = {
        "mand",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
    }  # kernel, propagation
    plain = [option for option in told["mountOptions"] if option not in needs | apart]
    box.config["mounts"] += [
        {"destination": f"/o/{option}", "type": "tmpfs", "source": "tmpfs", "options": [option]}
        for option in plain
    ]
    assert len(plain) > 40
    assert box.args("/bin/true").run().returncode == 0


def test_seccomp_flags_are_those_of_this_kernel(told: dict[str, Any]) -> None:
    """Asked one by one, not copied from what is known."""
    seccomp = told["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    # WAIT_KILLABLE_RECV came with Linux 5.19, TSYNC, LOG and SPEC_ALLOW are older than what we run on.
    assert ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in seccomp["supportedFlags"]) == syscalls.seccomp_knows(
        32 | 8
    )
    assert {f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")} <= set(
        seccomp["supportedFlags"]
    )


def test_every_architecture_of_the_specification_is_known(told: dict[str, Any]) -> None:
    """config-linux.md#seccomp lists them."""
    names = (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 "
        "S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    )
    assert set(told["linux"]["seccomp"]["archs"]) == {f"SCMP_ARCH_{name}" for name in names.split()}


def test_annotations_that_change_what_is_done_are_told(told: dict[str, Any]) -> None:
    """An engine that lets users set annotations must know these."""
    assert told["potentiallyUnsafeConfigAnnotations"] == [
        "org.ringfence.landlock",
        "ringfence.io/policy",
        "ringfence.io/require-agent",
        "ringfence.io/userns",
    ]
