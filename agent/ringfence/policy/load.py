# SPDX-License-Identifier: Apache-2.0
"""Loads files into a PolicySet. Reports all errors at once, each with its location.

A set with one error is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from ringfence.errors import PolicyError, Problem
from ringfence.policy import reader
from ringfence.policy.digest import digest_of
from ringfence.policy.fields import Diagnostics
from ringfence.policy.model import Mode, Place, Policy, PolicySet, Rule, Selector
from ringfence.policy.probe_rules import ProbeRule, ProbeWords
from ringfence.policy.reader import Node, Scalar
from ringfence.policy.rules import read_rules
from ringfence.policy.traits import TRAITS, read_some, read_traits
from ringfence.policy.vocabulary import OF_THE_HOST

__all__ = ["API_VERSION", "KIND", "NAME", "RESERVED", "load_bytes", "load_policies"]

API_VERSION = "ringfence.dev/v1"
KIND = "Policy"
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
#: the ids of the agent's own rules and detectors (ringfence.response); a test compares the two
RESERVED = frozenset(
    (
        "agent-look", "agent-name", "agent-tamper", "container-condemned",
        "image-link", "spec-sysctl", "spec-loader", "spec-text", "host-root", "helper-changed",
        "agent-tampered", "preemption-changed", "limit-hit", "task-burst", "sweep",
    )
)  # fmt: skip
_MAX_PROBLEMS = 200
_NO_PROBES: Mapping[str, ProbeWords] = {}
_HINT = "`ringfence policy check FILE` shows all errors; docs/reference/policy-language.md explains every key"


def load_policies(paths: Sequence[Path], probes: Mapping[str, ProbeWords] = _NO_PROBES) -> PolicySet:
    """Returns every policy in these files and directories. Raises PolicyError with all errors.

    `probes` are the custom probes that rules may name, by the labels of their events.
    """
    files, problems = reader.expand(list(paths))
    read = [(str(path), *reader.read(path)) for path in files]
    problems = problems + [p for _, _, ps in read for p in ps]
    return _set_of([(file, documents) for file, documents, _ in read], problems, probes)


def load_bytes(documents: Mapping[str, bytes], probes: Mapping[str, ProbeWords] = _NO_PROBES) -> PolicySet:
    """Like `load_policies`, for texts by the names that messages show."""
    read = [(name, *reader.parse(name, data)) for name, data in documents.items()]
    return _set_of([(name, nodes) for name, nodes, _ in read], [p for _, _, ps in read for p in ps], probes)


def _set_of(
    files: Iterable[tuple[str, Sequence[Node]]], problems: list[Problem], probes: Mapping[str, ProbeWords]
) -> PolicySet:
    policies: list[Policy] = []
    problems, files = list(problems), list(files)
    for file, documents in files:
        diagnostics = Diagnostics(file)
        for document in documents:
            policy = _policy(diagnostics, document, probes)
            if policy is not None:
                policies.append(policy)
        problems += diagnostics.problems
    problems += _repeated("policy", ((p.name, p.place) for p in policies))
    rules = [(rule.id, rule.place) for policy in policies for rule in policy.rules]
    rules += [(rule.id, rule.place) for policy in policies for rule in policy.probe_rules]
    problems += _repeated("rule", rules)
    problems += [_reserved(rule, place) for rule, place in rules if rule in RESERVED]
    if problems:
        raise PolicyError(_bounded(problems), hint=_HINT)
    digest = digest_of(node for _, documents in files for node in documents)
    return PolicySet(tuple(policies), digest)


def _bounded(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= _MAX_PROBLEMS:
        return problems
    rest = len(problems) - _MAX_PROBLEMS
    return problems[:_MAX_PROBLEMS] + [
        Problem(problems[_MAX_PROBLEMS].file, 0, 0, "", f"and {rest} more errors")
    ]


def _repeated(what: str, names: Iterable[tuple[str, Place]]) -> list[Problem]:
    first: dict[str, Place] = {}
    problems = []
    for name, place in names:
        if name in first:
            other = first[name]
            message = f"the {what} {name!r} is already defined at {other.file}:{other.line}"
            problems.append(Problem(place.file, place.line, place.column, "", message))
        elif name:
            first[name] = place
    return problems


def _reserved(rule: str, place: Place) -> Problem:
    message = f"{rule!r} is a rule or detector of the agent's own: choose another id"
    return Problem(place.file, place.line, place.column, "", message)


def _policy(diagnostics: Diagnostics, node: Node, probes: Mapping[str, ProbeWords]) -> Policy | None:
    before = len(diagnostics.problems)
    top = diagnostics.mapping(
        node, "", ("apiVersion", "kind", "metadata", "spec"), ("apiVersion", "kind", "metadata", "spec")
    )
    if top is None:
        return None
    _fixed(diagnostics, top, "apiVersion", API_VERSION)
    _fixed(diagnostics, top, "kind", KIND)
    name, description, labels = _metadata(diagnostics, top.get("metadata"))
    spec = (
        diagnostics.mapping(top["spec"], "spec", ("selector", "mode", "rules"), ("selector", "rules"))
        if "spec" in top
        else None
    )
    if spec is None:
        return None
    selector = _selector(diagnostics, spec.get("selector"))
    mode = diagnostics.choice(spec["mode"], "spec.mode", ("audit", "enforce")) if "mode" in spec else "audit"
    rules, probe_rules = (
        read_rules(diagnostics, spec["rules"], "spec.rules", probes) if "rules" in spec else ((), ())
    )
    for kind in OF_THE_HOST:
        if not _is_everything(selector) and any(kind in rule.events for rule in rules):
            message = f"{kind.label} does not belong to a container: the selector must be `containers: all`"
            diagnostics.add(spec["rules"], "spec.rules", message)
    if len(diagnostics.problems) > before:
        # Enough for the check of repeated names; the set is refused anyway.
        return _stub(diagnostics, node, name, rules, probe_rules)
    place = Place(diagnostics.file, node.line, node.column)
    return Policy(
        name, description, labels, selector, cast(Mode, mode), rules, place, probe_rules=probe_rules
    )


def _stub(
    diagnostics: Diagnostics,
    node: Node,
    name: str,
    rules: tuple[Rule, ...],
    probe_rules: tuple[ProbeRule, ...],
) -> Policy:
    place = Place(diagnostics.file, node.line, node.column)
    return Policy(
        name, "", (), Selector(None, None, at_birth=False), "audit", rules, place, probe_rules=probe_rules
    )


def _fixed(diagnostics: Diagnostics, top: Mapping[str, Node], key: str, wanted: str) -> None:
    node = top.get(key)
    if node is not None and not (isinstance(node, Scalar) and node.text == wanted):
        diagnostics.add(node, key, f"must be {wanted!r}")


def _metadata(diagnostics: Diagnostics, node: Node | None) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    keys = (
        diagnostics.mapping(node, "metadata", ("name", "description", "labels"), ("name",)) if node else None
    )
    if keys is None:
        return "", "", ()
    name = ""
    if "name" in keys:
        name = diagnostics.text(
            keys["name"], "metadata.name", NAME, "a name (at most 63 characters of a-z, 0-9, `-` and `.`)"
        )
    description = (
        diagnostics.text(keys["description"], "metadata.description") if "description" in keys else ""
    )
    labels = diagnostics.labels(keys["labels"], "metadata.labels") if "labels" in keys else ()
    return name, description.strip(), labels


def _selector(diagnostics: Diagnostics, node: Node | None) -> Selector:
    """Reads the selector. Selecting all containers must be explicit; an empty selector is an error."""
    nothing = Selector(None, None, at_birth=False)
    keys = (
        diagnostics.mapping(node, "spec.selector", ("containers", *TRAITS, "except", "unidentified"))
        if node
        else None
    )
    if node is None or keys is None:
        return nothing
    everything = "containers" in keys
    if everything:
        diagnostics.choice(keys["containers"], "spec.selector.containers", ("all",))
    given = {key: keys[key] for key in TRAITS if key in keys}
    if everything and given:
        diagnostics.add(
            node,
            "spec.selector",
            f"`containers: all` cannot be combined with {', '.join(given)}: remove one of them",
        )
    if not everything and not given:
        message = f"selects no container: write `containers: all`, or some of {', '.join(TRAITS)}"
        diagnostics.add(node, "spec.selector", message)
    only = read_traits(diagnostics, given, "spec.selector") if given else None
    but = None
    if "except" in keys:
        what = "it would exclude every container"
        but = read_some(diagnostics, keys["except"], "spec.selector.except", what)
    return Selector(only, but, at_birth=_at_birth(diagnostics, keys, certain=only is None and but is None))


def _is_everything(selector: Selector) -> bool:
    return selector.at_birth and selector.only is None and selector.but is None


def _at_birth(diagnostics: Diagnostics, keys: Mapping[str, Node], *, certain: bool) -> bool:
    if "unidentified" not in keys:
        return certain
    return (
        diagnostics.choice(keys["unidentified"], "spec.selector.unidentified", ("apply", "wait")) == "apply"
    )
