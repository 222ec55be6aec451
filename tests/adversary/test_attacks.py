# SPDX-License-Identifier: Apache-2.0
"""Every attack of the table, from each kind of container that it names.

A short set here and in every guest; all of them by `python -m tests.adversary`.
"""

from __future__ import annotations

import os

import pytest

from tests.adversary.attack import STOPPED, UNTRIED, Attack, judge
from tests.adversary.kinds import Kind
from tests.adversary.recording import MARKS, Record, as_expected, recorded
from tests.adversary.table import ATTACKS
from tests.adversary.world import World
from tests.support import force

pytestmark = MARKS

WHOLE = os.environ.get("RINGFENCE_ADVERSARY") == "all"


def _rows() -> list[object]:
    return [
        pytest.param(attack, kind, id=attack.key(kind).replace(" ", "-"))
        for attack in ATTACKS
        for kind in attack.kinds
        if WHOLE or attack.short
    ]


@pytest.mark.parametrize(("attack", "kind"), _rows())
def test_an_attack_has_no_effect_and_its_twin_works(
    attack: Attack, kind: Kind, world: World, record_property: Record
) -> None:
    """Unless expected.txt says that it gets through: then it has to."""
    if attack.guest and not force.in_guest():
        force.elsewhere("changes the kernel itself: in virtual machines only")
    verdict = judge(world, attack, kind)
    recorded(record_property, attack.key(kind), verdict)
    assert verdict.twin == "", f"the twin: {verdict}"
    if verdict.word == UNTRIED:
        force.elsewhere(f"this kernel has nothing to attack: {verdict.how}")
    as_expected(attack.key(kind), verdict, through=verdict.word != STOPPED)
