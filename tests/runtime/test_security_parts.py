# SPDX-License-Identifier: Apache-2.0
"""Landlock, capabilities and labels, with the kernel's answers given."""

from __future__ import annotations

import copy
import errno
import io
import os
import re
import struct
from pathlib import Path
from typing import Any, cast

import pytest

from ringfence_linux import syscalls
from ringfence_linux.capabilities import CAPABILITIES
from ringfence_runtime.errors import Error
from ringfence_runtime.security import caps, labels, landlock, seccomp
from ringfence_runtime.spec.linux import Landlock
from tests.runtime.conftest import CONFIG
from tests.runtime.test_config import parse

# linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
ABI_1 = (1 << 13) - 1
TRUNCATE = 1 << 14


class Kernel:
    """Landlock of some ABI: what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, abi: int) -> None:
        self.rulesets: list[bytes] = []
        self.paths: dict[str, int] = {}
        self.ports: list[tuple[int, int]] = []
        monkeypatch.setattr(syscalls, "landlock_abi", lambda: abi)
        monkeypatch.setattr(syscalls, "landlock_create_ruleset", self._create)
        monkeypatch.setattr(syscalls, "landlock_add_rule", self._add)

    def _create(self, attributes: bytes) -> int:
        self.rulesets.append(attributes)
        return 77

    def _add(self, ruleset: int, kind: int, rule: bytes) -> None:
        assert ruleset == 77
        if kind == 1:  # LANDLOCK_RULE_PATH_BENEATH
            rights, descriptor = struct.unpack("=Qi", rule)
            self.paths[os.readlink(f"/proc/self/fd/{descriptor}")] = rights
        else:
            assert kind == 2  # LANDLOCK_RULE_NET_PORT
            self.ports.append(struct.unpack("QQ", rule))

    def build(self, *, joins: bool = False, **rules: Any) -> int:
        """Builds the ruleset of a configuration with these rules."""
        config = copy.deepcopy(CONFIG)
        config["linux"]["landlock"] = {"derive": False, **rules}
        made = parse(config)
        return landlock.build(cast(Landlock, made.linux.landlock), made, scope=not joins)


def test_each_rule_gives_the_rights_of_its_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file gets none of a directory's, what is not there no rule, and write does not execute."""
    kernel = Kernel(monkeypatch, 3)
    for name in ("read", "write", "execute"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    paths: dict[str, Any] = {name: [f"{tmp_path}/{name}"] for name in ("read", "write", "execute")}
    paths["read"] += [f"{tmp_path}/file", f"{tmp_path}/none"]
    before = len(os.listdir("/proc/self/fd"))
    assert kernel.build(**paths) == 77
    assert len(os.listdir("/proc/self/fd")) == before
    everything = ABI_1 | 1 << 13 | TRUNCATE
    assert kernel.paths == {
        f"{tmp_path}/read": READ_FILE | READ_DIR,
        f"{tmp_path}/file": READ_FILE,
        f"{tmp_path}/write": everything & ~EXECUTE,
        f"{tmp_path}/execute": READ_FILE | READ_DIR | EXECUTE,
    }
    assert kernel.ports == []


def test_only_known_rights_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel refuses a rule with a right that its ruleset does not handle."""
    kernel = Kernel(monkeypatch, 1)
    kernel.build(write=[str(tmp_path)], connectUnix=["/"])
    assert kernel.paths == {str(tmp_path): ABI_1 & ~EXECUTE}
    (attributes,) = kernel.rulesets
    assert struct.unpack("Q", attributes) == (ABI_1,)


@pytest.mark.parametrize(
    ("abi", "network", "ports"),
    [
        (3, None, []),
        (4, 3, [(1, 80), (2, 443), (2, 8443)]),
        (10, 15, [(1, 80), (2, 443), (2, 8443), (4, 53)]),
    ],
)
def test_ports_are_those_that_the_kernel_knows(
    monkeypatch: pytest.MonkeyPatch, abi: int, network: int | None, ports: list[tuple[int, int]]
) -> None:
    """TCP from ABI 4 on, UDP from 10; an empty list allows no port at all."""
    kernel = Kernel(monkeypatch, abi)
    kernel.build(bindTcp=[80], connectTcp=[443, 8443], bindUdp=[53], connectUdp=[])
    (attributes,) = kernel.rulesets
    assert (struct.unpack_from("Q", attributes, 8)[0] if len(attributes) > 8 else None) == network
    assert kernel.ports == ports


def test_what_joins_a_container_is_not_scoped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not signal what runs there."""
    kernel = Kernel(monkeypatch, 6)
    for joins, rules, scoped in ((False, {}, 3), (True, {}, 0), (False, {"scope": False}, 0)):
        kernel.build(joins=joins, **rules)
        assert struct.unpack_from("Q", kernel.rulesets[-1], 16) == (scoped,)


def test_without_landlock_there_is_no_ruleset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration asks for it, and the kernel has none: the start goes on."""
    kernel = Kernel(monkeypatch, 0)
    assert kernel.build() == -1
    assert kernel.rulesets == []


def test_the_annotation_asks_for_derived_rules_alone() -> None:
    """Any other value asks for nothing."""
    config = copy.deepcopy(CONFIG)
    config["linux"].pop("landlock", None)
    assert landlock.wanted(parse(config)) is None
    config["annotations"] = {"org.ringfence.landlock": "other"}
    assert landlock.wanted(parse(config)) is None
    config["annotations"] = {"org.ringfence.landlock": "derive"}
    found = landlock.wanted(parse(config))
    assert found is not None
    assert (found.derive, found.scope, found.bind_tcp) == (True, False, None)


def test_a_directory_with_very_many_entries_is_not_split() -> None:
    """All of it may do what its most restricted entry may."""
    levels = {"/d": landlock.WRITE, "/d/x": landlock.LOOK}

    def planned(count: int) -> dict[str, int]:
        return dict(landlock.plan(levels, lambda path: ["x", *map(str, range(count - 1))]))

    assert planned(4097) == {"/d": landlock.LOOK, "/d/x": landlock.LOOK}
    assert planned(4096)["/d/7"] == landlock.WRITE


def test_the_default_sets_are_dockers() -> None:
    """Root has all of them; another user only the bound, for setuid programs."""
    names = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    )
    mask = sum(1 << CAPABILITIES[f"CAP_{name}"] for name in names.split())
    nothing = {"inheritable": 0, "ambient": 0}
    assert caps.default_sets(0) == {"bounding": mask, "effective": mask, "permitted": mask, **nothing}
    assert caps.default_sets(1) == {"bounding": mask, "effective": 0, "permitted": 0, **nothing}
    assert 1 << CAPABILITIES["CAP_SYS_ADMIN"] == caps.SYS_ADMIN


def test_what_may_be_granted_is_the_permitted_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the effective nor the inheritable one."""
    monkeypatch.setattr(syscalls, "capget", lambda: (1, 2, 4))
    assert caps.held() == 2


@pytest.mark.parametrize("last", [36, 40, 63])
def test_all_other_capabilities_are_dropped_from_the_bound(
    monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Up to the last one that the kernel knows."""
    dropped: list[int] = []

    def prctl(option: int, number: int) -> int:
        assert option == 24  # PR_CAPBSET_DROP
        if number > last:
            raise OSError(errno.EINVAL, "")
        dropped.append(number)
        return 0

    monkeypatch.setattr(syscalls, "prctl", prctl)
    caps.apply_bounding(1 << 3 | 1 << 21)
    assert dropped == [number for number in range(last + 1) if number not in (3, 21)]


def test_a_refused_drop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a capability that every kernel knows."""

    def prctl(option: int, number: int) -> int:
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(syscalls, "prctl", prctl)
    with pytest.raises(PermissionError):
        caps.apply_bounding(0)


class Attributes:
    """The files below attr of a procfs, which are plain files here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path, *names: str) -> None:
        self.place, self.opened = place, list[str]()
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("")
        monkeypatch.setattr(syscalls, "openat2", self._open)
        monkeypatch.setattr(labels, "check_magic", lambda fd, magic, what: None)

    def _open(self, procfs: int, path: str, flags: int, *, resolve: int) -> int:
        # openat2(2): RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH
        assert (procfs, flags, resolve) == (9, os.O_WRONLY, 1 | 2 | 8)
        self.opened.append(path)
        return os.open(self.place / path.removeprefix("thread-self/attr/"), flags)


def test_a_profile_of_apparmor_is_asked_for_at_the_next_exec(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In its own file, or in the common one of older kernels."""
    attributes = Attributes(monkeypatch, tmp_path, "exec")
    labels.apply_labels(9, apparmor="box", selinux="", hosts=(True, False))
    assert (tmp_path / "exec").read_text() == "exec box"
    assert attributes.opened == ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"]
    attributes = Attributes(monkeypatch, tmp_path, "exec", "apparmor/exec")
    labels.apply_labels(9, apparmor="box", selinux="", hosts=(True, False))
    assert (tmp_path / "apparmor/exec").read_text() == "exec box"
    assert (tmp_path / "exec").read_text() == ""


def test_a_label_of_selinux_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No label is asked for where none is configured."""
    attributes = Attributes(monkeypatch, tmp_path, "exec")
    labels.apply_labels(9, apparmor="unconfined", selinux="a:b:c", hosts=(False, True))
    assert (tmp_path / "exec").read_text() == "a:b:c"
    assert attributes.opened == ["thread-self/attr/exec"]
    attributes.opened.clear()
    labels.apply_labels(9, apparmor="", selinux="", hosts=(True, True))
    assert attributes.opened == []


@pytest.mark.parametrize(
    ("words", "member"),
    [
        ({"apparmor": "box", "selinux": ""}, "apparmorProfile"),
        ({"apparmor": "", "selinux": "a"}, "selinuxLabel"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_label_that_cannot_be_set_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: dict[str, str], member: str, there: bool
) -> None:
    """Without the module, or without the attribute: the container must not start unconfined."""
    attributes = Attributes(monkeypatch, tmp_path)
    with pytest.raises(Error, match=f"config: process.{member}: "):
        labels.apply_labels(9, **words, hosts=(there, there))
    assert bool(attributes.opened) is there


@pytest.mark.parametrize(
    ("content", "enabled"), [(b"Y\n", True), (b"N\n", False), (b"", False), (None, False)]
)
def test_apparmor_is_in_force_if_its_module_says_so(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None, enabled: bool
) -> None:
    """Y or N in the parameter of the module; no module, no AppArmor."""

    def opened(path: str, mode: str) -> io.BytesIO:
        # Documentation/admin-guide/LSM/apparmor.rst
        assert (path, mode) == ("/sys/module/apparmor/parameters/enabled", "rb")
        if content is None:
            raise FileNotFoundError(path)
        return io.BytesIO(content)

    monkeypatch.setattr(labels, "open", opened, raising=False)
    assert labels.apparmor_enabled() is enabled


def test_the_actions_of_seccomp_are_the_kernels() -> None:
    """As linux/seccomp.h has them. Two names of the specification mean the same."""
    header = Path("/usr/include/linux/seccomp.h").read_text()
    found = re.findall(r"^#define SECCOMP_RET_(\w+)\s+(0x[0-9a-f]+)U /\*", header, re.MULTILINE)
    numbers = {name: int(value, 16) for name, value in found}
    assert len(numbers) == 8
    kernel = {"ERRNO": numbers.pop("ERRNO"), "NOTIFY": numbers.pop("USER_NOTIF"), **numbers}
    expected = {f"SCMP_ACT_{name}": value for name, value in kernel.items()}
    expected["SCMP_ACT_KILL"] = numbers["KILL_THREAD"]
    assert expected == seccomp.ACTIONS
