# SPDX-License-Identifier: Apache-2.0
"""One verdict with all that a person needs to judge it: rule, outcome, process and ancestry, container.

Assembled in the event loop from what is known at that moment; nothing is looked up. Observed text stays
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ringfence.abi import FLAG_SIGNAL_FAILED, Action, Mechanism
from ringfence.containers.model import Container
from ringfence.containers.tree import Ancestor, ProcessTree
from ringfence.events import Event, ExecEvent
from ringfence.policy.compiled import CompiledRule
from ringfence.response.allow import allow_text
from ringfence.response.describe import Details, describe, notes
from ringfence.response.ids import AlertIds
from ringfence.response.kill import KillResult

__all__ = [
    "Alert", "Outcome", "assemble", "deduplication_key_of", "is_half_killed", "outcome_of", "program_of",
    "severity_of",
]  # fmt: skip


class Outcome(StrEnum):
    """What became of the call."""

    DENIED = "denied"
    KILLED = "killed"
    KILL_FAILED = "kill-failed"
    SEEN = "seen"
    WOULD_DENY = "would-deny"
    WOULD_KILL = "would-kill"


@dataclass(frozen=True, slots=True)
class Alert:
    """`id` is shared by the alert's line, the log and the kill that follows from it.

    `rule` None: its generation is gone already (policies were changed while the record was on its way).
    """

    id: str
    event: Event
    container: Container | None
    rule: CompiledRule | None
    outcome: Outcome
    mechanism: Mechanism
    exe: bytes
    args: bytes  # NUL separated
    ancestry: tuple[Ancestor, ...]
    details: Details
    notes: tuple[str, ...]
    node: str
    suppressed: int = 0  # alerts of this container and rule that were held back before this one
    response: KillResult | None = None

    @property
    def action(self) -> Action:
        """What the rule asks for; without a rule, what was carried out."""
        return self.rule.asked_action if self.rule else Action(self.event.action)

    @property
    def allow(self) -> str:
        """What would let the call pass: the rule's place and an exception for it."""
        return allow_text(self.event, self.rule, self.details, self.exe, self.container)

    @property
    def severity(self) -> str:
        """Of the rule; a verdict whose rule is not known any more counts as high."""
        return severity_of(self.rule)

    @property
    def deduplication_key(self) -> object:
        """What a repetition of this alert has in common with it (the limiter's `same`)."""
        return deduplication_key_of(self.event, self.outcome, self.exe, self.details)

    def answered(self, result: KillResult) -> Alert:
        """This alert after user space acted on it."""
        outcome = Outcome.KILLED if result.ended else Outcome.KILL_FAILED
        return replace(self, response=result, outcome=outcome)


_new_id = AlertIds()


def deduplication_key_of(event: Event, outcome: Outcome, exe: bytes, details: Details) -> object:
    """What alerts that tell the same have in common."""
    told = tuple((key, str(value)) for key, value in details.items() if key not in ("args", "inode"))
    return (event.event, outcome, exe, told)


def program_of(event: Event, tree: ProcessTree) -> tuple[bytes, bytes]:
    """Path and arguments of the program that made the call; empty: not known."""
    if isinstance(event, ExecEvent):
        return event.path, event.args
    process = tree.find(event.pid, event.start_ns)
    return (process.exe, process.args) if process else (b"", b"")


def is_half_killed(event: Event) -> bool:
    """Whether the kernel's program could only refuse what the rule wants killed."""
    return event.action == Action.KILL and event.mechanism == Mechanism.CGROUP


def severity_of(rule: CompiledRule | None) -> str:
    """A verdict whose rule is not known any more counts as high."""
    return rule.severity if rule else "high"


def outcome_of(event: Event, rule: CompiledRule | None) -> Outcome:
    """The word for what the kernel did, and in audit mode for what it would have done."""
    if event.action == Action.DENY:
        return Outcome.DENIED
    if event.action == Action.KILL:
        if event.mechanism == Mechanism.CGROUP:
            return Outcome.DENIED  # refused; the kill follows from user space
        return Outcome.KILL_FAILED if event.flags & FLAG_SIGNAL_FAILED else Outcome.KILLED
    if rule is not None and rule.mode == "audit":
        would = {Action.DENY: Outcome.WOULD_DENY, Action.KILL: Outcome.WOULD_KILL}
        return would.get(rule.enforced.action, Outcome.SEEN)
    return Outcome.SEEN


def assemble(
    event: Event,
    container: Container | None,
    rule: CompiledRule | None,
    tree: ProcessTree,
    node: str = "",
    *,
    suppressed: int = 0,
) -> Alert:
    """The alert of one verdict."""
    exe, args = program_of(event, tree)
    return Alert(
        id=_new_id(),
        event=event,
        container=container,
        rule=rule,
        outcome=outcome_of(event, rule),
        mechanism=Mechanism(event.mechanism),
        exe=exe,
        args=args,
        ancestry=tuple(tree.ancestry(event.pid, event.start_ns, ppid=event.ppid)),
        details=describe(event),
        notes=tuple(notes(event)),
        node=node,
        suppressed=suppressed,
    )
