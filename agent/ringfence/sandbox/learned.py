# SPDX-License-Identifier: Apache-2.0
"""Reads the restrictions that `ringfence run --learn` wrote."""

from __future__ import annotations

from typing import Any

from ringfence.sandbox.errors import UsageError

__all__ = ["capabilities", "landlock", "policy", "seccomp", "unused_capabilities"]


def _text(directory: str, name: str) -> str:
    try:
        with open(f"{directory}/{name}", encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{directory}/{name}: {why}", hint="`ringfence run --learn DIR ...` writes it"
        ) from None


def _json(directory: str, name: str) -> Any:
    from ringfence_linux import strictjson

    try:
        return strictjson.loads(_text(directory, name).encode())
    except ValueError as error:
        raise UsageError(f"{directory}/{name}: {error}") from None


def policy(directory: str) -> str:
    """Returns the path of the policy."""
    return f"{directory}/policy.yaml"


def capabilities(directory: str) -> list[str]:
    """Returns the used capabilities."""
    lines = (line.partition("#")[0].strip() for line in _text(directory, "capabilities.txt").splitlines())
    return [line for line in lines if line]


def unused_capabilities(directory: str) -> list[str]:
    """Returns the capabilities that the learned run had but never used."""
    lines = _text(directory, "capabilities.txt").splitlines()
    return [line[2:].partition(":")[0] for line in lines if line.startswith("# CAP_")]


def seccomp(directory: str) -> dict[str, Any]:
    """`linux.seccomp`."""
    profile = _json(directory, "seccomp.json")
    if not isinstance(profile, dict):
        raise UsageError(f"{directory}/seccomp.json is not a profile")
    return profile


def landlock(directory: str) -> dict[str, Any]:
    """`linux.landlock`."""
    rows = _json(directory, "landlock.json")
    rules: dict[str, Any] = {"derive": False, "read": [], "write": [], "execute": []}
    rules |= {"connectTcp": [], "bindTcp": []}
    for number, row in enumerate(rows if isinstance(rows, list) else [None]):
        access = row.get("access") if isinstance(row, dict) else None
        what = (row or {}).get("port" if access in ("connectTcp", "bindTcp") else "path")
        if access not in rules or access == "derive" or not isinstance(what, (str, int)):
            raise UsageError(
                f"{directory}/landlock.json: row {number} is neither a path nor a port with an access"
            )
        rules[access].append(what)
    return rules
