# SPDX-License-Identifier: Apache-2.0
"""The names by which containers are printed, and by which filters find them again.

What a command prints as a container's name is accepted by the filters of every other command.
"""

from __future__ import annotations

__all__ = ["CUT", "full_name", "is_called", "shortened"]

#: the last letter of a name that was cut to the width of a column
CUT = "\u2026"
_LEAST = 4  # letters of the start of an id or a name


def shortened(identifier: str) -> str:
    """Returns the first twelve digits of an id, as runtimes print ids; a name is not cut."""
    return identifier[:12] if len(identifier) == 64 else identifier


def full_name(identity: str, name: str, namespace: str, pod: str) -> str:
    """Returns NAMESPACE/POD/NAME, as far as it is known; otherwise the id as `shortened` gives it."""
    return "/".join(part for part in (namespace, pod, name) if part) or shortened(identity)


def is_called(word: str, identity: str, name: str, namespace: str, pod: str) -> bool:
    """Returns True if a word names this container: the start of its id (4 digits or more), its name, its
    pod, its namespace, NAMESPACE/POD, NAMESPACE/POD/NAME, or such a name as a column cut it.
    """
    if not word:
        return False
    full = full_name(identity, name, namespace, pod)
    if word in (identity, name, pod, namespace, full):
        return True
    start = word.removesuffix(CUT)
    if len(start) >= _LEAST and (identity.startswith(start) or (start != word and full.startswith(start))):
        return True
    return bool(namespace and pod) and word == f"{namespace}/{pod}"
