# SPDX-License-Identifier: Apache-2.0
"""Exceptions that hold for some containers only: `for` names them as a selector does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import EventKind
from ringfence.cli.main import main
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies
from ringfence.policy.compiled import CompiledPolicies
from ringfence.policy.explain import explain_rule
from ringfence.policy.review import find_errors, remarks
from tests.unit.policy.documents import Seen, load, policy, rule

K = EventKind
TEAM = {"namespaces": ["team-b"], "workloads": ["StatefulSet/ci-*"]}
MINE = Seen("build", namespace="team-b", owner="StatefulSet/ci-runner")
CONNECT = {"event": "network.connect", "match": {"port": 2379}}


def compiled(*exceptions: dict[str, Any], **changes: Any) -> CompiledPolicies:
    """Compiles one rule on network.connect with these exceptions."""
    chosen = {**CONNECT, **changes, "exceptions": list(exceptions)}
    return compile_policies(load(policy(rule(**chosen))), NodeTiers.usual())


def allowed(found: CompiledPolicies, container: Seen | None, event: EventKind = K.NET_CONNECT) -> int:
    """Returns the number of exceptions that a container's set has; checks that the rule is in it."""
    bits = found.bits(found.select(container), container)
    assert all(bits >> number & 1 for number in found.rules)
    return bin(bits & found.actions.exceptions).count("1")


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ({}, 1),
        ({"namespace": "team-c"}, 0),
        ({"owner": "Deployment/ci-runner"}, 0),
        ({"owner": None}, 0),
        ({"namespace": None}, 0),
        ({"settled": False}, 0),
    ],
)
def test_it_holds_for_the_named_workload_alone(other: dict[str, Any], count: int) -> None:
    """And only once everything is known: before, an image's author could have chosen the names."""
    found = compiled({"for": TEAM, "exe": "/usr/bin/etcdctl"})
    facts = {"namespace": "team-b", "owner": "StatefulSet/ci-runner", **other}
    assert allowed(found, Seen("build", **facts)) == count


def test_it_does_not_hold_at_birth() -> None:
    """Of a container about which nothing is known."""
    found = compiled({"for": TEAM, "exe": "/usr/bin/etcdctl"})
    assert allowed(found, None) == 0
    assert not found.sets[1] & found.actions.exceptions


def test_labels_that_an_image_can_set_do_not_count() -> None:
    """As in the `except` of a selector."""
    found = compiled({"for": {"labels": {"trusted": "yes"}}, "exe": "/x"})
    assert allowed(found, Seen("a", labels={"trusted": "yes"})) == 0
    assert allowed(found, Seen("a", cluster_labels={"trusted": "yes"})) == 1


def test_images_are_named_by_digest_too() -> None:
    """As NAME@sha256:..., whatever name the runtime reports."""
    digest = "docker.io/library/debian@sha256:" + "d" * 64
    found = compiled({"for": {"images": [digest]}, "exe": "/x"})
    assert allowed(found, Seen("a", "debian:12", image_digest=digest)) == 1
    assert allowed(found, Seen("a", "debian:12", image_digest=digest[:-1] + "e")) == 0
    assert allowed(found, Seen("a", "debian:12")) == 0


@pytest.mark.parametrize(
    ("scope", "there", "elsewhere"),
    [
        ({"namespaces": "team-b"}, {"namespace": "team-b"}, {"namespace": "team-bb"}),
        ({"pods": "runner-*"}, {"pod": "runner-1"}, {"pod": "a-runner-1"}),
        ({"workloads": "StatefulSet/ci"}, {"owner": "StatefulSet/ci"}, {"owner": "Deployment/ci"}),
        ({"images": "docker.io/library/debian:12"}, {"image": "debian:12"}, {"image": "debian:13"}),
        ({"names": "build"}, {"name": "build"}, {"name": "build-2"}),
        ({"labels": {"team": "b"}}, {"cluster_labels": {"team": "b"}}, {"cluster_labels": {"team": "c"}}),
        ({"privileged": True}, {"privileged": True}, {"privileged": False}),
        ({"handler": "wasm"}, {"handler": "wasm"}, {"name": "wasm", "labels": {"run.oci.handler": "wasm"}}),
        ({"namespaces": "team-b", "pods": "runner-*"}, {"namespace": "team-b", "pod": "runner-1"},
         {"namespace": "team-c", "pod": "runner-1"}),
    ],
)  # fmt: skip
def test_each_fact_can_name_the_containers(
    scope: dict[str, Any], there: dict[str, Any], elsewhere: dict[str, Any]
) -> None:
    """It holds where the fact is this one; not where it is another, is unknown, or not settled."""
    found = compiled({"for": scope, "exe": "/x"})
    assert allowed(found, Seen(**there)) == 1
    for other in (elsewhere, {}, {**there, "settled": False}):
        assert allowed(found, Seen(**other)) == 0


def test_exceptions_for_all_and_for_some_stand_side_by_side() -> None:
    """Each has its own bit, in the word of its rule, and clears the rule."""
    found = compiled({"exe": "/a"}, {"for": TEAM, "exe": "/b"}, {"for": {"names": ["z"]}, "exe": "/c"})
    assert allowed(found, Seen("x")) == 1
    assert allowed(found, MINE) == 2
    [number] = found.rules
    clears = found.actions.clears
    assert len(clears) == 3
    assert {bit // 64 for bit in clears} == {number // 64}
    assert set(clears.values()) == {number % 64}


def test_events_of_a_rule_do_not_share_the_bits_of_another_scope() -> None:
    """One exception is dropped on an event where it cannot hold; the bit of the other is not its bit."""
    found = compiled(
        {"for": {"names": ["a"]}, "flags": ["CLONE_NEWNS"]},
        {"for": {"names": ["b"]}, "flags": ["CLONE_NEWUTS"]},
        event=["unshare", "clone"],
        match={"flags": ["CLONE_NEWNS", "CLONE_NEWUTS"]},
    )
    one, other = (
        found.bits(found.select(seen), seen) & found.actions.exceptions for seen in (Seen("a"), Seen("b"))
    )
    assert one
    assert other
    assert not one & other


def test_an_exception_without_conditions_excepts_everything_there() -> None:
    """For that workload: it is the rule that does not apply, not the whole policy."""
    found = compiled({"for": TEAM})
    assert allowed(found, MINE) == 1
    [policy_set] = [load(policy(rule(**CONNECT, exceptions=[{"for": TEAM}])))]
    assert find_errors(policy_set) == []


def test_a_scope_does_not_pacify_the_check_for_locked_out_containers() -> None:
    """A rule that would stop every other container is refused all the same."""
    wide = rule(event="file.open", match="any", action="deny", exceptions=[{"for": TEAM}])
    assert any("would stop every container" in str(one) for one in find_errors(load(policy(wide))))


def test_it_is_explained() -> None:
    """In words."""
    [one] = load(policy(rule(**CONNECT, exceptions=[{"for": TEAM, "exe": "/x"}]))).policies[0].rules
    text = "\n".join(explain_rule(one, NodeTiers.usual()))
    assert "in containers with namespace team-b and workload StatefulSet/ci-*" in text


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        ({"for": {}}, "write the containers that it is for"),
        ({"for": {"pots": ["x"]}}, "pots"),
        ({"for": {"names": []}}, "is an empty list"),
        ({"for": {"names": ["!x"]}}, "does not negate"),
        ({"why": "x"}, "is empty"),
    ],
)
def test_mistakes_are_named(exception: dict[str, Any], message: str) -> None:
    """With their place."""
    with pytest.raises(PolicyError) as error:
        load(policy(rule(**CONNECT, exceptions=[exception])))
    assert message in str(error.value)
    assert "spec.rules[0].exceptions[0]" in str(error.value)


def test_events_of_the_host_have_no_containers() -> None:
    """An exception cannot name one."""
    host = rule(event="kernel.helper", match={"known": "no"}, exceptions=[{"for": TEAM, "path": "/x"}])
    with pytest.raises(PolicyError, match="belongs to no container"):
        load(policy(host))


def test_a_wide_exception_of_a_critical_rule_is_noticed() -> None:
    """It would hold in every container, for every program."""

    def warned(exception: dict[str, Any], severity: str = "critical") -> bool:
        one = rule(**{**CONNECT, "severity": severity}, exceptions=[exception])
        return any("holds in every container" in note.note for note in remarks(load(policy(one))))

    assert warned({"address": "10.0.0.0/8"})
    assert not warned({"address": "10.0.0.0/8", "exe": "/x"})
    assert not warned({"address": "10.0.0.0/8", "for": TEAM})
    assert not warned({"address": "10.0.0.0/8"}, "high")
    for everywhere in ({"namespaces": "*"}, {"pods": ["a", "**"], "workloads": "*"}):
        assert warned({"for": everywhere})
        assert warned({"for": everywhere, "address": "10.0.0.0/8"})
        assert not warned({"for": {**everywhere, "names": "build"}})
        assert not warned({"for": {**everywhere, "labels": {"team": "*"}}})
        assert not warned({"for": everywhere, "exe": "/x"})


def test_policy_check_prints_where_the_wide_exception_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning with file, line and the remedy."""
    written = json.loads(json.dumps(policy(rule(**CONNECT | {"severity": "critical"}))))
    written["spec"]["rules"][0]["exceptions"] = [{"address": "10.0.0.0/8"}]
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(written))
    assert main(["policy", "check", str(file)]) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if "holds in every container" in one)
    assert line.startswith(f"{file}:1:")
    assert "warning" in line
    assert "name the program (`exe`) and the workload (`for`)" in line
