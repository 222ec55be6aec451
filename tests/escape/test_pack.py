# SPDX-License-Identifier: Apache-2.0
"""Every rule of the pack meets its attack and lets its benign twin pass, enforcing and in audit mode."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.cli.client import request
from ringfence.policy.load import load_policies
from ringfence.proof.campaign import Result, Stage, run_cases
from ringfence.proof.verdict import outcome_of, problems_of
from tests.escape.program import build
from tests.escape.rows import CASES, DETECTORS, OPTIONAL, PACK, Case
from tests.support import force
from tests.support.cgroups import PREFIX
from tests.support.policies import PACK as PACK_DIR
from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "gcc")]

UNIX_RULES = ("runtime-socket", "shim-socket")


def _cases(chosen: Sequence[Case]) -> list[object]:
    return [pytest.param(case, id=case.id.replace(" ", "_")) for case in chosen]


@functools.cache
def campaign(mode: str, kind: str) -> dict[str, Result] | Exception:
    """All cases of a kind against one agent, once; a failure is kept, too."""
    policies = PACK_DIR / "optional" if kind == "optional" else PACK_DIR
    chosen = {"pack": PACK, "optional": OPTIONAL, "detectors": DETECTORS}[kind]
    build()
    try:
        with tempfile.TemporaryDirectory(prefix="rfescape-") as name:
            runtime = [force.need_program("runc")]
            machine = force.in_guest()
            stage = Stage(Path(name), PREFIX, runtime, request, patience(1), disposable=machine)
            return {result.case.id: result for result in run_cases(chosen, [policies], mode, stage)}
    except Exception as error:
        return error


def result(case: Case, mode: str) -> Result:
    """What came of a case; ends the test where this kernel has nothing to attack."""
    kind = "optional" if case.optional else "detectors" if case.detector else "pack"
    results = campaign(mode, kind)
    if isinstance(results, Exception):
        raise results
    got = results[case.id]
    if got.missing and case.disposable:
        force.elsewhere(got.missing)
    if got.missing:
        force.missing("loop", got.missing)
    if got.attack.absent:
        force.elsewhere(f"this kernel has no {got.attack.call} of `{case.attack}`")
    if case.rule in UNIX_RULES and not _sees_unix_sockets():
        force.elsewhere("this kernel has no cgroup-BPF for unix sockets (Linux 6.7), and no BPF-LSM")
    return got


@functools.cache
def _sees_unix_sockets() -> bool:
    node = NodeCapabilities.detect()
    return bool(node.lsm_hooks) or "connect_unix" in node.cgroup


def check(case: Case, got: Result) -> None:
    """The attack was met as the table says, by what the agent says; the twin was left alone."""
    assert problems_of(got) == []
    outcome, _ = outcome_of(got)
    assert outcome == got.expected


@pytest.mark.parametrize("case", _cases(PACK))
def test_an_attack_is_met_and_its_twin_passes(case: Case) -> None:
    """Enforcing: the call is refused, or its task ends with it, or it is told of. The twin's is not."""
    check(case, result(case, "enforce"))


@pytest.mark.parametrize("case", _cases(PACK))
def test_audit_only_tells(case: Case) -> None:
    """In audit mode the same attack gets through (the kernel itself would let it), and is told of."""
    assert problems_of(result(case, "audit")) == []


@pytest.mark.parametrize("case", _cases(OPTIONAL))
def test_an_optional_rule_is_met_and_its_twin_passes(case: Case) -> None:
    """The rules that are not in the default pack."""
    check(case, result(case, "enforce"))


@pytest.mark.parametrize("case", _cases(DETECTORS))
def test_a_detector_tells_of_the_odd_and_not_of_the_lawful(case: Case) -> None:
    """Containers that differ in one thing."""
    check(case, result(case, "audit"))


def test_every_rule_has_an_attack() -> None:
    """A rule without one would be a rule that nobody has seen work."""
    rules = {rule.id for policy in load_policies([PACK_DIR]).policies for rule in policy.rules}
    assert rules == {case.rule for case in PACK}
    assert len({case.id for case in CASES}) == len(CASES)
