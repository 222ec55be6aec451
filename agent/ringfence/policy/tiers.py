# SPDX-License-Identifier: Apache-2.0
"""Tiers: which mechanisms a node has for each event, and the effective action of a rule there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.lsm import DECIDED, decided_by
from ringfence.bpf.preemption import Preemption
from ringfence.bpf.syscalls import kinds_of
from ringfence.policy.model import Condition, Requirement, Rule
from ringfence.policy.operand import Bits, Network, Values
from ringfence.policy.vocabulary import EVENTS

__all__ = ["CGROUP_HOOKS", "NodeTiers", "Outcome", "may_be_unknown"]

_K = EventKind
#: event -> the cgroup-BPF hooks that decide it before its effect; an event needs all of its hooks
CGROUP_HOOKS: Mapping[EventKind, tuple[str, ...]] = {
    _K.DEVICE_ACCESS: ("dev",),
    _K.SYSCTL_ACCESS: ("sysctl",),
    _K.NET_CONNECT: ("connect4", "connect6"),
    _K.NET_BIND: ("bind4", "bind6"),
    _K.NET_SENDMSG: ("sendmsg4", "sendmsg6"),
    _K.UNIX_CONNECT: ("connect_unix",),
    _K.SETSOCKOPT: ("setsockopt",),
}
#: only seen by LSM hooks
_LSM_ONLY = frozenset((_K.FILE_MAP, _K.FILE_RECEIVE, _K.FILE_LINK, _K.HOST_MAP, _K.UEVENT_SEND))


class Outcome(NamedTuple):
    """The effective action of a rule on a node. `why` says what is missing if it is weaker than requested."""

    action: Action
    mechanism: Mechanism
    why: str = ""


@dataclass(frozen=True, slots=True)
class NodeTiers:
    """The mechanisms of a node for each event. An event without any is blind; `why` gives the reason.

    `hooks`: the LSM hooks of events that have them; such an event is decided and observed only there, by
    `hook_mechanism` (LSM, or HOOK). `skips`: why the kernel may skip these programs, or those at calls where
    there are no hooks; empty: it never does; `has_backstop`: then a kprobe kills the caller.
    `addresses`: the node's own addresses; `drivers`: the numbers of its devices by the words of rules.
    """

    mechanisms: Mapping[EventKind, frozenset[Mechanism]]
    why: Mapping[EventKind, str] = field(default_factory=dict)
    hooks: Mapping[EventKind, tuple[str, ...]] = field(default_factory=dict)
    hook_mechanism: Mechanism = Mechanism.LSM
    skips: str = ""
    has_backstop: bool = False
    addresses: frozenset[Network] = frozenset()
    drivers: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def usual(cls) -> NodeTiers:
        """Linux 6.7 or later without BPF-LSM, with all programs attached: what offline checks assume."""
        found = {}
        for kind in EVENTS:
            found[kind] = frozenset(
                (Mechanism.OBSERVE, Mechanism.CGROUP if kind in CGROUP_HOOKS else Mechanism.KILL)
            )
        return cls(found).without(_LSM_ONLY, "only BPF-LSM sees it")

    @classmethod
    def of(cls, node: NodeCapabilities) -> NodeTiers:
        """The tiers of a node with these capabilities."""
        tiers = cls.usual()
        for kind, hooks in CGROUP_HOOKS.items():
            lacking = [name for name in hooks if name not in node.cgroup]
            if lacking:
                tiers = tiers.without((kind,), f"this kernel has no cgroup/{' and no cgroup/'.join(lacking)}")
        seen = kinds_of(node.syscalls)
        unseen = [kind for kind in EVENTS if kind.is_syscall and kind not in seen]
        tiers = tiers.without(unseen, "this kernel has no such system call, or no tracepoint for it")
        if "module_request" not in node.tracing:
            tiers = tiers.without(
                (_K.MODULE_REQUEST,), "this kernel has no tracepoint for it (CONFIG_MODULES)"
            )
        tiers = replace(
            tiers, hook_mechanism=node.hook_mechanism, skips=_skips(node), has_backstop=node.backstop
        )
        return tiers.with_hooks(decided_by(node.lsm_hooks))

    @property
    def tier(self) -> str:
        """The strongest mechanism that decides calls before or as they are made, besides cgroup programs."""
        offered = frozenset[Mechanism]().union(*self.mechanisms.values())
        order = ("lsm", "hook", "kill")
        return next((word for word in order if any(one.label == word for one in offered)), "observe")

    @property
    def when_skipped(self) -> str:
        """What happens to a call whose deciding program is skipped: killed, passes; never: none is."""
        if not self.skips:
            return "never"
        return "killed" if self.has_backstop else "passes"

    def without(self, kinds: Iterable[EventKind], why: str) -> NodeTiers:
        """Returns the same tiers, blind for some events."""
        gone = frozenset(kinds)
        rest = {kind: some for kind, some in self.mechanisms.items() if kind not in gone}
        return replace(self, mechanisms=rest, why={**self.why, **dict.fromkeys(gone, why)})

    def with_mechanism(self, kinds: Iterable[EventKind], mechanism: Mechanism) -> NodeTiers:
        """Returns the same tiers, with an additional mechanism for some events."""
        more = {kind: self.mechanisms.get(kind, frozenset()) | {mechanism} for kind in kinds}
        return replace(
            self,
            mechanisms={**self.mechanisms, **more},
            why={k: w for k, w in self.why.items() if k not in more},
        )

    def with_hooks(self, hooks: Mapping[EventKind, tuple[str, ...]]) -> NodeTiers:
        """Returns the same tiers, with LSM hooks that decide these events."""
        return replace(self.with_mechanism(hooks, self.hook_mechanism), hooks={**self.hooks, **hooks})

    def without_lsm(self, kinds: Iterable[EventKind], why: str) -> NodeTiers:
        """Returns the same tiers, without LSM hooks for these events: their other mechanisms remain."""
        gone = frozenset(kinds)
        weaker = {
            kind: some - {self.hook_mechanism} if kind in gone else some
            for kind, some in self.mechanisms.items()
        }
        blind = {kind: why for kind in gone if not weaker.get(kind)}
        return replace(
            self,
            mechanisms={kind: some for kind, some in weaker.items() if some},
            why={**self.why, **blind},
            hooks={kind: some for kind, some in self.hooks.items() if kind not in gone},
        )

    def has_text(self, kind: EventKind) -> bool:
        """Returns True if the event's string is the kernel's, not read from the caller's memory."""
        return kind in self.hooks and DECIDED[kind].text

    def limits(self, kind: EventKind) -> str:
        """Returns what the strongest mechanism misses although a weaker one would see it, or ""."""
        if kind not in self.hooks:
            return ""
        way = DECIDED[kind]
        lost = [what for hook, what in way.also.items() if what and hook not in self.hooks[kind]]
        absent = f"this kernel lacks hooks, so these are not decided: {', '.join(lost)}" if lost else ""
        return "; ".join(filter(None, (way.less, absent)))

    def outcome_of(self, rule: Rule, kind: EventKind) -> Outcome:
        """Returns the effective action of a rule in mode enforce, on one of its events."""
        if kind not in self.hooks:
            for condition in rule.match[kind]:
                operand = EVENTS[kind].operand(condition.operand)
                if operand and operand.by_hook and not may_be_unknown(condition, operand.dim):
                    if operand.at_exit and self.mechanisms.get(kind):
                        late = {kind: frozenset((Mechanism.OBSERVE, Mechanism.KILL))}
                        return replace(self, mechanisms=late).outcome(kind, rule.action, rule.otherwise)
                    why = f"only BPF-LSM knows `{operand.name}`"
                    return Outcome(Action.NONE, Mechanism.OBSERVE, why)
        return self.outcome(kind, rule.action, rule.otherwise)

    def outcome(self, kind: EventKind, asked: Action, otherwise: Action = Action.KILL) -> Outcome:
        """Returns the effective action in mode enforce, by the strongest available mechanism."""
        here = self.mechanisms.get(kind, frozenset())
        if not here:
            why = self.why.get(kind, "this kernel has no hook that sees it")
            return Outcome(Action.NONE, Mechanism.OBSERVE, why)
        if asked is Action.ALERT:
            return Outcome(Action.ALERT, Mechanism.OBSERVE)
        for mechanism in (Mechanism.LSM, Mechanism.HOOK, Mechanism.CGROUP):
            if mechanism in here:
                return Outcome(asked, mechanism)
        if otherwise is Action.NONE and asked is Action.DENY:
            return Outcome(
                Action.NONE, Mechanism.OBSERVE, "this node cannot deny it, and the rule has `otherwise: skip`"
            )
        if Mechanism.KILL in here and (asked is Action.KILL or otherwise is Action.KILL):
            why = "" if asked is Action.KILL else "this node cannot deny it before its effect"
            return Outcome(Action.KILL, Mechanism.KILL, why)
        if Mechanism.KILL in here:
            return Outcome(
                Action.ALERT,
                Mechanism.OBSERVE,
                "this node cannot deny it, and the rule has `otherwise: alert`",
            )
        return Outcome(Action.ALERT, Mechanism.OBSERVE, "this node can only observe it")

    def lacks_for(self, asked: Requirement, outcome: Outcome) -> str:
        """Returns why an outcome does not satisfy `require`; empty: it does."""
        if asked is Requirement.NOTHING:
            return ""
        if outcome.action is not Action.DENY:
            return outcome.why
        if outcome.mechanism is not Mechanism.HOOK or (
            asked is Requirement.DENY_OR_BACKSTOP and self.has_backstop
        ):
            return ""
        return self.skips


def _skips(node: NodeCapabilities) -> str:
    """Returns why, and what follows, if the kernel may skip programs that deny."""
    if not node.preemption.may_skip or (node.lsm_hooks and not node.hooks_skippable):
        return ""
    unknown = node.preemption is Preemption.UNKNOWN
    model = "may preempt itself: how is unknown" if unknown else f"preempts itself: {node.preemption}"
    if not node.lsm_hooks:
        return (
            f"this kernel {model}, and so may skip the programs at system calls: a call that is repeated "
            "may pass, and `kill` is no boundary. It never skips BPF-LSM (boot with lsm=...,bpf)"
        )
    end = "a backstop kills the caller, and the call may take effect" if node.backstop else "the call passes"
    return (
        f"this kernel {model}, and so may skip the programs at security functions; then {end}. "
        "It never skips BPF-LSM (boot with lsm=...,bpf)"
    )


def may_be_unknown(condition: Condition, dim: int) -> bool:
    """Returns True if a condition holds for an unknown number, which is 0."""
    numbers = (
        [p for p in alternative if p.dim == dim and isinstance(p, (Values, Bits))]
        for alternative in condition.alternatives
    )
    return any(all(predicate.holds(0) for predicate in some) for some in numbers)
