# SPDX-License-Identifier: Apache-2.0
"""The probes with compiled policies in their maps, for the tests of policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ringfence.abi import Action, EventKind
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.policy import CompiledPolicies, CompiledRule, NodeTiers, compile_policies
from ringfence.policy.install import Generations
from tests.kernel.probes import Probes
from tests.support.cgroups import Cgroup
from tests.unit.policy.documents import Document, Seen, load

__all__ = ["Enforcer"]


class Enforcer:
    """The probes, and policies in their maps."""

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.generations = Generations(probes.kernel.map)
        self.node = NodeTiers.of(replace(NodeCapabilities.detect(), lsm_hooks=frozenset()))  # as loaded

    def compile(self, *documents: Document) -> CompiledPolicies:
        """Compile for this node."""
        return compile_policies(load(*documents), self.node)

    def enforce(self, *documents: Document) -> None:
        """Put policies in force for every container."""
        self.generations.install(self.compile(*documents))

    def assign(self, cgroup: Cgroup, name: str) -> frozenset[int]:
        """A container's name becomes known: its policies come into force."""
        return self.generations.assign(self.probes.slot(cgroup), cgroup.id, Seen(name))

    def alert(self, cgroup: Cgroup, kind: EventKind) -> tuple[Any, CompiledRule]:
        """Returns the first event of that kind with a verdict, and the rule that it names."""
        for event in self.probes.wait(cgroup, kind):
            if event.action != Action.NONE:
                found = self.generations.rule(event.generation, event.rule)
                assert found is not None
                return event, found
        raise AssertionError(f"no verdict on {kind.label}")
