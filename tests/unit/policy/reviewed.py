# SPDX-License-Identifier: Apache-2.0
"""Small documents for `policy check`, and what it notes of them."""

from __future__ import annotations

from ringfence.policy import load_bytes
from ringfence.policy.review import Note, remarks

__all__ = ["noted", "policy", "rule", "warned"]

HEAD = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: NAME}
spec:
  selector: {containers: all}
  rules:
"""
RULE = "    - {id: ID, title: x, severity: low, event: EVENT, match: MATCH, action: ACTION}\n"


def rule(event: str, match: str, action: str = "deny", name: str = "one", more: str = "") -> str:
    """One rule in flow style; its column is 7."""
    text = RULE.replace("ID", name).replace("EVENT", event).replace("MATCH", match).replace("ACTION", action)
    return text.replace("}\n", f"{more}}}\n")


def policy(*rules: str, name: str = "p") -> bytes:
    """A document; the first rule stands in line 7."""
    return (HEAD.replace("NAME", name) + "".join(rules)).encode()


def noted(*documents: bytes) -> list[Note]:
    """What it warns of and notes."""
    return [*remarks(load_bytes({f"{n}.yaml": document for n, document in enumerate(documents)}))]


def warned(document: bytes) -> list[str]:
    """What it warns of, in words."""
    return [note.note for note in noted(document)]
