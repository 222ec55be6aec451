# SPDX-License-Identifier: Apache-2.0
"""What a node does about the techniques of MITRE ATT&CK, as a layer of the ATT&CK Navigator.

The format is version 4.5 of
https://github.com/mitre-attack/attack-navigator/tree/master/layers/spec
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["attack_layer"]

#: action in force -> score and its words; the score of a technique is that of its strongest rule
_SCORES = {"deny": (3, "denied"), "kill": (2, "killed"), "alert": (1, "reported only")}
_COLOURS = ("#f6c667", "#7fb3e6", "#5cb85c")  # of the scores 1 to 3, readable by the colour-blind


def attack_layer(rules: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Returns the layer of loaded rules, rows of `ringfence policy list -o json`.

    A technique has a score from 1 to 3 and, as its comment, each of its rules with what the node does.
    """
    techniques: dict[str, list[Mapping[str, Any]]] = {}
    for rule in rules:
        for technique in rule["attack"] if rule["action"] in _SCORES else ():
            techniques.setdefault(technique, []).append(rule)
    return {
        "name": name,
        "versions": {"layer": "4.5", "navigator": "5.1.0"},
        "domain": "enterprise-attack",
        "description": "The rules that Ringfence enforces, and the strongest effect for each technique",
        "techniques": [_technique(one, found) for one, found in sorted(techniques.items())],
        "gradient": {"colors": list(_COLOURS), "minValue": 1, "maxValue": 3},
        "legendItems": [
            {"label": words, "color": _COLOURS[score - 1]} for score, words in sorted(_SCORES.values())
        ],
    }


def _technique(technique: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lines = {f"{rule['rule']}: {_SCORES[rule['action']][1]} ({rule['mechanism']})" for rule in rules}
    return {
        "techniqueID": technique,
        "score": max(_SCORES[rule["action"]][0] for rule in rules),
        "comment": "\n".join(sorted(lines)),
        "enabled": True,
        "showSubtechniques": True,
    }
