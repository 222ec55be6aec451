# SPDX-License-Identifier: Apache-2.0
"""The containers to which a policy applies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ringfence.policy import NodeTiers, PolicySet, compile_policies
from tests.unit.policy.documents import Seen, load, policy, rule

WEB = Seen(
    "web-1",
    "docker.io/library/nginx:1.27",
    "docker",
    "shop",
    "web-1-abc",
    {"app": "web", "trusted": "yes"},
    {"app": "web"},
    False,
)


@pytest.mark.parametrize(
    ("selector", "covered"),
    [
        ({"containers": "all"}, True),
        ({"names": ["web-*", "db"]}, True),
        ({"names": ["db"]}, False),
        ({"images": "*nginx*"}, True),
        ({"images": "nginx"}, False),
        ({"runtimes": "docker", "namespaces": "shop"}, True),
        ({"runtimes": "docker", "namespaces": "bank"}, False),
        ({"pods": "web-1-*"}, True),
        ({"labels": {"app": "w?b"}}, True),
        ({"labels": {"app": "web", "tier": "*"}}, False),
        ({"privileged": False}, True),
        ({"privileged": True}, False),
        ({"containers": "all", "except": {"names": "web-*"}}, False),
        ({"containers": "all", "except": {"names": "web-*", "runtimes": "podman"}}, True),
        ({"images": "*nginx*", "except": {"labels": {"app": "web"}}}, False),
        ({"labels": {"trusted": "yes"}}, True),
        ({"containers": "all", "except": {"labels": {"trusted": "yes"}}}, True),  # the image's own label
    ],
)
def test_every_key_and_at_least_one_glob_of_it_must_match(selector: dict[str, Any], covered: bool) -> None:
    """For selected and for excluded containers."""
    assert load(policy(rule(), **selector)).policies[0].selector.covers(WEB) is covered


def test_an_unknown_fact_does_not_match() -> None:
    """Neither to select a container nor to exclude it."""
    nothing = Seen()
    assert not load(policy(rule(), privileged=True)).policies[0].selector.covers(nothing)
    assert not load(policy(rule(), labels={"a": "*"})).policies[0].selector.covers(nothing)
    assert load(policy(rule(), containers="all", but={"names": "*"})).policies[0].selector.covers(nothing)


@pytest.mark.parametrize(
    ("selector", "at_birth"),
    [
        ({"containers": "all"}, True),
        ({"containers": "all", "except": {"names": "x"}}, False),
        ({"containers": "all", "except": {"names": "x"}, "unidentified": "apply"}, True),
        ({"containers": "all", "unidentified": "wait"}, False),
        ({"names": "x"}, False),
        ({"names": "x", "unidentified": "apply"}, True),
    ],
)
def test_an_unidentified_container_gets_the_certain_policies(
    selector: dict[str, Any], at_birth: bool
) -> None:
    """A policy that may exclude a container waits until it is identified, unless it says `apply`."""
    compiled = compile_policies(load(policy(rule(), **selector)), NodeTiers.usual())
    assert compiled.select(None) == (frozenset({0}) if at_birth else frozenset())


def test_a_policy_from_an_enrolment_request_applies_to_no_other_container() -> None:
    """Neither at birth nor later, although its selector names all containers."""
    requested = [replace(one, bound="file:1") for one in load(policy(rule(id="mine"), name="mine")).policies]
    both = PolicySet((*load(policy(rule(id="node"), name="node")).policies, *requested))
    compiled = compile_policies(both, NodeTiers.usual())
    assert compiled.select(None) == frozenset({0})
    assert compiled.select(Seen(settled=False)) == frozenset({0})
    assert compiled.select(Seen(chosen=("file:1",))) == frozenset({0, 1})


def test_the_first_facts_about_a_container_do_not_exclude_it() -> None:
    """Facts in a bundle may come from the image's author.

    Until an engine was queried, the policies for unidentified containers apply, and requested ones as well.
    """
    but = {"images": "*/trusted"}
    policies = [
        policy(rule(id="birth"), name="birth", containers="all", but=but, unidentified="apply"),
        policy(rule(id="later"), name="later", containers="all", but=but),
        policy(rule(id="mine"), name="mine", names="nobody"),
    ]
    compiled = compile_policies(load(*policies), NodeTiers.usual())
    for settled, held in ((False, {0, 2}), (True, {2})):
        seen = Seen(image="registry/trusted", chosen=("mine",), settled=settled)
        assert compiled.select(seen) == held
