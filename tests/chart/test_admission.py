# SPDX-License-Identifier: Apache-2.0
"""The admission policy of the start-up taint: its expressions, evaluated by a real CEL.

Requests are made of nodes as the API server shows them; `request` holds what the agent's token says.
"""

from __future__ import annotations

import copy
from typing import Any

import cel
import pytest

from tests.chart.helm import by_kind, render

KEY = "ringfence.dev/agent-not-ready"
NODE: dict[str, Any] = {
    "metadata": {"name": "node-1", "labels": {"zone": "a"}, "annotations": {"x": "y"}},
    "spec": {
        "podCIDR": "10.0.0.0/24",
        "taints": [
            {"key": "dedicated", "value": "db", "effect": "NoSchedule"},
            {"key": KEY, "effect": "NoSchedule"},
        ],
    },
}
OTHERS = NODE["spec"]["taints"][:1]
USER = {
    "username": "system:serviceaccount:security:rf-ringfence",
    "extra": {"authentication.kubernetes.io/node-name": ["node-1"]},
}


@pytest.fixture(scope="module")
def policy() -> dict[str, Any]:
    """The rendered policy."""
    objects = render({"startupTaint": {"enabled": True, "admissionPolicy": True}})
    binding = by_kind(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    found = by_kind(objects, "ValidatingAdmissionPolicy")
    assert binding["policyName"] == found["metadata"]["name"]
    assert binding["validationActions"] == ["Deny"]
    spec: dict[str, Any] = found["spec"]
    assert spec["failurePolicy"] == "Fail"
    return spec


def verdict(policy: dict[str, Any], after: dict[str, Any], user: dict[str, Any] = USER) -> list[str]:
    """Returns the messages that refuse this change of NODE; none: it is allowed."""
    known: dict[str, Any] = {"object": after, "oldObject": NODE, "request": {"userInfo": user}}
    if not all(cel.evaluate(one["expression"], known) for one in policy["matchConditions"]):
        return []
    known["variables"] = {one["name"]: cel.evaluate(one["expression"], known) for one in policy["variables"]}
    return [
        str(one["message"])
        for one in policy["validations"]
        if cel.evaluate(one["expression"], known) is not True
    ]


def changed(**spec: Any) -> dict[str, Any]:
    """NODE with other fields in its spec; None removes one."""
    made = copy.deepcopy(NODE)
    made["spec"] |= spec
    made["spec"] = {key: value for key, value in made["spec"].items() if value is not None}
    return made


def relabelled(**metadata: Any) -> dict[str, Any]:
    """The change that is allowed, and other metadata beside it."""
    made = changed(taints=OTHERS)
    made["metadata"] |= metadata
    return made


def test_the_taint_may_go(policy: dict[str, Any]) -> None:
    """What the agent does; with other taints beside it, and as the last one."""
    assert verdict(policy, changed(taints=OTHERS)) == []
    alone = {"metadata": NODE["metadata"], "spec": {}}
    assert "an agent may take its start-up taint away, and change no other" in verdict(policy, alone)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (changed(taints=None), "change no other"),
        (changed(taints=[*OTHERS, {"key": "mine", "effect": "NoExecute"}]), "change no other"),
        (changed(), "change no other"),  # its own taint is still there: nothing that an agent would ask for
        (changed(taints=OTHERS, unschedulable=True), "cordon"),
        (changed(taints=OTHERS, providerID="aws:///i-1"), "nothing else"),
        (relabelled(labels={"zone": "b"}), "labels"),
        (relabelled(annotations={}), "annotations"),
        (relabelled(finalizers=["mine.example/x"]), "nothing else"),
        (relabelled(name="node-2"), "its own node"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_nothing_else_may_change(policy: dict[str, Any], after: dict[str, Any], message: str) -> None:
    """By a compromised agent."""
    assert any(message in said for said in verdict(policy, after))


@pytest.mark.parametrize(
    "extra", [{}, {"authentication.kubernetes.io/node-name": ["node-2"]}, {"x": ["node-1"]}]
)
def test_a_token_of_another_node_or_of_none_may_nothing(
    policy: dict[str, Any], extra: dict[str, Any]
) -> None:
    """A manually created token names no node."""
    user = {**USER, "extra": extra}
    assert verdict(policy, changed(taints=OTHERS), user) == ["an agent may change its own node only"]


def test_others_are_not_concerned(policy: dict[str, Any]) -> None:
    """The node controller, the kubelet, an administrator."""
    assert verdict(policy, changed(unschedulable=True), {"username": "system:node:node-1"}) == []
