# SPDX-License-Identifier: Apache-2.0
"""The ladder: which mechanisms this node has for each event, and what becomes of a rule's action there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.lsm import DECIDED, decided_by
from ringfence.bpf.syscalls import kinds_of
from ringfence.policy.model import Condition, Rule
from ringfence.policy.operand import Bits, Network, Values
from ringfence.policy.vocabulary import EVENTS

__all__ = ["NodeTiers", "Outcome", "may_be_unknown"]

_K = EventKind
#: decided by cgroup-BPF programs, before the effect
_CGROUP = frozenset(
    (
        _K.DEVICE_ACCESS,
        _K.SYSCTL_ACCESS,
        _K.NET_CONNECT,
        _K.NET_BIND,
        _K.NET_SENDMSG,
        _K.UNIX_CONNECT,
        _K.SETSOCKOPT,
    )
)
#: seen by LSM hooks alone
_LSM_ONLY = frozenset((_K.FILE_MAP, _K.FILE_RECEIVE, _K.FILE_LINK, _K.HOST_MAP))
_ATTACHES = {
    ("dev",): _K.DEVICE_ACCESS,
    ("sysctl",): _K.SYSCTL_ACCESS,
    ("connect4", "connect6"): _K.NET_CONNECT,
    ("bind4", "bind6"): _K.NET_BIND,
    ("sendmsg4", "sendmsg6"): _K.NET_SENDMSG,
    ("connect_unix",): _K.UNIX_CONNECT,
    ("setsockopt",): _K.SETSOCKOPT,
}


class Outcome(NamedTuple):
    """What a rule results in on a node. `why` says what is missing, where it is less than was asked."""

    action: Action
    mechanism: Mechanism
    why: str = ""


@dataclass(frozen=True, slots=True)
class NodeTiers:
    """Event -> the mechanisms that this node has for it. An event without any is blind; `why` says why.

    `hooks` are the LSM hooks of the events that have them, which decide alone: these events are seen nowhere
    else. `addresses` are the node's own.
    """

    mechanisms: Mapping[EventKind, frozenset[Mechanism]]
    why: Mapping[EventKind, str] = field(default_factory=dict)
    hooks: Mapping[EventKind, tuple[str, ...]] = field(default_factory=dict)
    addresses: frozenset[Network] = frozenset()

    @classmethod
    def usual(cls) -> NodeTiers:
        """A kernel of 6.7 or later without BPF-LSM, everything attached: what offline checks assume."""
        found = {}
        for kind in EVENTS:
            found[kind] = frozenset(
                (Mechanism.OBSERVE, Mechanism.CGROUP if kind in _CGROUP else Mechanism.KILL)
            )
        return cls(found).without(_LSM_ONLY, "only BPF-LSM sees it")

    @classmethod
    def of(cls, node: NodeCapabilities) -> NodeTiers:
        """What a node offers."""
        tiers = cls.usual()
        for attaches, kind in _ATTACHES.items():
            lacking = [name for name in attaches if name not in node.cgroup]
            if lacking:
                tiers = tiers.without((kind,), f"this kernel has no cgroup/{' and no cgroup/'.join(lacking)}")
        seen = kinds_of(node.syscalls)
        unseen = [kind for kind in EVENTS if kind.is_syscall and kind not in seen]
        tiers = tiers.without(unseen, "this kernel has no such call, or no tracepoint for it")
        if "module_request" not in node.tracing:
            tiers = tiers.without(
                (_K.MODULE_REQUEST,), "this kernel has no tracepoint for it (CONFIG_MODULES)"
            )
        return tiers.with_hooks(decided_by(node.lsm_hooks))

    def without(self, kinds: Iterable[EventKind], why: str) -> NodeTiers:
        """The same node, blind for some events."""
        gone = frozenset(kinds)
        rest = {kind: some for kind, some in self.mechanisms.items() if kind not in gone}
        return replace(self, mechanisms=rest, why={**self.why, **dict.fromkeys(gone, why)})

    def with_mechanism(self, kinds: Iterable[EventKind], mechanism: Mechanism) -> NodeTiers:
        """The same node, with one mechanism more for some events."""
        more = {kind: self.mechanisms.get(kind, frozenset()) | {mechanism} for kind in kinds}
        return replace(
            self,
            mechanisms={**self.mechanisms, **more},
            why={k: w for k, w in self.why.items() if k not in more},
        )

    def with_hooks(self, hooks: Mapping[EventKind, tuple[str, ...]]) -> NodeTiers:
        """The same node, where LSM hooks decide these events."""
        return replace(self.with_mechanism(hooks, Mechanism.LSM), hooks={**self.hooks, **hooks})

    def without_lsm(self, kinds: Iterable[EventKind], why: str) -> NodeTiers:
        """The same node, without LSM hooks for these events: what it has else for them holds."""
        gone = frozenset(kinds)
        weaker = {
            kind: some - {Mechanism.LSM} if kind in gone else some for kind, some in self.mechanisms.items()
        }
        blind = {kind: why for kind in gone if not weaker.get(kind)}
        return replace(
            self,
            mechanisms={kind: some for kind, some in weaker.items() if some},
            why={**self.why, **blind},
            hooks={kind: some for kind, some in self.hooks.items() if kind not in gone},
        )

    def has_text(self, kind: EventKind) -> bool:
        """Whether the event's string is the kernel's own here, and not read from the caller's memory."""
        return kind in self.hooks and DECIDED[kind].text

    def limits(self, kind: EventKind) -> str:
        """What the strongest mechanism does not see that a weaker one would; empty: nothing."""
        if kind not in self.hooks:
            return ""
        way = DECIDED[kind]
        lost = [what for hook, what in way.also.items() if what and hook not in self.hooks[kind]]
        absent = (
            f"this kernel has no hook for some of it, which is not decided: {', '.join(lost)}" if lost else ""
        )
        return "; ".join(filter(None, (way.less, absent)))

    def outcome_of(self, rule: Rule, kind: EventKind) -> Outcome:
        """What a rule results in under enforcement, on one of its events."""
        if kind not in self.hooks:
            for condition in rule.match[kind]:
                operand = EVENTS[kind].operand(condition.operand)
                if operand and operand.by_hook and not may_be_unknown(condition, operand.dim):
                    why = f"what `{operand.name}` asks is known to BPF-LSM alone"
                    return Outcome(Action.NONE, Mechanism.OBSERVE, why)
        return self.outcome(kind, rule.action, rule.otherwise)

    def outcome(self, kind: EventKind, asked: Action, otherwise: Action = Action.KILL) -> Outcome:
        """What an action results in under enforcement: the strongest mechanism available."""
        here = self.mechanisms.get(kind, frozenset())
        if not here:
            why = self.why.get(kind, "this kernel has no place to see it")
            return Outcome(Action.NONE, Mechanism.OBSERVE, why)
        if asked is Action.ALERT:
            return Outcome(Action.ALERT, Mechanism.OBSERVE)
        for mechanism in (Mechanism.LSM, Mechanism.CGROUP):
            if mechanism in here:
                return Outcome(asked, mechanism)
        if otherwise is Action.NONE and asked is Action.DENY:
            return Outcome(
                Action.NONE, Mechanism.OBSERVE, "nothing here denies it, and the rule says to skip it then"
            )
        if Mechanism.KILL in here and (asked is Action.KILL or otherwise is Action.KILL):
            why = "" if asked is Action.KILL else "nothing here denies it before its effect"
            return Outcome(Action.KILL, Mechanism.KILL, why)
        if Mechanism.KILL in here:
            return Outcome(
                Action.ALERT, Mechanism.OBSERVE, "nothing here denies it, and the rule says not to kill"
            )
        return Outcome(Action.ALERT, Mechanism.OBSERVE, "it is only seen here")


def may_be_unknown(condition: Condition, dim: int) -> bool:
    """Whether a condition holds where its number is not known, which is 0."""
    numbers = (
        [p for p in alternative if p.dim == dim and isinstance(p, (Values, Bits))]
        for alternative in condition.alternatives
    )
    return any(all(predicate.holds(0) for predicate in some) for some in numbers)
