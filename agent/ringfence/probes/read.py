# SPDX-License-Identifier: Apache-2.0
"""Reads NAME.yaml to a Definition. Reports all mistakes with their places; such a probe is not loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ringfence.errors import PolicyError, Problem
from ringfence.policy import reader
from ringfence.policy.fields import Diagnostics
from ringfence.policy.model import Place
from ringfence.policy.probe_rules import PREFIX, ProbeWords
from ringfence.policy.reader import MappingNode, Node, Scalar
from ringfence.probes.definition import (
    DEFAULT_RATE,
    DEFAULT_RING,
    KINDS,
    LICENSES,
    Definition,
    Field,
    Owner,
)
from ringfence.probes.read_metrics import integer, read_metrics

__all__ = ["API_VERSION", "C_NAME", "KIND", "NAME", "Found", "read_directory", "read_file"]

API_VERSION = "ringfence.dev/v1"
KIND = "Probe"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
C_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
RINGS = {f"{kib}KiB": kib << 10 for kib in (64, 128, 256, 512)}
RINGS |= {f"{mib}MiB": mib << 20 for mib in (1, 2, 4)}
SPEC_KEYS = (
    "license", "event", "container", "host", "fields", "parameters", "sample", "rate", "ring", "export",
    "metrics",
)  # fmt: skip
SPEC_REQUIRED = ("license", "event", "container", "fields")
MAX_PROBES, MAX_FIELDS, MAX_PARAMETERS = 64, 64, 32
MAX_SAMPLE, MAX_RATE = 1_000_000, 10_000_000
_HINT = (
    "docs/reference/custom-probes.md explains every key; `ringfence probe new NAME` writes a working example"
)


class Found(NamedTuple):
    """The contents of a directory: valid probes, and the problems of the others by name."""

    definitions: Mapping[str, Definition]
    problems: Mapping[str, Sequence[Problem]]

    def words(self) -> dict[str, ProbeWords]:
        """Returns the vocabulary for policies; of a probe with mistakes, only its existence."""
        known = {PREFIX + name: definition.words() for name, definition in self.definitions.items()}
        for name, problems in self.problems.items():
            known[PREFIX + name] = ProbeWords(PREFIX + name, {}, in_task=False, broken=problems[0].file)
        return known


def read_directory(directory: Path) -> Found:
    """Reads every probe of a directory: its *.yaml files except hidden ones."""
    definitions: dict[str, Definition] = {}
    problems: dict[str, list[Problem]] = {}
    series: dict[str, str] = {}
    paths = sorted(p for p in directory.glob("*.yaml") if not p.name.startswith("."))
    for path in paths:
        try:
            definition = read_file(path)
        except PolicyError as error:
            problems[path.stem] = error.problems
            continue
        clashes = [
            Problem(
                str(path),
                m.place.line,
                m.place.column,
                "",
                f"the metric {m.name!r} already belongs to probe {other!r}",
            )
            for m in definition.metrics
            if (other := series.setdefault(m.name, definition.name)) != definition.name
        ]
        if len(definitions) >= MAX_PROBES:
            clashes.append(Problem(str(path), 0, 0, "", f"more than {MAX_PROBES} probes"))
        if clashes:
            problems[path.stem] = clashes
        else:
            definitions[definition.name] = definition
    return Found(definitions, problems)


def read_file(path: Path) -> Definition:
    """Reads one probe by its YAML (or its C file). Raises PolicyError with all problems of the YAML."""
    path = path.with_suffix(".yaml")
    documents, problems = reader.read(path)
    diagnostics = Diagnostics(str(path))
    found = None
    if documents:
        found = _definition(diagnostics, documents[0], path)
        for more in documents[1:]:
            diagnostics.add(more, "", "a file must contain one probe")
    if not problems and not path.with_suffix(".c").is_file():
        diagnostics.problems.append(
            Problem(str(path), 0, 0, "", f"{path.with_suffix('.c').name} does not exist next to it")
        )
    problems = [*problems, *diagnostics.problems]
    if problems or found is None:
        raise PolicyError(problems, hint=_HINT)
    return found


def _definition(diagnostics: Diagnostics, node: Node, path: Path) -> Definition | None:
    keys = ("apiVersion", "kind", "metadata", "spec")
    top = diagnostics.mapping(node, "", keys, keys)
    if top is None:
        return None
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = top.get(key)
        if found is not None and not (isinstance(found, Scalar) and found.text == wanted):
            diagnostics.add(found, key, f"must be {wanted!r}")
    name, description = _metadata(diagnostics, top.get("metadata"), path)
    spec = diagnostics.mapping(top["spec"], "spec", SPEC_KEYS, SPEC_REQUIRED) if "spec" in top else None
    if spec is None:
        return None
    fields = _fields(diagnostics, spec.get("fields"))
    owner, places = _owner(diagnostics, spec.get("container"))
    event = ""
    if "event" in spec:
        event = diagnostics.text(spec["event"], "spec.event", C_NAME, "the name of a struct").strip()
        places["event"] = _place(diagnostics, spec["event"])
    return Definition(
        name=name,
        description=description,
        license=_license(diagnostics, spec),
        event=event,
        owner=owner,
        keep_host="host" in spec
        and diagnostics.choice(spec["host"], "spec.host", ("drop", "keep")) == "keep",
        fields=fields,
        parameters=_parameters(diagnostics, spec.get("parameters")),
        sample=integer(diagnostics, spec, "sample", 1, 1, MAX_SAMPLE),
        rate=integer(diagnostics, spec, "rate", DEFAULT_RATE, 0, MAX_RATE),
        ring=_ring(diagnostics, spec.get("ring")),
        lines="export" in spec
        and diagnostics.choice(spec["export"], "spec.export", ("activity", "lines")) == "lines",
        metrics=read_metrics(diagnostics, spec.get("metrics"), fields),
        yaml=path,
        places=places,
    )


def _place(diagnostics: Diagnostics, node: Node) -> Place:
    return Place(diagnostics.file, node.line, node.column)


def _metadata(diagnostics: Diagnostics, node: Node | None, path: Path) -> tuple[str, str]:
    keys = (
        diagnostics.mapping(node, "metadata", ("name", "description"), ("name", "description"))
        if node
        else None
    )
    if keys is None:
        return "", ""
    name = description = ""
    if "name" in keys:
        name = diagnostics.text(
            keys["name"], "metadata.name", NAME, "a name of a-z, 0-9 and `-`, at most 40 long"
        )
        if name and name != path.stem:
            diagnostics.add(keys["name"], "metadata.name", f"must be {path.stem!r}, the name of the file")
    if "description" in keys:
        description = diagnostics.text(keys["description"], "metadata.description").strip()
    return name, description


def _license(diagnostics: Diagnostics, spec: Mapping[str, Node]) -> str:
    return (diagnostics.choice(spec["license"], "spec.license", LICENSES) or "") if "license" in spec else ""


def _fields(diagnostics: Diagnostics, node: Node | None) -> dict[str, Field]:
    if node is None:
        return {}
    if not isinstance(node, MappingNode) or not node.items or len(node.items) > MAX_FIELDS:
        diagnostics.add(node, "spec.fields", f"must be a mapping of 1 to {MAX_FIELDS} fields of the struct")
        return {}
    found: dict[str, Field] = {}
    for item in node.items:
        name, where = item.key.text, f"spec.fields.{item.key.text}"
        if not C_NAME.fullmatch(name):
            diagnostics.add(item.key, "spec.fields", f"{name!r} is not the name of a field")
            continue
        if name in found:
            diagnostics.add(item.key, "spec.fields", f"{name!r} is duplicate")
        keys = diagnostics.mapping(item.value, where, ("type", "unit", "description")) or {}
        kind = diagnostics.choice(keys["type"], f"{where}.type", KINDS) if "type" in keys else "number"
        texts = {
            key: diagnostics.text(keys[key], f"{where}.{key}")
            for key in ("unit", "description")
            if key in keys
        }
        if "unit" in keys and kind != "number":
            diagnostics.add(keys["unit"], f"{where}.unit", "only a number can have a unit")
        found[name] = Field(
            name,
            kind or "number",
            texts.get("unit", ""),
            texts.get("description", ""),
            _place(diagnostics, item.key),
        )
    return found


def _owner(diagnostics: Diagnostics, node: Node | None) -> tuple[Owner, dict[str, Place]]:
    """`task`, {cgroup: FIELD} or {pid: FIELD, start: FIELD}."""
    places: dict[str, Place] = {}
    if node is None:
        return Owner("task"), places
    places["container"] = _place(diagnostics, node)
    if isinstance(node, Scalar):
        diagnostics.choice(node, "spec.container", ("task",))
        return Owner("task"), places
    before = len(diagnostics.problems)
    keys = diagnostics.mapping(node, "spec.container", ("cgroup", "pid", "start")) or {}
    if len(diagnostics.problems) > before:
        return Owner("task"), places
    if set(keys) not in ({"cgroup"}, {"pid", "start"}):
        message = "must be `task`, {cgroup: FIELD}, or {pid: FIELD, start: FIELD}"
        if set(keys) == {"pid"}:
            message += ": a pid alone may already belong to another process"
        diagnostics.add(node, "spec.container", message)
        return Owner("task"), places
    names = {}
    for key, value in keys.items():
        names[key] = diagnostics.text(
            value, f"spec.container.{key}", C_NAME, "the name of a field of the struct"
        )
        places[key] = _place(diagnostics, value)
    how: Literal["cgroup", "process"] = "cgroup" if "cgroup" in keys else "process"
    return Owner(how, **names), places


def _parameters(diagnostics: Diagnostics, node: Node | None) -> dict[str, int]:
    if node is None:
        return {}
    if not isinstance(node, MappingNode) or not node.items or len(node.items) > MAX_PARAMETERS:
        diagnostics.add(
            node, "spec.parameters", f"must be a mapping of 1 to {MAX_PARAMETERS} names to numbers"
        )
        return {}
    found = {}
    for item in node.items:
        name, value = item.key.text, item.value
        if not C_NAME.fullmatch(name) or name.upper().startswith("RF_"):
            diagnostics.add(item.key, "spec.parameters", f"{name!r} is not a valid name for a macro here")
        if isinstance(value, Scalar) and value.kind == "int" and abs(int(value.text, 0)) < 1 << 63:
            found[name] = int(value.text, 0)
        else:
            diagnostics.add(value, f"spec.parameters.{name}", "must be a number")
    return found


def _ring(diagnostics: Diagnostics, node: Node | None) -> int:
    if node is None:
        return DEFAULT_RING
    return RINGS.get(diagnostics.choice(node, "spec.ring", tuple(RINGS)) or "", DEFAULT_RING)
