# SPDX-License-Identifier: Apache-2.0
"""Devices by the name of their driver: the node's numbers take the place of the word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies
from ringfence.policy.drivers import Drivers, node_drivers
from ringfence.policy.overlap import may_overlap
from ringfence.policy.unavailable_names import absent_names
from tests.unit.policy.documents import load, policy, rule

DEVICES = """Character devices:
  1 mem
  4 tty
  4 ttyS
248 mei
203 cpu/cpuid

Block devices:
  7 loop
248 nvme
"""
MISC = " 59 rdma_cm\n229 fuse\n"
K = EventKind
NUMBER, MAJOR = 2, 3


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with some drivers."""
    (tmp_path / "devices").write_text(DEVICES)
    (tmp_path / "misc").write_text(MISC)
    return tmp_path


def test_drivers_are_read_with_their_numbers(proc: Path) -> None:
    """Character and block devices are apart; a driver may have several majors, a major several."""
    found = node_drivers(proc)
    assert found["c driver mei"] == {248}
    assert found["b driver nvme"] == {248}
    assert found["c driver ttyS"] == found["c driver tty"] == {4}
    assert found["c driver cpu/cpuid"] == {203}
    assert found["c misc fuse"] == {10 << 20 | 229}
    assert "c driver nvme" not in found


def test_files_that_are_missing_have_no_drivers(tmp_path: Path) -> None:
    """A kernel without character devices, or a /proc that hides them."""
    assert node_drivers(tmp_path) == {}


def test_a_driver_that_is_loaded_later_is_noticed(proc: Path) -> None:
    """Once per change."""
    drivers = Drivers(proc)
    assert not drivers.changed()
    (proc / "misc").write_text(MISC + "100 vfio\n")
    assert drivers.changed()
    assert not drivers.changed()
    assert drivers.now["c misc vfio"] == {10 << 20 | 100}


def operands(words: list[str], proc: Path, **more: object) -> set[tuple[int, int]]:
    """Returns the entries (dim, value) of the table for a rule on these devices."""
    document = policy(rule(event="device.access", match={"device": words}, **more))
    node = replace(NodeTiers.usual(), drivers=node_drivers(proc))
    compiled = compile_policies(load(document), node)
    return {(dim, value) for _, dim, value in compiled.operands if dim in (NUMBER, MAJOR)}


def test_a_rule_gets_the_numbers_of_its_drivers(proc: Path) -> None:
    """Beside plain numbers."""
    assert operands(["c driver mei", "c 90:*"], proc) == {(MAJOR, 248), (MAJOR, 90)}
    assert operands(["c misc fuse"], proc) == {(NUMBER, 10 << 20 | 229)}
    assert operands(["b driver loop"], proc) == {(MAJOR, 7)}


def test_exceptions_get_them_too(proc: Path) -> None:
    """None is dropped because its numbers are not known when the rule is read."""
    but = [{"device": ["c driver mei", "c misc fuse"]}]
    assert operands(["c *:*"], proc, exceptions=but) == {(MAJOR, 248), (NUMBER, 10 << 20 | 229)}


def test_a_driver_that_does_not_exist_matches_nothing(proc: Path) -> None:
    """It may be loaded later: no error, and a note that names it."""
    assert operands(["c driver vfio"], proc) == set()
    document = load(policy(rule(event="device.access", match={"device": ["c driver no-such-driver"]})))
    (absent,) = absent_names(document.policies[0].rules[0])
    assert "'c driver no-such-driver' does not exist on this machine" in str(absent)


def test_policies_with_drivers_are_read_again_when_these_change() -> None:
    """Others are not."""
    named = load(policy(rule(event="device.access", match={"device": ["c driver mei"]})))
    excepted = rule(event="device.access", match={"device": "c *:*"}, exceptions=[{"device": "c misc fuse"}])
    assert named.names_drivers
    assert load(policy(excepted)).names_drivers
    assert not load(policy(rule(event="device.access", match={"device": ["c 1:3"]}))).names_drivers


def test_a_driver_may_have_any_number(proc: Path) -> None:
    """Two rules may match the same device, as far as is known without the node."""
    one = load(policy(rule(event="device.access", match={"device": ["c driver mei"]}))).policies[0].rules[0]
    other = load(policy(rule(event="device.access", match={"device": ["c 90:*"]}))).policies[0].rules[0]
    first = one.match[K.DEVICE_ACCESS][0].alternatives[0]
    assert may_overlap(K.DEVICE_ACCESS, first, other.match[K.DEVICE_ACCESS][0].alternatives[0])


@pytest.mark.parametrize("word", ["a driver mei", "c driver", "b misc fuse", "c driver a b", "driver mei"])
def test_other_words_are_refused(word: str) -> None:
    """With the forms that exist."""
    with pytest.raises(PolicyError, match=r"is not a device: .*c driver mei"):
        load(policy(rule(event="device.access", match={"device": [word]})))
