# SPDX-License-Identifier: Apache-2.0
"""An alert: one verdict with the facts needed to judge it: rule, outcome, process and ancestry, container.

It is assembled in the event loop from the facts known at that moment; nothing is looked up. Observed text
remains bytes.
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
    """The outcome of the call."""

    DENIED = "denied"
    KILLED = "killed"
    KILL_FAILED = "kill-failed"
    SEEN = "seen"
    WOULD_DENY = "would-deny"
    WOULD_KILL = "would-kill"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `id` is shared by the alert's record, the log and the resulting kill.

    `rule` None: its generation is already gone (policies changed while the record was in the ring).
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
    suppressed: int = 0  # alerts of this container and rule suppressed before this one
    response: KillResult | None = None

    @property
    def action(self) -> Action:
        """The action that the rule requests; without a rule, the action taken."""
        return self.rule.asked_action if self.rule else Action(self.event.action)

    @property
    def allow(self) -> str:
        """How to allow the call: the rule's location and an exception for it."""
        return allow_text(self.event, self.rule, self.details, self.exe, self.container)

    @property
    def severity(self) -> str:
        """The severity of the rule; high if the rule is no longer known."""
        return severity_of(self.rule)

    @property
    def deduplication_key(self) -> object:
        """The value that repetitions of this alert share."""
        return deduplication_key_of(self.event, self.outcome, self.exe, self.details)

    def answered(self, result: KillResult) -> Alert:
        """Returns this alert with the result of the kill from user space."""
        outcome = Outcome.KILLED if result.ended else Outcome.KILL_FAILED
        return replace(self, response=result, outcome=outcome)


_new_id = AlertIds()


def deduplication_key_of(event: Event, outcome: Outcome, exe: bytes, details: Details) -> object:
    """Returns the value that alerts with the same contents share."""
    compared = tuple((key, str(value)) for key, value in details.items() if key not in ("args", "inode"))
    return (event.event, outcome, exe, compared)


def program_of(event: Event, tree: ProcessTree) -> tuple[bytes, bytes]:
    """Returns path and arguments of the program that made the call; empty: not known."""
    if isinstance(event, ExecEvent):
        return event.path, event.args
    process = tree.find(event.pid, event.start_ns)
    return (process.exe, process.args) if process else (b"", b"")


def is_half_killed(event: Event) -> bool:
    """Returns True if the kernel's program denied the call, and the kill is left to user space."""
    return event.action == Action.KILL and event.mechanism == Mechanism.CGROUP


def severity_of(rule: CompiledRule | None) -> str:
    """Returns the severity of a rule; high if the rule is no longer known."""
    return rule.severity if rule else "high"


def outcome_of(event: Event, rule: CompiledRule | None) -> Outcome:
    """Returns what the kernel did, or in audit mode would have done."""
    if event.action == Action.DENY:
        return Outcome.DENIED
    if event.action == Action.KILL:
        if event.mechanism == Mechanism.CGROUP:
            return Outcome.DENIED  # the kill follows from user space
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
    """Returns the alert of one verdict."""
    exe, args = program_of(event, tree)
    first = container.pid if container else 0
    return Alert(
        id=_new_id(),
        event=event,
        container=container,
        rule=rule,
        outcome=outcome_of(event, rule),
        mechanism=Mechanism(event.mechanism),
        exe=exe,
        args=args,
        ancestry=tuple(tree.ancestry(event.pid, event.start_ns, ppid=event.ppid, first=first)),
        details=describe(event),
        notes=tuple(notes(event)),
        node=node,
        suppressed=suppressed,
    )
