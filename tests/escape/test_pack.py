# SPDX-License-Identifier: Apache-2.0
"""Every rule of the pack matches its attack and not its benign twin, in enforce and in audit mode."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.cli.client import request
from ringfence.policy.load import load_policies
from ringfence.proof.campaign import Environment, Result, run_cases
from ringfence.proof.verdict import outcome_of, problems_of
from tests.escape.cases import CASES, DETECTORS, OPTIONAL, PACK, Case
from tests.escape.program import build
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
    """Runs all cases of a kind once against one agent; keeps an exception, too."""
    policies = PACK_DIR / "optional" if kind == "optional" else PACK_DIR
    chosen = {"pack": PACK, "optional": OPTIONAL, "detectors": DETECTORS}[kind]
    build()
    try:
        with tempfile.TemporaryDirectory(prefix="rfescape-") as name:
            runtime = [force.need_program("runc")]
            machine = force.in_guest()
            environment = Environment(Path(name), PREFIX, runtime, request, patience(1), disposable=machine)
            return {result.case.id: result for result in run_cases(chosen, [policies], mode, environment)}
    except Exception as error:
        return error


def result(case: Case, mode: str) -> Result:
    """Returns the result of a case; skips the test if this kernel lacks what is attacked."""
    kind = "optional" if case.optional else "detectors" if case.detector else "pack"
    results = campaign(mode, kind)
    if isinstance(results, Exception):
        raise results.with_traceback(None)  # it grows with each test otherwise
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
    """Asserts the outcome of the table and of the agent's statement, and that the twin is unaffected."""
    assert problems_of(got) == []
    outcome, _ = outcome_of(got)
    assert outcome == got.expected


@pytest.mark.parametrize("case", _cases(PACK))
def test_an_attack_matches_and_its_twin_does_not(case: Case) -> None:
    """Enforcing: the attack's call is denied, killed or reported, and the twin's is not."""
    check(case, result(case, "enforce"))


@pytest.mark.parametrize("case", _cases(PACK))
def test_audit_mode_only_reports(case: Case) -> None:
    """In audit mode the same attack succeeds (the kernel itself allows it), and is reported."""
    assert problems_of(result(case, "audit")) == []


@pytest.mark.parametrize("case", _cases(OPTIONAL))
def test_an_optional_rule_matches_its_attack_and_not_its_twin(case: Case) -> None:
    """The rules that are not in the default pack."""
    check(case, result(case, "enforce"))


@pytest.mark.parametrize("case", _cases(DETECTORS))
def test_a_detector_reports_the_anomaly_and_not_its_benign_twin(case: Case) -> None:
    """The two containers differ in one thing."""
    check(case, result(case, "audit"))


def test_every_rule_has_an_attack() -> None:
    """A rule without an attack has never been shown to work."""
    rules = {rule.id for policy in load_policies([PACK_DIR]).policies for rule in policy.rules}
    assert rules == {case.rule for case in PACK}
    assert len({case.id for case in CASES}) == len(CASES)
