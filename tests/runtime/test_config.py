# SPDX-License-Identifier: Apache-2.0
"""The strict parser: each error names its JSON path. No kernel is needed."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

import pytest

from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec import parse_config
from tests.runtime.conftest import CONFIG


def parse(config: dict[str, Any]) -> Any:
    """Parse this configuration."""
    return parse_config(json.dumps(config).encode())


def changed(path: str, value: Any) -> dict[str, Any]:
    """Returns CONFIG with the member at a path of keys and numbers set; `...` removes it."""
    config = copy.deepcopy(CONFIG)
    target: Any = config
    *heads, last = path.split(".")
    for head in heads:
        target = target[int(head)] if head.isdecimal() else target.setdefault(head, {})
    if value is ...:
        del target[last]
    elif last.isdecimal():
        target[int(last)] = value
    else:
        target[last] = value
    return config


BAD = [
    ("ociVersion", ..., "ociVersion"),
    ("ociVersion", "2.0.0", "ociVersion"),
    ("ociVersion", 1, "ociVersion"),
    ("root", ..., "root"),
    ("root.path", "", "root.path"),
    ("root.readonly", "yes", "root.readonly"),
    ("process.cwd", "tmp", "process.cwd"),
    ("process.cwd", ..., "process.cwd"),
    ("process.args.0", 3, "process.args[0]"),
    ("process.args.0", "a\0b", "process.args[0]"),
    ("process.env.0", "NOEQUALS", "process.env[0]"),
    ("process.env.0", "=x", "process.env[0]"),
    ("process.user.uid", -1, "process.user.uid"),
    ("process.user.uid", 1 << 32, "process.user.uid"),
    ("process.user.uid", 1.5, "process.user.uid"),
    ("process.user.umask", 0o10000, "process.user.umask"),
    ("process.rlimits", [{"type": "RLIMIT_X", "hard": 1, "soft": 1}], "process.rlimits[0].type"),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "hard": 1, "soft": 2}], "process.rlimits[0].soft"),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}] * 2, "process.rlimits[1].type"),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj"),
    ("process.scheduler", {"policy": "SCHED_NO"}, "process.scheduler.policy"),
    ("process.scheduler", {"policy": "SCHED_DEADLINE", "deadline": 9999}, "process.scheduler.runtime"),
    ("process.ioPriority", {"class": "X"}, "process.ioPriority.class"),
    ("hostname", "x" * 65, "hostname"),
    ("mounts.0.destination", ..., "mounts[0].destination"),
    ("mounts.1.type", ..., "mounts[1].type"),
    ("mounts.0.options", "ro", "mounts[0].options"),
    ("mounts.0", {"destination": "/x", "options": ["bind"]}, "mounts[0].source"),
    ("linux.namespaces.1.type", "pid", "linux.namespaces[1].type"),
    ("linux.namespaces.0.type", "pidd", "linux.namespaces[0].type"),
    ("linux.namespaces.1.type", "time", "linux.namespaces"),  # the mount namespace's place
    ("linux", {}, "linux.namespaces"),
    ("linux", ..., "linux.namespaces"),
    ("linux.namespaces.0.path", "proc/1/ns/pid", "linux.namespaces[0].path"),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "linux.uidMappings"),
    ("linux.maskedPaths", ["proc/kcore"], "linux.maskedPaths[0]"),
    ("linux.readonlyPaths", [""], "linux.readonlyPaths[0]"),
    ("linux.devices", [{"path": "dev/x", "type": "c"}], "linux.devices[0].path"),
    ("linux.devices", [{"path": "/dev/x", "type": "z"}], "linux.devices[0].type"),
    ("linux.rootfsPropagation", "public", "linux.rootfsPropagation"),
    ("linux.cgroupsPath", "/a/../../b", "linux.cgroupsPath"),
    ("linux.cgroupsPath", "system.slice:a:b", "linux.cgroupsPath"),
    ("linux.resources", {"memory": {"limit": "1g"}}, "linux.resources.memory.limit"),
    ("linux.resources", {"memory": {"limit": 100, "swap": 50}}, "linux.resources.memory.swap"),
    ("linux.resources", {"devices": [{"access": "rx"}]}, "linux.resources.devices[0].access"),
    ("linux.resources", {"unified": {"../x": "1"}}, "linux.resources.unified.../x"),
    (
        "linux.resources",
        {"hugepageLimits": [{"pageSize": "2", "limit": 1}]},
        "linux.resources.hugepageLimits[0].pageSize",
    ),
    ("linux.intelRdt", {}, "linux.intelRdt"),
    ("linux.resources", {"rdma": {"mlx5_0": {}}}, "linux.resources.rdma.mlx5_0"),
    ("mounts.0.options", ["ro", "remount"], "mounts[0].options[1]"),
    ("mounts.0.options", ["idmap"], "mounts[0].options"),
    (
        "mounts.1",
        {
            "destination": "/dev",
            "type": "tmpfs",
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        },
        "mounts[1].uidMappings",
    ),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain"),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets"),
    ("hooks", {"prestart": [{"path": "bin/x"}]}, "hooks.prestart[0].path"),
    ("hooks", {"poststop": [{"path": "/x", "timeout": 0}]}, "hooks.poststop[0].timeout"),
    ("annotations", {"a": 1}, "annotations.a"),
    ("linux.netDevices", {"eth0": {"name": "a/b"}}, "linux.netDevices.eth0"),
]


@pytest.mark.parametrize(("path", "value", "place"), BAD, ids=[f"{row[0]}={row[1]!r:.30}" for row in BAD])
def test_an_error_names_its_place(path: str, value: Any, place: str) -> None:
    """The error's path is the JSON path of the invalid member."""
    with pytest.raises(SpecError) as caught:
        parse(changed(path, value))
    assert caught.value.path == place


SYSCTLS = [
    ("kernel.core_pattern", "|/x"),
    ("kernel/core_pattern", "|/x"),
    ("vm.swappiness", "1"),
    ("net", "1"),
    ("net.ipv4..ip_forward", "1"),
    ("net/../kernel/core_pattern", "x"),
    ("net.ipv4.ip_forward+", "1"),
    ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|/x"),
    ("kernel.hostname", "x"),
    ("user.max_x", "1"),
]


@pytest.mark.parametrize(("name", "value"), SYSCTLS)
def test_cve_2022_0811_only_namespaced_sysctls(name: str, value: str) -> None:
    """Row 40: a sysctl that belongs to no namespace
    of the container, or smuggles another, is refused.
    """
    with pytest.raises(SpecError) as caught:
        parse(changed("linux.sysctl", {name: value}))
    assert caught.value.path.startswith("linux.sysctl")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel.shmmax", "kernel/shmmax"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
    ],
)
def test_sysctl_names_become_paths(name: str, path: str) -> None:
    """sysctl(8): the first separator decides what a dot means."""
    assert parse(changed("linux.sysctl", {name: "1"})).linux.sysctls == {path: "1"}


def test_unknown_members_are_ignored_and_null_is_absent() -> None:
    """The specification requires the first; Go's encoders need the second."""
    config = copy.deepcopy(CONFIG)
    config["process"]["future"] = {"x": 1}
    config["mounts"][0]["options"] = None
    config["linux"]["devices"] = None
    config["hooks"] = None
    parse(config)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{} {}", b'{"a":1,"a":2}', b"\xff", b"NaN", b"[" * 100000, b'{"x":' * 5000],
    ids=repr,
)
def test_invalid_json_is_an_error_and_no_crash(data: bytes) -> None:
    """Hostile bytes."""
    with pytest.raises(Error):
        parse_config(data)


def mutate(value: Any, dice: random.Random) -> Any:
    """One random change somewhere below."""
    junk = [None, True, -1, 1 << 70, 0.5, "", "x", "/", "\0", "../..", [], {}, [None], {"a": None}, "a" * 300]
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(sorted(value))
        return {**value, key: mutate(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        return [*value[:place], mutate(value[place], dice), *value[place + 1 :]]
    return dice.choice(junk)


def test_fuzzed_configurations_end_in_a_model_or_an_error() -> None:
    """Never in any other exception: 3,000 changed configurations, the same ones every time."""
    dice = random.Random(4)
    for _ in range(200_000 if os.environ.get("RINGFENCE_FUZZ") else 3000):
        config = copy.deepcopy(CONFIG)
        for _ in range(dice.randrange(1, 4)):
            config = mutate(config, dice)
        try:
            parse(config)
        except Error:
            continue


def test_the_start_imports_little() -> None:
    """No argparse, json, re, subprocess, typing or
    dataclasses at launch: they take most of a start's time.
    """
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, 'runtime')\n"
        "import ringfence_runtime.cli, ringfence_runtime.cli.lifecycle\n"
        "print(*sys.modules)"
    )
    got = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    heavy = {
        "argparse",
        "json",
        "re",
        "subprocess",
        "typing",
        "dataclasses",
        "enum",
        "socket",
        "logging",
        "inspect",
    }
    assert not heavy & set(got.stdout.split())


def test_the_case_of_a_members_name_does_not_matter() -> None:
    """As for Go's decoders: an engine and this runtime must not read different limits in one file."""
    config = copy.deepcopy(CONFIG)
    config["Process"] = config.pop("process")
    config["Process"]["noNewPrivilege\u017f"] = config["Process"].pop("noNewPrivileges")
    config["linux"]["resources"] = {"hugepageLimits": [{"pagesize": "2MB", "LIMIT": 5}]}
    parsed = parse(config)
    assert parsed.process.no_new_privs
    assert parsed.linux.resources.hugepages == [("2MB", 5)]


@pytest.mark.parametrize("first", ["pagesize", "pageSize"])
def test_two_spellings_of_one_member_are_an_error(first: str) -> None:
    """Go's decoder takes the last of them, others the one with the exact name."""
    second = "pageSize" if first == "pagesize" else "pagesize"
    limits = [{first: "2MB", second: "1GB", "limit": 5}]
    with pytest.raises(SpecError) as caught:
        parse(changed("linux.resources", {"hugepageLimits": limits}))
    assert caught.value.path == "linux.resources.hugepageLimits[0].pageSize"


def test_the_keys_of_a_map_keep_their_case() -> None:
    """Two interfaces, two devices of rdma, two annotations."""
    config = changed("linux.netDevices", {"eth0": {}, "ETH0": {"Name": "x"}})
    config["linux"]["resources"] = {"rdma": {"a": {"hcaHandles": 1}, "A": {"hcahandles": 2}}}
    config["annotations"] = {"a": "1", "A": "2"}
    parsed = parse(config)
    assert parsed.linux.net_devices == {"eth0": "eth0", "ETH0": "x"}
    assert parsed.linux.resources.rdma == {"a": (1, None), "A": (2, None)}
    assert parsed.annotations == {"a": "1", "A": "2"}
