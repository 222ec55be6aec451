# SPDX-License-Identifier: Apache-2.0
"""The layer for the ATT&CK Navigator: each technique once, by the strongest of its rules."""

from __future__ import annotations

from typing import Any

from ringfence.policy.attack_layer import attack_layer


def rule(name: str, action: str, mechanism: str, *attack: str) -> dict[str, Any]:
    """A row of `policy list` as far as the layer reads it."""
    return {"rule": name, "action": action, "mechanism": mechanism, "attack": list(attack)}


def test_a_technique_has_the_score_of_its_strongest_rule() -> None:
    """Denied above killed above reported; the comment names all rules with what happens."""
    layer = attack_layer(
        [
            rule("seen", "alert", "observe", "T1611", "T1068"),
            rule("stopped", "deny", "lsm", "T1611"),
            rule("ended", "kill", "kill", "T1055.009"),
            rule("off", "none", "observe", "T1499"),
            rule("untagged", "deny", "lsm"),
        ],
        "a node",
    )
    found = {one["techniqueID"]: (one["score"], one["comment"]) for one in layer["techniques"]}
    assert found == {
        "T1055.009": (2, "ended: killed (kill)"),
        "T1068": (1, "seen: reported only (observe)"),
        "T1611": (3, "seen: reported only (observe)\nstopped: denied (lsm)"),
    }


def test_a_rule_with_several_rows_is_named_once_for_each_effect() -> None:
    """One that is denied at one event and killed at another."""
    rows = [rule("r", "deny", "lsm", "T1"), rule("r", "kill", "kill", "T1"), rule("r", "deny", "lsm", "T1")]
    [one] = attack_layer(rows, "x")["techniques"]
    assert one["comment"].splitlines() == ["r: denied (lsm)", "r: killed (kill)"]


def test_it_has_what_the_navigator_requires() -> None:
    """Layer format 4.5: name, versions and domain; the legend has a colour of the gradient for each score."""
    layer = attack_layer([], "a node")
    assert (layer["name"], layer["domain"]) == ("a node", "enterprise-attack")
    assert layer["versions"]["layer"] == "4.5"
    legend = [item["color"] for item in layer["legendItems"]]
    assert legend == layer["gradient"]["colors"]
    assert (layer["gradient"]["minValue"], layer["gradient"]["maxValue"]) == (1, len(legend))
