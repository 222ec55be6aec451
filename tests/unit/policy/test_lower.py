# SPDX-License-Identifier: Apache-2.0
"""Rules on a program, and exceptions for one."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.abi import DIM_EXE, EXE_CHANGED, EventKind
from ringfence.policy.lower import lower
from ringfence.policy.operand import Conjunction, Values, fnv1a
from tests.unit.policy.documents import load, policy, rule

PATH = "/usr/bin/x"
AS_IN_IMAGE = fnv1a(PATH.encode())
CHANGED = AS_IN_IMAGE ^ EXE_CHANGED


def on_program(conjunction: Conjunction) -> Values:
    """Returns the test of the program."""
    (found,) = (p for p in conjunction if p.dim == DIM_EXE and isinstance(p, Values))
    return found


@pytest.mark.parametrize(
    ("changes", "as_in_image", "changed"),
    [
        ({"match": {"exe": PATH}}, True, True),
        ({"match": {"exe": {"not": PATH}}}, False, True),
    ],
)
def test_a_rule_also_matches_a_changed_program(
    changes: dict[str, Any], as_in_image: bool, changed: bool
) -> None:
    """`not` only exempts the unchanged program of the image."""
    (one,) = load(policy(rule(**changes))).policies[0].rules
    (atom,) = lower(one, EventKind.SYS_UNSHARE)
    asked = on_program(atom.matches)
    assert (asked.holds(AS_IN_IMAGE), asked.holds(CHANGED)) == (as_in_image, changed)


@pytest.mark.parametrize(
    ("exception", "as_in_image", "changed", "other"),
    [(PATH, True, False, False), ({"not": PATH}, False, False, True)],
)
def test_an_exception_only_exempts_the_program_of_the_image(
    exception: Any, as_in_image: bool, changed: bool, other: bool
) -> None:
    """A program that replaced it at its path is not exempt."""
    (one,) = load(policy(rule(exceptions=[{"exe": exception, "why": "w"}]))).policies[0].rules
    (atom,) = lower(one, EventKind.SYS_UNSHARE)
    asked = on_program(atom.exceptions[0])
    assert (asked.holds(AS_IN_IMAGE), asked.holds(CHANGED)) == (as_in_image, changed)
    assert asked.holds(fnv1a(b"/usr/bin/y")) is other
