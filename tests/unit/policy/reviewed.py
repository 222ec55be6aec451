# SPDX-License-Identifier: Apache-2.0
"""Small documents for `policy check`, and its remarks on them."""

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
    """Returns one rule in flow style; its column is 7."""
    text = RULE.replace("ID", name).replace("EVENT", event).replace("MATCH", match).replace("ACTION", action)
    return text.replace("}\n", f"{more}}}\n")


def policy(*rules: str, name: str = "p") -> bytes:
    """Returns a document whose first rule is in line 7."""
    return (HEAD.replace("NAME", name) + "".join(rules)).encode()


def noted(*documents: bytes) -> list[Note]:
    """Returns the remarks on documents."""
    return [*remarks(load_bytes({f"{n}.yaml": document for n, document in enumerate(documents)}))]


def warned(document: bytes) -> list[str]:
    """Returns the texts of the remarks on a document."""
    return [note.note for note in noted(document)]
