# SPDX-License-Identifier: Apache-2.0
"""`features`: the runtime's capabilities as reported to engines (features.md, features-linux.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ringfence_linux import syscalls
from tests.runtime.conftest import Box, Runtime

pytestmark = pytest.mark.root


@pytest.fixture
def features(runtime: Runtime) -> dict[str, Any]:
    """The document."""
    got = runtime("features")
    assert got.returncode == 0, got.stderr
    return dict(json.loads(got.stdout))


def version(text: str) -> tuple[int, ...]:
    """Returns SemVer without a suffix, for comparison."""
    return tuple(int(word) for word in text.partition("-")[0].split("."))


def test_it_has_the_members_that_the_specification_requires(features: dict[str, Any]) -> None:
    """Versions from 1.0.0 on, the six hooks, the mount options."""
    assert version(features["ociVersionMin"]) == (1, 0, 0)
    assert version(features["ociVersionMax"]) >= (1, 2, 0)
    kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert features["hooks"] == kinds
    assert {"bind", "rbind", "ro", "rro", "idmap", "ridmap", "rprivate", "tmpcopyup"} <= set(
        features["mountOptions"]
    )
    namespaces = {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert set(features["linux"]["namespaces"]) == namespaces
    assert "CAP_SYS_ADMIN" in features["linux"]["capabilities"]
    for name in ("cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "mountExtensions", "netDevices"):
        assert name in features["linux"], name
    assert features["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert features["linux"]["intelRdt"]["enabled"] is False


def test_every_reported_mount_option_is_accepted(features: dict[str, Any], box: Box) -> None:
    """Each option on a suitable mount; none is passed to the filesystem as an unknown option."""
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
    plain = [option for option in features["mountOptions"] if option not in needs | apart]
    box.config["mounts"] += [
        {"destination": f"/o/{option}", "type": "tmpfs", "source": "tmpfs", "options": [option]}
        for option in plain
    ]
    assert len(plain) > 40
    assert box.args("/bin/true").run().returncode == 0


def test_seccomp_flags_are_those_of_this_kernel(features: dict[str, Any]) -> None:
    """Queried one by one, not copied from a list."""
    seccomp = features["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    # WAIT_KILLABLE_RECV is of Linux 5.19; TSYNC, LOG and SPEC_ALLOW are older than every supported
    # kernel.
    assert ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in seccomp["supportedFlags"]) == syscalls.seccomp_knows(
        32 | 8
    )
    assert {f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")} <= set(
        seccomp["supportedFlags"]
    )


def test_every_architecture_of_the_specification_is_known(features: dict[str, Any]) -> None:
    """config-linux.md#seccomp lists them."""
    names = (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 "
        "S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    )
    assert set(features["linux"]["seccomp"]["archs"]) == {f"SCMP_ARCH_{name}" for name in names.split()}


def test_annotations_with_an_effect_are_reported(features: dict[str, Any]) -> None:
    """An engine that lets users set annotations must know these."""
    assert features["potentiallyUnsafeConfigAnnotations"] == [
        "org.ringfence.landlock",
        "ringfence.io/policy",
        "ringfence.io/require-agent",
        "ringfence.io/userns",
    ]
