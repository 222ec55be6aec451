# SPDX-License-Identifier: Apache-2.0
"""Cgroup names of containers, and the facts in a path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.abi import PATTERNS
from ringfence.config.values import Pattern
from ringfence.containers.patterns import DEFAULT_PATTERNS, identify, matches, patterns_for
from ringfence.errors import ConfigError

HEX = "0123456789abcdef" * 4
UID = "12345678-1234-1234-1234-123456789abc"
SYSTEMD_UID = UID.replace("-", "_")
RFTEST = Pattern("rftest-", hex64=False)


@pytest.mark.parametrize("prefix", ["", "docker-", "cri-containerd-", "crio-", "libpod-"])
@pytest.mark.parametrize("suffix", ["", ".scope"])
def test_names_of_the_known_runtimes_are_containers(prefix: str, suffix: str) -> None:
    """With both cgroup drivers."""
    assert matches(prefix + HEX + suffix, DEFAULT_PATTERNS)


@pytest.mark.parametrize(
    "name",
    [
        HEX[:-1],
        HEX + "0",
        HEX.replace("a", "g"),
        HEX.upper(),
        "libpod-conmon-" + HEX,
        "crio-conmon-" + HEX + ".scope",
        "docker-" + HEX + ".service",
        HEX + "\n",
        HEX + ".scope.scope",
        "rftest-x",
        "",
    ],
)
def test_other_names_are_no_containers(name: str) -> None:
    """Similar names do not match: a cgroup of the host must never become a container."""
    assert matches(name, DEFAULT_PATTERNS) is None


STEP = "0123456789abcdefghijklmno"
LAST = "pqrstuvwxyz01234567890123"


@pytest.mark.parametrize("step", [STEP, LAST])
@pytest.mark.parametrize(
    ("place", "fits"),
    [
        ("/buildkit/{}", True),
        ("/docker/buildkit/{}", True),
        ("/system.slice/docker-{}.scope", True),
        ("docker-{}", True),
        ("/docker/{}", False),
        ("{}", False),
        ("/buildkit/x{}", False),
        ("/buildkits/{}", False),
        ("/buildkit/below/{}", False),
        ("/system.slice/{}.scope", False),
        ("/system.slice/docker-{}x.scope", False),
    ],
)
def test_the_steps_of_a_build_are_containers(place: str, step: str, fits: bool) -> None:
    """25 digits alone are not enough: the prefix or the parent cgroup is needed, too."""
    found = matches(place.format(step), DEFAULT_PATTERNS)
    assert (found is not None and found.build) is fits
    if fits and place != "docker-{}":
        assert identify(place.format(step))[:2] == (step, "buildkit")


def test_a_configured_pattern_matches_anything_after_its_prefix() -> None:
    """`rftest-*`."""
    assert matches("rftest-a b\n", [RFTEST]) is RFTEST
    assert matches("xrftest-a", [RFTEST]) is None


def test_too_many_patterns_are_refused() -> None:
    """The kernel's list is limited, and none is dropped silently."""
    room = PATTERNS - len(DEFAULT_PATTERNS)
    assert len(patterns_for(Pattern(f"a{n}-", hex64=False) for n in range(room))) == PATTERNS
    with pytest.raises(ConfigError, match=str(PATTERNS + 1)):
        patterns_for(Pattern(f"a{n}-", hex64=False) for n in range(room + 1))


@pytest.mark.parametrize(
    ("path", "runtime", "uid", "qos", "driver"),
    [
        (f"/docker/{HEX}", "docker", "", "", ""),
        (f"/system.slice/docker-{HEX}.scope", "docker", "", "", ""),
        (f"/machine.slice/libpod-{HEX}.scope", "podman", "", "", ""),
        (f"/libpod_parent/libpod-{HEX}", "podman", "", "", ""),
        (f"/rftest-x/{HEX}", "", "", "", ""),
        (f"/kubepods/besteffort/pod{UID}/{HEX}", "", UID, "besteffort", "cgroupfs"),
        (f"/kubepods/burstable/pod{UID}/crio-{HEX}", "cri-o", UID, "burstable", "cgroupfs"),
        (f"/kubepods/pod{UID}/{HEX}", "", UID, "guaranteed", "cgroupfs"),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD_UID}.slice/cri-containerd-{HEX}.scope",
            "containerd",
            UID,
            "burstable",
            "systemd",
        ),
        (
            f"/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{HEX}.scope",
            "containerd",
            UID,
            "guaranteed",
            "systemd",
        ),
        (
            f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
            f"kubelet-kubepods-besteffort-pod{SYSTEMD_UID}.slice/crio-{HEX}.scope",
            "cri-o",
            UID,
            "besteffort",
            "systemd",
        ),
        (f"/kubepods/besteffort/pod{HEX[:32]}/{HEX}", "", HEX[:32], "besteffort", "cgroupfs"),
        (f"/kubepods/besteffort/podnot-a-uid/{HEX}", "", "", "", ""),
    ],
)
def test_a_path_contains_runtime_and_pod(path: str, runtime: str, uid: str, qos: str, driver: str) -> None:
    """For the kubelet's two drivers and the conventions of runtimes."""
    found = identify(path)
    assert found == (HEX, runtime, uid, qos, driver)


def test_a_name_that_is_no_id_is_not_cut() -> None:
    """A container of a configured pattern has its cgroup's name."""
    assert identify("/a/rftest-1.scope").id == "rftest-1.scope"


@settings(deadline=None)
@given(st.text(max_size=400))
def test_any_path_raises_nothing(path: str) -> None:
    """A container chooses the names of cgroups below its own."""
    identify(path)
    matches(path, (*DEFAULT_PATTERNS, RFTEST))
