# SPDX-License-Identifier: Apache-2.0
"""One row of the table of attacks, and one run of it: the twin first, then the attack."""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.adversary.effects import Effect
from tests.adversary.kinds import ALL, Kind
from tests.adversary.program import SETUP
from tests.adversary.world import Round, World, new_round
from tests.support.waiting import patience

__all__ = ["ONCE", "STOPPED", "THROUGH", "UNTRIED", "Attack", "Verdict", "judge"]

#: the effect was there, and the attacker went on
THROUGH = "through"
#: the effect was there, and the attacker was killed for it: one call took effect
ONCE = "one call"
STOPPED = "stopped"
#: what the attack needs is not there
UNTRIED = "not tried"
_SETTLES = 0.1  # seconds within which an effect shows after the attempt


class Attack(NamedTuple):
    """A row. `words` are those of the program; {names} are those of Round.words."""

    cls: str  # class, as in docs/explanation/threat-model.md
    name: str
    words: str
    twin: str  # does the like on the container's own objects, and has to work
    effect: Effect
    kinds: tuple[Kind, ...] = ALL
    guest: bool = False  # harms the machine if it gets through
    short: bool = False  # in the short set
    alone: bool = False  # in a container that no other attack uses

    def key(self, kind: Kind) -> str:
        """Its name in results and in the list of what is expected to get through."""
        return f"{self.cls} {self.name} {kind}"


class Verdict(NamedTuple):
    """What came of an attack: the word, and by what (`killed`, an errno)."""

    word: str
    how: str
    twin: str  # empty: the twin worked; else how it ended


def judge(world: World, attack: Attack, kind: Kind) -> Verdict:
    """Runs twin and attack in a container and looks for the effect outside.

    The container is used again only if the attack was refused: nothing of it is left then.
    """
    hostile = world.hostile(kind)
    twin, clean = "", False
    try:
        if attack.twin:
            with new_round(world, hostile) as one:
                one.run(attack.twin)
                twin = "" if one.attempt.status == 0 else one.attempt.how
        with new_round(world, hostile) as one:
            one.run(attack.words)
            if one.attempt.status == SETUP:
                return Verdict(UNTRIED, one.attempt.how, twin)
            if not _seen(attack, one):
                clean = one.attempt.refused and not twin and not attack.alone
                return Verdict(STOPPED, one.attempt.how, twin)
            return Verdict(ONCE if one.attempt.killed else THROUGH, one.attempt.how, twin)
    finally:
        if not clean:
            world.discard(kind)


def _seen(attack: Attack, one: Round) -> bool:
    """Looks for the effect until it had time to show."""
    end = time.monotonic() + patience(_SETTLES)
    while not attack.effect(one):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
