# SPDX-License-Identifier: Apache-2.0
"""Policy documents for tests: a good one, and how to change a part of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ringfence.policy import PolicySet, load_bytes

Document = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What is known of a container: the facts that selectors look at."""

    name: str | None = None
    image: str | None = None
    runtime: str | None = None
    namespace: str | None = None
    pod: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    privileged: bool | None = None
    chosen: tuple[str, ...] = ()
    settled: bool = True


class _Plain(yaml.SafeDumper):
    """Writes everything out: policies take no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


RULE: Document = {
    "id": "userns",
    "title": "A container makes a user namespace",
    "severity": "high",
    "attack": ["T1611"],
    "event": "unshare",
    "match": {"flags": ["CLONE_NEWUSER"]},
    "action": "deny",
}


def rule(**changes: Any) -> Document:
    """The good rule with other values; None takes a key away."""
    changed = {**copy.deepcopy(RULE), **changes}
    return {key: value for key, value in changed.items() if value is not None}


def policy(
    *rules: Document,
    name: str = "trial",
    mode: str = "enforce",
    but: Document | None = None,
    **selector: Any,
) -> Document:
    """A document with these rules. `but` is the selector's `except`, which Python keeps for itself."""
    if but is not None:
        selector["except"] = but
    return {
        "apiVersion": "ringfence.dev/v1",
        "kind": "Policy",
        "metadata": {"name": name},
        "spec": {
            "selector": selector or {"containers": "all"},
            "mode": mode,
            "rules": list(rules) or [rule()],
        },
    }


def text(*documents: Document) -> bytes:
    """As YAML."""
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False).encode()


def load(*documents: Document) -> PolicySet:
    """Loaded; PolicyError says what is wrong."""
    return load_bytes({"trial.yaml": text(*documents)})
