# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of policy files, generated from the vocabulary, for editors and CI systems.

It is not stricter than the loader, which checks more (ranges, conflicts, repeated ids).
"""

from __future__ import annotations

from typing import Any

from ringfence.policy.load import API_VERSION, KIND, NAME, RESERVED
from ringfence.policy.operand import EventWords, Kind, Operand
from ringfence.policy.rules import ATTACK, REQUIREMENTS, RULE_ID
from ringfence.policy.traits import HANDLERS
from ringfence.policy.vocabulary import EVENTS, OF_THE_HOST, labels
from ringfence.severity import SEVERITIES

__all__ = ["schema"]

Schema = dict[str, Any]
_PROBE = "^probe\\.[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
_PATTERNS = {
    Kind.PROGRAM: "^/[^*?\\[\\]]*[^*?\\[\\]/]$",
    Kind.NAME: "^[^/*?\\[\\]]+$",
    Kind.OBJECT: "^([A-Za-z0-9_]+:.+|/.+|\\*\\*/.+)$",
    Kind.TEXT: "^[^*?\\[\\]]*\\**$",
    Kind.SOCKET: "^[/@][^*?\\[\\]]+\\**$",
    Kind.NETWORK: "^(node|[0-9A-Fa-f:.]+(/[0-9]+)?)$",
    Kind.DEVICE: "^([abc] ([0-9]+:([0-9]+|\\*)|\\*:\\*)|[bc] driver \\S+|c misc \\S+)$",
}


def schema() -> Schema:
    """Returns the schema of one document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{API_VERSION}/policy.schema.json",
        "title": "Ringfence policy",
        "description": "Selects containers and defines their rules and mode. "
        "See docs/reference/policy-language.md.",
        **_object(
            {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": KIND},
                "metadata": _object(
                    {
                        "name": _matching(NAME.pattern),
                        "description": {"type": "string"},
                        "labels": {"type": "object", "additionalProperties": _word(), "minProperties": 1},
                    },
                    "name",
                ),
                "spec": _object(
                    {
                        "selector": _selector(),
                        "mode": {"enum": ["audit", "enforce"], "default": "audit"},
                        "rules": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/rule"}},
                    },
                    "selector",
                    "rules",
                ),
            },
            "apiVersion",
            "kind",
            "metadata",
            "spec",
        ),
        "$defs": {
            "rule": _rule(),
            "containers": {**_object(_traits()), "minProperties": 1},
            **_operands(),
            **_match_blocks(),
        },
    }


def _object(properties: Schema, *required: str) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def _matching(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$"}


def _word() -> Schema:
    return {"type": ["string", "integer"], "minLength": 1}


def _one_or_more(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]}


def _traits() -> Schema:
    globs = _one_or_more(_word())
    names = ("names", "images", "runtimes", "namespaces", "pods", "workloads")
    return {
        **{name: {**globs, "description": "globs, at least one of which must match"} for name in names},
        "labels": {"type": "object", "minProperties": 1, "additionalProperties": _word()},
        "privileged": {"type": "boolean"},
        "handler": {"enum": list(HANDLERS)},
    }


def _selector() -> Schema:
    traits = _traits()
    common = {"except": {"$ref": "#/$defs/containers"}, "unidentified": {"enum": ["apply", "wait"]}}
    everything = _object({"containers": {"const": "all"}, **common}, "containers")
    some = {**_object({**traits, **common}), "anyOf": [{"required": [name]} for name in traits]}
    return {"oneOf": [everything, some]}


def _rule() -> Schema:
    events = {"enum": labels()}
    probe = {"type": "string", "pattern": _PROBE}
    rule = _object(
        {
            "id": {**_matching(RULE_ID.pattern), "not": {"enum": sorted(RESERVED)}},
            "title": {"type": "string", "minLength": 1, "maxLength": 120},
            "severity": {"enum": list(SEVERITIES)},
            "attack": _one_or_more(_matching(ATTACK.pattern)),
            "references": _one_or_more(_word()),
            "event": {
                "anyOf": [
                    events,
                    probe,
                    {"type": "array", "minItems": 1, "uniqueItems": True, "items": events},
                ]
            },
            "match": {"anyOf": [{"const": "any"}, {"type": "object", "minProperties": 1}]},
            "exceptions": {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}},
            "action": {"enum": ["alert", "kill", "deny"]},
            "require": {"enum": list(REQUIREMENTS)},
            "otherwise": {"enum": ["kill", "alert", "skip"]},
        },
        *("id", "title", "severity", "event", "match", "action"),
    )
    deny_only = {
        "if": {"anyOf": [{"required": ["require"]}, {"required": ["otherwise"]}]},
        "then": {"properties": {"action": {"const": "deny"}}, "not": {"required": ["require", "otherwise"]}},
    }
    return {
        **rule,
        "allOf": [deny_only, _on_probes(), *(_blocks_of(words.label) for words in EVENTS.values())],
    }


def _on_probes() -> Schema:
    """Returns the schema of rules on custom probes: the form only, as a probe's YAML defines its fields."""
    value = {"type": ["string", "integer"], "minLength": 1}
    some = _one_or_more(value)
    block = {
        "minProperties": 1,
        "additionalProperties": {"anyOf": [*some["anyOf"], _object({"not": some}, "not")]},
    }
    then = {
        "properties": {
            "match": {"anyOf": [{"const": "any"}, {"type": "object", **block}]},
            "exceptions": {"items": {"type": "object", **block}},
            "action": {"enum": ["alert", "kill"]},
        }
    }
    named = {"properties": {"event": {"type": "string", "pattern": _PROBE}}, "required": ["event"]}
    return {"if": named, "then": then}


def _blocks_of(label: str) -> Schema:
    """Returns the schema that limits rules on that event (alone, or among others) to its operands."""
    named = {
        "properties": {
            "event": {"anyOf": [{"const": label}, {"contains": {"const": label}, "type": "array"}]}
        }
    }
    match = {"anyOf": [{"const": "any"}, {"$ref": f"#/$defs/match.{label}"}]}
    exception = {"$ref": f"#/$defs/exception.{label}"}
    then = {"properties": {"match": match, "exceptions": {"items": exception}}}
    return {"if": {**named, "required": ["event"]}, "then": then}


def _match_blocks() -> Schema:
    found: Schema = {}
    for kind, words in EVENTS.items():
        block = _block(words)
        found[f"match.{words.label}"] = {**_object(block), "minProperties": 1}
        more: Schema = {"why": {"type": "string", "minLength": 1}}
        if kind not in OF_THE_HOST:
            more["for"] = {"$ref": "#/$defs/containers"}
        some = [{"required": [name]} for name in (*block, *(["for"] if "for" in more else []))]
        found[f"exception.{words.label}"] = {**_object({**block, **more}), "anyOf": some}
    return found


def _operands() -> Schema:
    """Returns, for each operand, the schema of one value and of all that may be written with values."""
    found: Schema = {}
    for words in EVENTS.values():
        for operand in words.operands:
            name = _name(words.label, operand)
            found[f"value.{name}"] = _value(operand)
            found[f"operand.{name}"] = {**_operand(operand, name), "description": operand.meaning}
    return found


def _name(label: str, operand: Operand) -> str:
    return operand.name if operand.name in ("task", "exe") else f"{label}.{operand.name}"


def _block(words: EventWords) -> Schema:
    return {o.name: {"$ref": f"#/$defs/operand.{_name(words.label, o)}"} for o in words.operands}


def _operand(operand: Operand, name: str) -> Schema:
    some = _one_or_more({"$ref": f"#/$defs/value.{name}"})
    if operand.kind is Kind.FLAGS:
        parts = {**_object({"any": some, "all": some, "none": some}), "minProperties": 1}
    elif operand.kind in (Kind.OBJECT, Kind.DEVICE):
        return some
    else:
        parts = _object({"not": some}, "not")
    return {"anyOf": [*some["anyOf"], parts]}


def _value(operand: Operand) -> Schema:
    number: Schema = {"type": "integer", "minimum": 0, "maximum": operand.largest}
    if operand.kind in (Kind.CHOICE, Kind.FLAGS):
        words: Schema = {"enum": list(operand.words)}
        return {"anyOf": [words, number]} if operand.largest else words
    if operand.kind is Kind.NUMBER:
        return {"anyOf": [number, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}]}
    return {"type": "string", "minLength": 1, "pattern": _PATTERNS[operand.kind]}
