# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.chart_schema`: the parts of the chart's values.schema.json that are derived.

The value `config` has every key of the agent's configuration that the chart does not set itself, with
its type. Policies in `policies.extra` have the schema of policies. A node pool has the schemas of the values
that it can override. Keys with a default are required (`null` would remove one). The rest is
written by hand. tests/chart compares. Contradictions between values are in templates/_validate.tpl, as a
schema has no messages of its own.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ringfence import abi
from ringfence.config import KEYS, Key, accepted, outputs, receivers, values

__all__ = ["OWN", "POOL_KEYS", "SCHEMA", "config_properties", "derived", "shape"]

SCHEMA = Path(__file__).resolve().parents[1] / "charts/ringfence/values.schema.json"
VALUES = SCHEMA.with_name("values.yaml")
POLICY_SCHEMA = Path(__file__).resolve().parents[1] / "docs/reference/policy.schema.json"
#: keys that the chart sets itself, by its own values
OWN = frozenset((
    "mode", "policies", "policies_kept", "canary", "http.listen", "health.listen", "page.listen", "output",
    "socket",
    "state_dir", "pins", "kubernetes.watch", "kubernetes.node", "kubernetes.token", "kubernetes.ca",
    "kubernetes.taint",
    "alerts.headers", "alerts.ca", "alerts.file", "alerts.queue_dir", "alerts.queue_size",
    "probes.directory", "metrics.containers", "metrics.program_stats",
))  # fmt: skip
#: the values that a node pool can override
POOL_KEYS = (
    "mode", "policies", "config", "runtime", "runtimeDirectory", "nodeSelector", "tolerations", "resources",
    "updateStrategy", "test",
)  # fmt: skip

Schema = dict[str, Any]
_WORD: Schema = {"type": "string", "minLength": 1}
_PATH: Schema = {"type": "string", "pattern": "^/"}
# A user name or a fragment in an address is refused by the agent: secrets belong into files of headers.
_URL: Schema = {"type": "string", "pattern": "^https?://[^@#\\s]+$"}
_FILE: Schema = {"type": "string", "pattern": "^(/.*|off)$"}


def _many(item: Schema, least: int = 0) -> Schema:
    """One, or a list."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": least}]}


def _receivers(address: str, *options: str) -> Schema:
    """Addresses, or mappings with `url` and what is this receiver's alone."""
    plain = {"type": "string", "pattern": f"^{address}$"}
    mapping = {
        "type": "object", "required": ["url"], "additionalProperties": False,
        "properties": {"url": plain, **dict.fromkeys(options, _FILE)},
        "dependencies": {"key": ["certificate"]},
    }  # fmt: skip
    return _many({"anyOf": [plain, mapping]})


# The default pool must be able to leave out the same nodes: Gt, Lt and matchFields have no exact opposite.
_EXPRESSIONS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object", "required": ["key", "operator"], "additionalProperties": False,
        "properties": {
            "key": _WORD, "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        },
        "if": {"properties": {"operator": {"enum": ["In", "NotIn"]}}},
        "then": {"required": ["values"]},
        "else": {"properties": {"values": False}},
    },
}  # fmt: skip
_LABELS = {
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": False,
    "patternProperties": {
        "^[a-zA-Z][a-zA-Z0-9_]{0,31}$": {"type": "string", "pattern": "^[^\\x00-\\x1f]{1,128}$"},
    },
}
_LINE: Schema = {"type": "string", "minLength": 1, "maxLength": 256}
_ACCEPTED: Schema = {
    "type": "array",
    "maxItems": 200,
    "items": {
        "type": "object", "required": ["check", "names", "reason"], "additionalProperties": False,
        "properties": {
            "check": {"type": "string", "pattern": "^[a-z][a-z0-9-]{1,40}$"}, "names": _LINE, "reason": _LINE,
        },
    },
}  # fmt: skip
# 1 MiB to 1 TiB
_SIZE = {
    "type": "string",
    "pattern": "^([1-9][0-9]{0,5} ?(M|MiB)|([1-9][0-9]{0,2}|10[01][0-9]|102[0-4]) ?(G|GiB))$",
}
# powers of two from 64 KiB to 256 MiB
_RING = {"type": "string", "pattern": "^((64|128|256|512) ?(K|KiB)|(1|2|4|8|16|32|64|128|256) ?(M|MiB))$"}
_PATTERN = {"type": "string", "pattern": "^[^*{}/]+(\\*|\\{hex64\\})$"}
_OBSERVE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {kind.label: {"enum": ["off", "activity", "alerts"]} for kind in abi.EventKind},
}
_ROOTS = {
    "type": "object",
    "additionalProperties": False,
    "properties": dict.fromkeys(values.RUNTIMES, _PATH),
}
#: parser of a key -> what it takes. A parser that is made (Choice, integer, off_or) is looked into.
_SHAPES: dict[Callable[[Any], Any], Schema] = {
    values.boolean: {"type": "boolean"},
    values.absolute_path: _PATH,
    values.output: _WORD,
    values.paths: _many(_WORD, 1),
    values.any_paths: _many(_WORD),
    values.patterns: _many(_PATTERN),
    values.observe: _OBSERVE,
    values.roots: _ROOTS,
    values.detectors: _many({"enum": list(values.DETECTORS)}),
    values.ring_size: _RING,
    values.pins: _WORD,
    values.listen: _WORD,
    receivers.http_receivers: _receivers("https?://[^@#\\s]+", "headers", "ca", "certificate", "key"),
    receivers.chat_receivers: _receivers("https?://[^@#\\s]+", "headers", "ca", "certificate", "key"),
    receivers.syslog_receivers: _receivers(
        "((udp|tcp|tls)://[^/\\s]+|unix:///\\S+)", "ca", "certificate", "key"
    ),
    receivers.labels: _LABELS,
    accepted.acceptances: _ACCEPTED,
    values.size: _SIZE,
    outputs.expressions: _many(_WORD),
}
#: by the key, where its parser is a function of that key alone
_BY_PATH: dict[str, Schema] = {
    "cri.socket": {"anyOf": [{"enum": ["auto", "off"]}, _PATH]},
    "kubernetes.api": _URL,
}


def shape(key: Key) -> Schema:
    """The JSON schema of a key's value. KeyError: a new kind of parser, which belongs into _SHAPES."""
    return _BY_PATH[key.path] if key.path in _BY_PATH else _shape(key.parse)


def _shape(parse: Callable[[Any], Any]) -> Schema:
    kind, _, _ = getattr(parse, "__qualname__", "").partition(".<locals>")
    inner = inspect.getclosurevars(parse).nonlocals if inspect.isfunction(parse) else {}
    if isinstance(parse, values.Choice):
        return {"enum": list(parse.words)}
    if kind == "integer":
        return {"type": "integer", "minimum": inner["least"], "maximum": inner["most"]}
    if kind == "off_or":
        return {"anyOf": [{"enum": ["off"]}, _shape(inner["parse"])]}
    return _SHAPES[parse]


def config_properties() -> Schema:
    """`properties` of the value `config`."""
    found: Schema = {}
    for key in KEYS:
        if key.path in OWN:
            continue
        section, _, name = key.path.rpartition(".")
        part = found
        if section:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            part = found.setdefault(section, empty)["properties"]
        part[name] = {"description": key.help, **shape(key)}
    return found


def derived(schema: Schema) -> Schema:
    """Returns the schema with its derived parts generated again."""
    made: Schema = json.loads(json.dumps(schema))
    made["properties"]["config"]["properties"] = config_properties()
    made["properties"]["nodePools"] = _pools()
    made["allOf"] = [_required(made["properties"], yaml.safe_load(VALUES.read_text()))]
    made["definitions"] = _policy_definitions()
    extra = {"anyOf": [_WORD, {"$ref": "#/definitions/policy"}]}
    made["properties"]["policies"]["properties"]["extra"]["additionalProperties"] = extra
    return made


def _required(properties: Schema, values: Mapping[str, Any]) -> Schema:
    """Every key that has a default is there, at each level of which the schema knows the keys."""
    nested = {
        name: _required(properties[name]["properties"], value)
        for name, value in values.items()
        if isinstance(value, dict) and name != "config" and "properties" in properties[name]
    }
    return {"required": sorted(values), **({"properties": nested} if nested else {})}


def _pools() -> Schema:
    """Values that choose nodes, and what can differ. Names are checked by templates/_pools.tpl."""
    terms = {"type": "array", "minItems": 1, "items": _object({"matchExpressions": _EXPRESSIONS})}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": _object({"nodeSelectorTerms": terms})}
    affinity = _object({"nodeAffinity": _object(required)})
    shared = {key: {"$ref": f"#/properties/{key}"} for key in POOL_KEYS}
    chosen = [{"required": ["nodeSelector"], "properties": {"nodeSelector": {"minProperties": 1}}},
              {"required": ["affinity"]}]  # fmt: skip
    pool: Schema = {
        "type": "object", "additionalProperties": False, "properties": {**shared, "affinity": affinity},
        "anyOf": chosen,
    }  # fmt: skip
    return {"type": "object", "additionalProperties": pool}


def _object(properties: Schema) -> Schema:
    """These properties, all of them, and no others."""
    closed: Schema = {"type": "object", "additionalProperties": False}
    return {**closed, "required": list(properties), "properties": properties}


def _policy_definitions() -> Schema:
    """The schema of policies, for those in values; draft 7 calls `$defs` definitions."""
    text = POLICY_SCHEMA.read_text().replace('"#/$defs/', '"#/definitions/')
    policy: Schema = json.loads(text)
    definitions: Schema = policy.pop("$defs")
    return {**definitions, "policy": {key: policy[key] for key in policy if key not in ("$schema", "$id")}}


def main() -> int:
    """Writes the file."""
    SCHEMA.write_text(json.dumps(derived(json.loads(SCHEMA.read_text())), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
