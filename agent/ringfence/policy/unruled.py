# SPDX-License-Identifier: Apache-2.0
"""Events on which the default pack has no rule, each with the reason.

`ringfence policy check --events` shows the table, and fails if an event has neither a rule nor a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ringfence.abi import EventKind
from ringfence.policy.model import PolicySet
from ringfence.policy.vocabulary import EVENTS

__all__ = ["REASONS", "Coverage", "coverage"]

_K = EventKind
REASONS: Mapping[EventKind, str] = {
    _K.CONTAINER_START: "its owner decides what a container may do; detectors report dangerous ones",
    _K.NET_BIND: "a service listens on any port; the host's ports need the host's network, which was granted",
    _K.SETSOCKOPT: "filters and redirection are ordinary, and the kernel would copy every option's value",
    _K.MODULE_REQUEST: "benign calls cause requests; unknown-helper decides which program the kernel runs",
    _K.SYS_CAPSET: "programs drop capabilities so; it cannot add one that was not permitted",
    _K.SYS_SETUID: "services and login programs do it; the kernel requires the capability",
    _K.SYS_SETGID: "services and login programs do it; the kernel requires the capability",
    _K.SYS_MEMFD_CREATE: "buffers in memory are ordinary; exec-from-memory decides about programs",
    _K.SYS_MKNOD: "FIFOs and sockets are ordinary; device nodes are the event device.access",
    _K.SYS_SPLICE: "proxies do it constantly; optional/hot.yaml has a rule on setuid programs",
    _K.SYS_SYMLINK: "images contain links; log-symlink covers those that the kubelet follows",
    _K.SYS_PERSONALITY: "debuggers and emulators do it; it only affects the caller's own program",
    _K.SYS_SECCOMP: "it only restricts the caller",
    _K.SYS_SETDOMAIN: "it names a UTS namespace; nothing on the host is decided by that name",
}


class Coverage(NamedTuple):
    """One event, the rules on it, and why there are none."""

    event: str
    rules: tuple[str, ...]
    reason: str

    @property
    def blind(self) -> bool:
        """True if the event has neither a rule nor a reason."""
        return not self.rules and not self.reason


def coverage(policies: PolicySet) -> list[Coverage]:
    """Returns all events that rules can name, with the rules of this set."""
    rules: dict[EventKind, list[str]] = {kind: [] for kind in EVENTS}
    for policy in policies.policies:
        for rule in policy.rules:
            for kind in rule.events:
                rules[kind].append(rule.id)
    return [
        Coverage(words.label, tuple(rules[kind]), "" if rules[kind] else REASONS.get(kind, ""))
        for kind, words in EVENTS.items()
    ]
