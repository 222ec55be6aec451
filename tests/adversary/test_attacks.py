# SPDX-License-Identifier: Apache-2.0
"""Every attack of the table, from each kind of container that it names.

A short set here and in every guest; all of them by `python -m tests.adversary`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.adversary.attack import STOPPED, UNTRIED, Attack, judge
from tests.adversary.expected import is_expected, tier_here
from tests.adversary.kinds import Kind
from tests.adversary.table import ATTACKS
from tests.adversary.world import World
from tests.support import force

Record = Callable[[str, object], None]
pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("runc", "gcc"),
    pytest.mark.filterwarnings("ignore:record_property"),
]

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
    tier, kernel = tier_here(), os.environ.get("RINGFENCE_VM", "here")
    if tier not in attack.tiers:
        force.elsewhere(f"an attack on {', '.join(attack.tiers)}")
    if attack.guest and not force.in_guest():
        force.elsewhere("changes the kernel itself: in virtual machines only")
    verdict = judge(world, attack, kind)
    record_property("verdict", json.dumps([tier, attack.key(kind), *verdict]))
    assert verdict.twin == "", f"the twin: {verdict}"
    if verdict.word == UNTRIED:
        force.elsewhere(f"this kernel has nothing to attack: {verdict.how}")
    through = verdict.word != STOPPED
    assert is_expected(tier, kernel, attack.key(kind)) in ("may", "yes" if through else "no"), verdict
