# SPDX-License-Identifier: Apache-2.0
"""Translates policies of Falco, Tetragon and KubeArmor, for `ringfence policy import`.

What a rule is about is kept, or the rule is left out and named: see draft.py. Each source has a module; the
words that they share are in words.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import PolicyError, Problem
from ringfence.policy import reader
from ringfence.policy.importing import falco, kubearmor, tetragon
from ringfence.policy.importing.draft import Draft, Keys, Remarks
from ringfence.policy.importing.written import write
from ringfence.policy.reader import MappingNode, Node, SequenceNode

__all__ = ["Imported", "import_policies"]

Translate = Callable[[Node, Remarks], Iterable[Draft]]
_KINDS: dict[str, Translate] = {
    **dict.fromkeys(tetragon.KINDS, tetragon.translate),
    **dict.fromkeys(kubearmor.KINDS, kubearmor.translate),
}


class Imported(NamedTuple):
    """The policies as YAML ("" if there are none), the number of rules in them, and what was not kept."""

    policies: str
    rules: int
    remarks: list[Problem]


def import_policies(paths: Sequence[Path]) -> Imported:
    """Translates all files, in order. Raises PolicyError if one cannot be read, or is no YAML."""
    files, problems = reader.expand(list(paths))
    documents = []
    for path in files:
        nodes, bad = reader.read(path)
        problems += bad
        documents.append((Remarks(str(path)), nodes))
    if problems:
        raise PolicyError(problems, hint="the files must be YAML as Falco, Tetragon and KubeArmor read it")
    drafts: list[tuple[Remarks, Draft]] = []
    rules = falco.Rules()
    for remarks, nodes in documents:
        for node in nodes:
            if isinstance(node, SequenceNode):
                rules.read(node, remarks)
            else:
                drafts += [(remarks, one) for one in _objects(node, remarks)]
    drafts += rules.translate()
    return _written(drafts, [remarks for remarks, _ in documents])


def _objects(node: Node, remarks: Remarks) -> Iterator[Draft]:
    """Translates an object of a cluster, or a list of them as `kubectl get -o yaml` prints it."""
    keys = Keys(remarks, node, "")
    kind = keys.text("kind")
    if kind == "List":
        for one in keys.each("items"):
            yield from _objects(one[0], remarks)
    elif kind in _KINDS:
        yield from _KINDS[kind](node, remarks)
    elif isinstance(node, MappingNode):
        known = ", ".join(("a list of Falco rules", *_KINDS))
        remarks.dropped(node, "kind", f"{kind!r} is none of {known}" if kind else f"missing; known: {known}")


def _note_paths(drafts: Iterable[tuple[Remarks, Draft]]) -> None:
    """Notes once for each file that a path is not one of a volume."""
    noted: list[Remarks] = []
    for remarks, draft in drafts:
        if remarks not in noted and any(str(one).startswith("/") for one in draft.match.get("path", ())):
            why = "volumes: a path begins at the root of the file's own filesystem"
            remarks.narrower(draft.node, draft.where, why)
            noted.append(remarks)


def _written(drafts: Sequence[tuple[Remarks, Draft]], remarks: Iterable[Remarks]) -> Imported:
    kept = [one for where, one in drafts if one.finish(where)]
    refused: list[tuple[Draft, str]] = []
    policies = write(kept, refused)
    _note_paths(drafts)
    sources = {id(draft): where for where, draft in drafts}
    for draft, why in refused:
        sources[id(draft)].dropped(draft.node, draft.where, why)
    found = [problem for one in remarks for problem in one.found]
    return Imported(policies, len(kept) - len(refused), found)
