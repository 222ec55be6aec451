# SPDX-License-Identifier: Apache-2.0
"""The digest of a set of policies, by which nodes are compared.

It depends on the content of the documents only: not on the names, order or comments of their files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ringfence.policy.reader import MappingNode, Node, Scalar

__all__ = ["digest_of"]

_DIGITS = 12


def digest_of(documents: Iterable[Node]) -> str:
    """Returns the digest of these documents; empty if there are none."""
    each = sorted(
        hashlib.sha256(repr(_plain(node)).encode("utf-8", "replace")).digest() for node in documents
    )
    return hashlib.sha256(b"".join(each)).hexdigest()[:_DIGITS] if each else ""


def _plain(node: Node) -> object:
    """Returns the content of a node, without its place."""
    if isinstance(node, Scalar):
        return node.kind, node.text
    if isinstance(node, MappingNode):
        return "mapping", [(item.key.kind, item.key.text, _plain(item.value)) for item in node.items]
    return "sequence", [_plain(item) for item in node.items]
