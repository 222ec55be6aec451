# SPDX-License-Identifier: Apache-2.0
"""A switch of the kernel's preemption: what is reported, and when the agent starts again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ringfence.abi import Mechanism
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.preemption import Preemption
from ringfence.daemon.health.preemption_watch import PreemptionWatch
from ringfence.response.detectors import Finding
from tests.unit.bpf.test_hook_probe import NODE

BY_LSM = replace(NODE, hook_mechanism=Mechanism.LSM)
WITHOUT = replace(NODE, lsm_hooks=frozenset())
BACKED = replace(NODE, kprobes=True)


class World:
    """A kernel whose preemption is `model`, and the policies' `problems` there."""

    def __init__(
        self, node: NodeCapabilities, *, problems: list[str] | None = None, reports: bool = True
    ) -> None:
        self.model, self.problems = node.preemption, problems or []
        self.found: list[Finding] = []
        self.asked: list[Preemption] = []
        self.stops = 0
        self.watch = PreemptionWatch(
            node,
            refused_with=self.refused_with,
            report=self.found.extend,
            stop=self.stop,
            reports=reports,
            find=lambda _otherwise: self.model,
        )

    def refused_with(self, node: NodeCapabilities) -> list[str]:
        self.asked.append(node.preemption)
        return self.problems

    def stop(self) -> None:
        self.stops += 1

    def switch(self, model: Preemption) -> None:
        self.model = model
        self.watch.tick()


def test_nothing_happens_while_nothing_changes() -> None:
    """Nor is any policy compiled."""
    world = World(NODE)
    world.watch.tick()
    assert (world.stops, world.found, world.asked, world.watch.problem()) == (0, [], [], "")


@pytest.mark.parametrize(("node", "skipped"), [(NODE, "passes"), (BACKED, "killed"), (WITHOUT, "passes")])
def test_a_kernel_that_begins_to_preempt_is_reported_and_planned_for(
    node: NodeCapabilities, skipped: str
) -> None:
    """Where programs at functions decide, or those at system calls."""
    world = World(node)
    world.switch(Preemption.FULL)
    assert world.watch.restarts
    assert (world.stops, world.asked) == (1, [Preemption.FULL])
    [found] = world.found
    assert found.detector.id == "preemption-changed"
    assert found.details == {
        "before": "voluntary",
        "now": "full",
        "agent": "restarted",
        "when_skipped": skipped,
    }


def test_one_that_ends_to_preempt_is_planned_for() -> None:
    """Backstops cost something. There is nothing to report."""
    world = World(replace(NODE, preemption=Preemption.LAZY))
    world.switch(Preemption.NONE)
    assert (world.watch.restarts, world.stops, world.found) == (True, 1, [])


@pytest.mark.parametrize(
    ("node", "model"),
    [
        (NODE, Preemption.NONE),
        (replace(NODE, preemption=Preemption.LAZY), Preemption.FULL),
        (BY_LSM, Preemption.FULL),
    ],
)
def test_a_switch_that_changes_no_plan_is_shown_only(node: NodeCapabilities, model: Preemption) -> None:
    """As skippable as before; or BPF-LSM decides."""
    world = World(node)
    world.switch(model)
    assert (world.watch.restarts, world.stops, world.found, world.watch.problem()) == (False, 0, [], "")


def test_policies_that_require_more_stay_in_force_with_a_problem() -> None:
    """An agent that starts again would refuse them, and be gone."""
    world = World(NODE, problems=["pack.yaml:3:1: requires deny"])
    world.switch(Preemption.FULL)
    assert (world.watch.restarts, world.stops) == (False, 0)
    assert "switched to full" in world.watch.problem()
    assert "pack.yaml:3:1: requires deny" in world.watch.problem()
    [found] = world.found
    assert found.details["when_skipped"] == "passes"
    world.switch(Preemption.VOLUNTARY)
    assert (world.watch.restarts, world.watch.problem(), len(world.found)) == (False, "", 1)


def test_the_finding_can_be_off() -> None:
    """As each detector."""
    world = World(NODE, reports=False)
    world.switch(Preemption.FULL)
    assert (world.watch.restarts, world.found) == (True, [])
