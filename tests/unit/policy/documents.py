# SPDX-License-Identifier: Apache-2.0
"""Policy documents for tests: a valid one, and functions that change parts of it."""

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
    """The known facts of a container that selectors test."""

    name: str | None = None
    image: str | None = None
    runtime: str | None = None
    namespace: str | None = None
    pod: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster_labels: Mapping[str, str] = field(default_factory=dict)
    privileged: bool | None = None
    chosen: tuple[str, ...] = ()
    settled: bool = True
    image_digest: str | None = None
    owner: str | None = None
    handler: str | None = None


class _Plain(yaml.SafeDumper):
    """Dumps without aliases, which policies do not allow."""

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
    """Returns the valid rule with changes; None removes a key."""
    changed = {**copy.deepcopy(RULE), **changes}
    return {key: value for key, value in changed.items() if value is not None}


def policy(
    *rules: Document,
    name: str = "trial",
    mode: str = "enforce",
    but: Document | None = None,
    **selector: Any,
) -> Document:
    """Returns a document with these rules. `but` is the selector's `except`, a keyword in Python."""
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
    """Returns documents as YAML."""
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False).encode()


def load(*documents: Document) -> PolicySet:
    """Loads documents; raises PolicyError."""
    return load_bytes({"trial.yaml": text(*documents)})
