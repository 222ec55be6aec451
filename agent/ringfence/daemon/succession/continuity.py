# SPDX-License-Identifier: Apache-2.0
"""What outlives this agent, and what it takes over from its predecessor: pins, the rule book, the old
rings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ringfence import log
from ringfence.bpf import pins
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.model import Enrichment
from ringfence.containers.registry import Registry
from ringfence.daemon.startup import handover
from ringfence.daemon.succession.guarded_file import GuardedFile
from ringfence.daemon.succession.takeover import Takeover
from ringfence.daemon.tracking.predecessor_tasks import PredecessorTasks
from ringfence.errors import KernelError
from ringfence.policy import CompiledPolicies, rulebook
from ringfence.policy.install import Generations
from ringfence.policy.rulebook import RuleBook

__all__ = ["Continuity"]


class Continuity:
    """Call in the order of a start: `begin`, then policies and programs, `adopted`; `stop` at an orderly
    end.
    """

    def __init__(
        self, config: Config, kernel: Kernel, generations: Generations, registry: Registry, takeover: Takeover
    ) -> None:
        self._config, self._kernel, self._generations = config, kernel, generations
        self._registry, self.takeover = registry, takeover
        self.base: Path | None = None  # of the pins; None: there are none
        self._book = GuardedFile(config.state_dir / rulebook.FILE, self._write_book)
        self._tickets = GuardedFile(config.state_dir / handover.FILE, self._leave_tickets)
        takeover.on_complete = kernel.mark_complete
        self.problem = ""  # why nothing of ours outlives us, where it should
        self._log = log.get_logger("continuity")

    @property
    def pinned(self) -> bool:
        """Whether all that is attached is pinned."""
        return self._kernel.pins is not None and not self._kernel.pin_failure

    @property
    def outlives(self) -> bool:
        """Whether enforcement continues after an orderly stop of this agent."""
        return self.base is not None and self._config.fail_mode == "closed"

    def begin(self, predecessor: PredecessorTasks) -> None:
        """Before anything is attached: find what an earlier agent left."""
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
        """A node that is defended only while the agent runs is better than one that is not defended."""
        self.base = None
        self.problem = f"nothing can be pinned: {error}"
        self._log.error("nothing can be pinned: enforcement ends with this agent", error=str(error))

    def announce(self, compiled: CompiledPolicies) -> None:
        """Before a set is in force: write down what its rule numbers mean, for the next agent."""
        if self.base is None:
            return
        self._write_book({self._generations.number + 1: compiled.rules})

    def _write_book(self, more: Mapping[int, rulebook.Rules] = MappingProxyType({})) -> None:
        book = RuleBook({**self._generations.remembered, **more})
        try:
            self._book.write(lambda: rulebook.write(self._book.path, book))
        except OSError as error:
            self._log.warning("the next agent will not know the rules of this one", error=str(error))

    def adopted(self) -> None:
        """Everything is attached, and running containers are known: from here on it outlives us."""
        if self.base is not None:
            # First: pins without a ticket would lock the next agent of a pod out.
            self._leave_tickets()
            self._pin(self.base)
        self.takeover.adopted()
        self.answered()

    @property
    def files(self) -> list[GuardedFile]:
        """What the next agent needs, beside the pins."""
        return [self._book, self._tickets]

    def _pin(self, base: Path) -> None:
        try:
            self._kernel.pin(base)
        except OSError:
            # No room, perhaps: what the agent before left makes some. Ours decides by now.
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
        """Policies may select by facts that only runtimes know: until they have answered, the old programs
        stay attached.
        """
        waiting = (container.enrichment is Enrichment.PENDING for container in self._registry)
        if not any(waiting):
            self.takeover.release()

    def stop(self) -> None:
        """What was taken over is told; what is not to outlive us goes."""
        self.takeover.finish()
        if not self.outlives:
            self._kernel.unpin()
