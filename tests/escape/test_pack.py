# SPDX-License-Identifier: Apache-2.0
"""Every rule of the pack meets its attack and lets its benign twin pass, enforcing and in audit mode."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.policy.load import load_policies
from tests.escape.campaign import Result, run_campaign
from tests.escape.rows import OPTIONAL, PACK, Row
from tests.support import force

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "busybox", "gcc")]

POLICIES = Path(__file__).resolve().parents[2] / "policies"
IN_AUDIT = {"denied": "would-deny", "killed": "would-kill", "seen": "seen"}
MECHANISM = {"denied": "cgroup", "killed": "kill", "seen": "observe"}
UNIX_RULES = ("runtime-socket", "shim-socket")
CASES = [pytest.param(row, id=row.rule) for row in PACK]
OPTIONAL_CASES = [pytest.param(row, id=row.rule) for row in OPTIONAL]


@functools.cache
def campaign(mode: str, *, optional: bool = False) -> dict[str, Result] | Exception:
    """All rows against one agent, once; the tests below look at one row each. A failure is kept, too."""
    policies = [POLICIES / "optional"] if optional else [POLICIES]
    try:
        return run_campaign(OPTIONAL if optional else PACK, policies, mode, force.need_program("busybox"))
    except Exception as error:
        return error


def result(row: Row, mode: str, *, optional: bool = False) -> Result:
    """What came of a row; ends the test where this kernel has nothing to attack."""
    results = campaign(mode, optional=optional)
    if isinstance(results, Exception):
        raise results
    got = results[row.rule]
    if got.attack.absent:
        force.elsewhere(f"this kernel has no {got.attack.call} of `{row.attack}`")
    if row.rule in UNIX_RULES and "connect_unix" not in NodeCapabilities.detect().cgroup:
        force.elsewhere("this kernel has no cgroup-BPF for unix sockets (Linux 6.7)")
    return got


def check_enforced(row: Row, got: Result) -> None:
    """The attack was tried, met as the row says, and told of with the mechanism."""
    assert got.attack.tried, f"not tried: {got.attack.said}"
    assert got.alerts, f"no alert of {row.rule}; the attack ended: {got.attack}"
    alert = got.alerts[0]
    assert (alert["outcome"], alert["mechanism"]) == (row.outcome, MECHANISM[row.outcome])
    assert got.attack.killed == (row.outcome == "killed")
    assert got.attack.refused == (row.outcome == "denied")


def check_twin(got: Result) -> None:
    """The twin ran its call to the end, and no rule took it for anything."""
    assert got.twin.tried, f"not tried: {got.twin.said}"
    assert not got.twin.killed
    assert not got.twin.refused
    assert got.twin_verdicts == {}


@pytest.mark.parametrize("row", CASES)
def test_an_attack_is_met(row: Row) -> None:
    """Enforcing: the call is refused, or its task ends with it, or it is told of; as the row says."""
    check_enforced(row, result(row, "enforce"))


@pytest.mark.parametrize("row", CASES)
def test_a_twin_passes(row: Row) -> None:
    """Enforcing: the nearest lawful thing is not refused, not killed, not counted as a verdict."""
    check_twin(result(row, "enforce"))


@pytest.mark.parametrize("row", CASES)
def test_audit_only_tells(row: Row) -> None:
    """In audit mode the same attack gets through (the kernel itself would let it), and is told of."""
    got = result(row, "audit")
    assert not got.attack.killed
    assert not got.attack.refused, "the kernel itself refuses this attack: it proves nothing"
    assert got.alerts, f"no alert of {row.rule}"
    assert got.alerts[0]["outcome"] == IN_AUDIT[row.outcome]


@pytest.mark.parametrize("row", OPTIONAL_CASES)
def test_an_optional_rule_is_met_and_its_twin_passes(row: Row) -> None:
    """The rules that are not in the default pack."""
    got = result(row, "enforce", optional=True)
    check_enforced(row, got)
    check_twin(got)


def test_every_rule_has_a_row() -> None:
    """A rule without an attack would be a rule that nobody has seen work."""
    rules = {rule.id for policy in load_policies([POLICIES]).policies for rule in policy.rules}
    assert rules == {row.rule for row in PACK}
