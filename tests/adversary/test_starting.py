# SPDX-License-Identifier: Apache-2.0
"""Containers that were there before the agent, and what their first process made of itself.

The attempt is a new user namespace, which every pack forbids: it
shows if the process is under any rule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.adversary.container import Hostile, new_hostile
from tests.adversary.effects import own_userns
from tests.adversary.kinds import ALL, CAPS, PRIV, Kind, container_config
from tests.adversary.recording import MARKS, Record, judged
from tests.adversary.world import World, guarding, new_round, new_world
from tests.support import force

pytestmark = MARKS

#: what the first process makes of itself before the agent starts, and what that needs
FIRST: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("", ALL),  # the benign form: it is found, and guarded
    ("memory", ALL),
    ("apart", (CAPS, PRIV)),
    ("orphan", (PRIV,)),
)
CASES = [(first, kind) for first, kinds in FIRST for kind in kinds]
NAMES = [f"{first or 'plain'}-{kind}" for first, kind in CASES]


class Before:
    """Containers that were there before the agent, by what their first process is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.containers: dict[tuple[str, Kind], Hostile] = {}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    """All containers, then the agent."""
    force.need_root()
    directory = tmp_path_factory.mktemp("before")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(new_world(directory))
        made = Before(world)
        for first, kind in CASES:
            config = container_config(world.root, kind, world.binds(kind))
            config["process"]["args"] = ["/bin/adversary", *([first] if first else []), "serve"]
            label = f"adv-{first or 'plain'}-{kind}"
            hostile = stack.enter_context(new_hostile(directory / "first", config, label))
            made.containers[first, kind] = hostile
        stack.enter_context(guarding(directory / "agent", **{"containers-adopt": "yes"}))
        yield made


@pytest.mark.parametrize(("first", "kind"), CASES, ids=NAMES)
def test_a_container_from_before_the_agent_is_guarded(
    first: str, kind: Kind, before: Before, record_property: Record
) -> None:
    """Whatever its first process made of itself."""
    with new_round(before.world, before.containers[first, kind]) as one:
        one.run("userns")
        through = own_userns(one)
        name = f"first process: {first or 'plain'}"
        judged(record_property, f"A1 {name} {kind}", one.attempt.how, through=through)
