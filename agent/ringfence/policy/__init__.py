# SPDX-License-Identifier: Apache-2.0
"""Policies: files -> model -> tables -> kernel. See docs/reference/policy-language.md for the language.

`load_policies` reads files, `compile_policies` makes the tables, `Generations` puts them in force, and
`explain` describes the effective action of each rule on a node.
"""

from ringfence.policy.compiled import CompiledPolicies, CompiledRule, Shortfall
from ringfence.policy.compiler import compile_policies
from ringfence.policy.load import load_bytes, load_policies
from ringfence.policy.model import ContainerFacts, Mode, Policy, PolicySet, Rule
from ringfence.policy.tiers import NodeTiers, Outcome

__all__ = [
    "CompiledPolicies",
    "CompiledRule",
    "ContainerFacts",
    "Mode",
    "NodeTiers",
    "Outcome",
    "Policy",
    "PolicySet",
    "Rule",
    "Shortfall",
    "compile_policies",
    "load_bytes",
    "load_policies",
]
