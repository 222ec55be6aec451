# SPDX-License-Identifier: Apache-2.0
"""Reads what selects containers: of a selector, its `except`, and the `for` of an exception."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ringfence.policy.fields import Diagnostics, shown
from ringfence.policy.model import Traits
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode

__all__ = ["HANDLERS", "TRAITS", "read_some", "read_traits"]

TRAITS = ("names", "images", "runtimes", "namespaces", "pods", "workloads", "labels", "privileged", "handler")
#: what executes a program that is not native
HANDLERS = ("wasm",)
_UNCLOSED = re.compile(r"\[(?!!?\]?[^\]]*\])")


def read_some(diagnostics: Diagnostics, node: Node, where: str, empty: str) -> Traits:
    """Reads a mapping of at least one of TRAITS. `empty`: what an empty one would do."""
    keys = diagnostics.mapping(node, where, TRAITS)
    if keys is not None and not keys:
        diagnostics.add(node, where, f"is empty: {empty}")
    return read_traits(diagnostics, keys or {}, where)


def read_traits(diagnostics: Diagnostics, keys: Mapping[str, Node], where: str) -> Traits:
    """Reads those of TRAITS that are given."""

    def globs(key: str) -> tuple[str, ...]:
        return diagnostics.texts(keys[key], f"{where}.{key}") if key in keys else ()

    for key, node in keys.items():
        _check_globs(diagnostics, node, f"{where}.{key}")
    return Traits(
        names=globs("names"),
        images=globs("images"),
        runtimes=globs("runtimes"),
        namespaces=globs("namespaces"),
        pods=globs("pods"),
        workloads=globs("workloads"),
        labels=diagnostics.labels(keys["labels"], f"{where}.labels") if "labels" in keys else (),
        privileged=diagnostics.boolean(keys["privileged"], f"{where}.privileged")
        if "privileged" in keys
        else None,
        handler=diagnostics.choice(keys["handler"], f"{where}.handler", HANDLERS)
        if "handler" in keys
        else None,
    )


def _check_globs(diagnostics: Diagnostics, node: Node, where: str) -> None:
    """Reports globs that match no name but have another meaning elsewhere."""
    if isinstance(node, MappingNode):
        nodes: Sequence[Node] = [item.value for item in node.items]
    else:
        nodes = node.items if isinstance(node, SequenceNode) else (node,)
    for one in nodes:
        text = one.text if isinstance(one, Scalar) else ""
        if text.startswith("!"):
            diagnostics.add(
                one, where, f"{shown(text)}: `!` does not negate: use `except` to exclude containers"
            )
        elif _UNCLOSED.search(text):
            diagnostics.add(one, where, f"{shown(text)} has a `[` without its `]`")
