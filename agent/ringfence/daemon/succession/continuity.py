# SPDX-License-Identifier: Apache-2.0
"""Continuity over agents: what stays after this agent (pins, the rule book, tickets), and what it
takes over from its predecessor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from prometheus_client.core import Metric

from ringfence import log
from ringfence.bpf import pins
from ringfence.config import Config
from ringfence.containers.model import Enrichment
from ringfence.containers.registry import Registry
from ringfence.daemon.parts import Loaded
from ringfence.daemon.startup import handover
from ringfence.daemon.succession.guarded_file import GuardedFile
from ringfence.daemon.succession.takeover import Report, Takeover
from ringfence.daemon.tracking.predecessor_tasks import PredecessorTasks
from ringfence.errors import KernelError
from ringfence.export import families
from ringfence.policy import CompiledPolicies, rulebook
from ringfence.policy.rulebook import RuleBook

__all__ = ["Continuity"]


class Continuity:
    """Call in the order of a start: `begin`, then policies and programs, `adopted`; `stop` at an
    orderly end.
    """

    def __init__(self, config: Config, loaded: Loaded, registry: Registry, takeover: Takeover) -> None:
        self._config, self._kernel, self._generations = config, loaded.kernel, loaded.generations
        self._registry, self.takeover = registry, takeover
        self.base: Path | None = None  # of the pins; None: there are none
        self._book = GuardedFile(config.state_dir / rulebook.FILE, self._write_book)
        self._tickets = GuardedFile(config.state_dir / handover.FILE, self._leave_tickets)
        self._problem = ""
        self._log = log.get_logger("continuity")

    @property
    def problem(self) -> str:
        """Why enforcement ends with this agent although it should not; empty: no problem."""
        return self._problem or self._kernel.pin_failure

    def outlives(self, *, restarts: bool) -> bool:
        """Returns True if enforcement continues after an orderly stop of this agent, or as it `restarts`."""
        return self.base is not None and (restarts or self._config.fail_mode == "closed")

    def begin(self, predecessor: PredecessorTasks) -> None:
        """Before anything is attached: find the pins of earlier agents."""
        if self._config.pins == "off":
            return
        places = pins.candidates(self._config.pins)
        try:
            base = self.base = pins.find_base(places)
        except (KernelError, OSError) as error:
            self._unpinned(error)
            base = pins.find_base(places, create=False)
        if base is not None:
            self.takeover.begin(base, rulebook.read(self._book.path))
            predecessor.open(self.takeover.before)
            self.takeover.thin_out()

    def _unpinned(self, error: Exception) -> None:
        """Go on: a node that is defended only while the agent runs is better than an undefended
        one.
        """
        self.base = None
        self._problem = f"nothing can be pinned: {error}"
        self._log.error("nothing can be pinned: enforcement ends with this agent", error=str(error))

    def announce(self, compiled: CompiledPolicies) -> None:
        """Before a set is in force: write the meaning of its rule numbers to disk, for the next
        agent.
        """
        if self.base is None:
            return
        self._write_book({self._generations.number + 1: compiled.rules})

    def _write_book(self, more: Mapping[int, rulebook.Rules] = MappingProxyType({})) -> None:
        book = RuleBook({**self._generations.remembered, **more})
        try:
            self._book.write(lambda: rulebook.write(self._book.path, book))
        except OSError as error:
            self._log.warning("the next agent will not know the rules of this one", error=str(error))

    def adopted(self, report: Report) -> None:
        """Everything is attached, and running containers are known: pin it. `report` gets the
        verdicts from before this agent.
        """
        if self.base is not None:
            # First: pins without a ticket would lock out the next agent of a pod.
            self._leave_tickets()
            self._pin(self.base)
        self.takeover.adopted(report)
        self.answered()

    @property
    def files(self) -> list[GuardedFile]:
        """The files that the next agent needs, besides the pins."""
        return [self._book, self._tickets]

    def _pin(self, base: Path) -> None:
        try:
            self._kernel.pin(base)
        except OSError:
            # Perhaps there was no space: removing the earlier agent's pins makes some. This
            # agent's programs decide already.
            self.takeover.release()
            try:
                self._kernel.pin(base)
            except OSError as error:
                self._unpinned(error)

    def _leave_tickets(self) -> None:
        assert self.base is not None
        pinned, own = pins.PinDirectory.all(self.base), self._kernel.map("tickets")
        try:
            self._tickets.write(lambda: handover.issue(pinned, self._config.state_dir, own))
        except OSError as error:
            self._log.warning("no ticket for the next agent", error=str(error))

    def answered(self) -> None:
        """Remove the old programs once the runtimes have answered: policies may select by facts
        that only they know. In audit mode at once: nothing is enforced, so nothing may be missed.
        """
        waiting = (container.enrichment is Enrichment.PENDING for container in self._registry)
        if self._config.mode == "audit" or not any(waiting):
            self.takeover.release()

    def stop(self, report: Report, *, restarts: bool) -> None:
        """Report what was taken over, and remove the pins unless they are to stay."""
        self.takeover.finish(report)
        if not self.outlives(restarts=restarts):
            self._kernel.unpin()

    def samples(self) -> Iterator[Metric]:
        """Whether all that is attached is pinned, and the records of the earlier agent."""
        pinned = self._kernel.pins is not None and not self._kernel.pin_failure
        yield families.gauge(
            "ringfence_pinned", "1 if the attached programs stay when the agent ends.", {}, pinned
        )
        yield from self.takeover.samples()
