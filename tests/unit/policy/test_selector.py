# SPDX-License-Identifier: Apache-2.0
"""Which containers a policy holds for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ringfence.policy import NodeTiers, PolicySet, compile_policies
from tests.unit.policy.documents import Seen, load, policy, rule

WEB = Seen("web-1", "docker.io/library/nginx:1.27", "docker", "shop", "web-1-abc", {"app": "web"}, False)


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
    ],
)
def test_all_keys_must_fit_and_any_glob_of_each(selector: dict[str, Any], covered: bool) -> None:
    """As the keys are read aloud."""
    assert load(policy(rule(), **selector)).policies[0].selector.covers(WEB) is covered


def test_what_is_not_known_does_not_fit() -> None:
    """Neither to choose a container nor to leave it out."""
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
def test_a_container_not_yet_known_gets_what_is_certain(selector: dict[str, Any], at_birth: bool) -> None:
    """A policy that may leave a container out waits until it is known, unless it says otherwise."""
    compiled = compile_policies(load(policy(rule(), **selector)), NodeTiers.usual())
    assert compiled.select(None) == (frozenset({0}) if at_birth else frozenset())


def test_a_file_that_one_container_brought_holds_for_no_other_at_its_birth() -> None:
    """Nor once that one is known, though the file's selector speaks of all of them."""
    brought = [replace(one, bound="file:1") for one in load(policy(rule(id="mine"), name="mine")).policies]
    both = PolicySet((*load(policy(rule(id="ours"), name="ours")).policies, *brought))
    compiled = compile_policies(both, NodeTiers.usual())
    assert compiled.select(None) == frozenset({0})
    assert compiled.select(Seen(settled=False)) == frozenset({0})
    assert compiled.select(Seen(chosen=("file:1",))) == frozenset({0, 1})


def test_the_first_words_about_a_container_leave_it_out_of_nothing() -> None:
    """What its bundle says may be its image's author: until an engine was asked, what holds for the
    unidentified holds. What was asked for besides is held, too."""
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
