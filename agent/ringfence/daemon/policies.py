# SPDX-License-Identifier: Apache-2.0
"""The policies in force, and how the next ones come: a set that is refused changes nothing.

Reading, compiling and attaching take a while and happen in a thread of their own; only the switch of
generations happens in the loop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ringfence import log
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.model import Container
from ringfence.daemon.watch import Watch
from ringfence.errors import Error, PolicyError
from ringfence.export.escape import escape
from ringfence.export.metrics import PolicyState
from ringfence.export.stats import Stats
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies, load_policies
from ringfence.policy.install import Generations

__all__ = ["PolicyKeeper", "load"]

_LOGGED_PROBLEMS = 20
_LOOK = 1.0  # seconds between two looks at the files
Plan = Callable[..., AttachPlan]  # of one or more compiled sets: what they need together


def load(config: Config, tiers: NodeTiers) -> CompiledPolicies:
    """The configured policies for this node. Raises PolicyError with every problem."""
    mode = None if config.mode == "policy" else config.mode
    return compile_policies(load_policies(config.policies), tiers, mode)


class PolicyKeeper:
    """Owns the generations. `in_loop` hands work to the loop; `facts` gives what is known by slot, in the
    loop."""

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        generations: Generations,
        tiers: NodeTiers,
        stats: Stats,
        plan: Plan,
        in_loop: Callable[[Callable[[], None]], None],
        facts: Callable[[], Mapping[int, Container | None]],
    ) -> None:
        self._config, self._kernel, self._generations, self._tiers = config, kernel, generations, tiers
        self._stats, self._plan, self._in_loop, self._facts = stats, plan, in_loop, facts
        self._watch = Watch(config.policies)
        self._stopping = threading.Event()
        self._busy = False
        self._again = False
        self._log = log.get_logger("policies")
        self.state = PolicyState()

    @property
    def compiled(self) -> CompiledPolicies | None:
        """What is in force."""
        return self._generations.compiled

    def start(self, compiled: CompiledPolicies) -> None:
        """Put the first set in force. Before the loop runs: everything at once."""
        self.prepare(compiled)
        self._install(compiled)

    def prepare(self, *sets: CompiledPolicies) -> None:
        """Have the kernel see every event that these sets ask for."""
        plan = self._plan(*sets)
        self._kernel.configure_syscalls(plan.entry)

    def watch(self) -> None:
        """Look at the files each second, in a thread: a walk over a thousand of them takes milliseconds."""
        threading.Thread(target=self._look, name="policy-watch", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK):
            if self._watch.changed():
                self._in_loop(lambda: self.reload("files changed"))

    def reload(self, why: str) -> None:
        """Read everything again, in a thread."""
        if self._busy:
            self._again = True
            return
        self._busy = True
        self._log.info("reading policies", why=why)
        threading.Thread(target=self._read, name="policies", daemon=True).start()

    def _read(self) -> None:
        try:
            compiled = load(self._config, self._tiers)
            old = self.compiled
            # First everything that either set asks for, then the switch, then what nobody asks for goes.
            both = self._plan(*([old] if old else []), compiled)
            self._kernel.configure_syscalls(both.entry)
            self._kernel.attach(both)
        except PolicyError as error:
            problems = [str(problem) for problem in error.problems]
            self._in_loop(lambda: self._refuse(problems))
        except (Error, OSError) as error:
            text = str(error)
            self._in_loop(lambda: self._refuse([text]))
        except Exception as error:  # a bug: the running set stays, and somebody must hear of it
            text = f"internal error: {type(error).__name__}: {error}"
            self._in_loop(lambda: self._refuse([text]))
        else:
            self._in_loop(lambda: self._switch(compiled))

    def _refuse(self, problems: Sequence[str]) -> None:
        self._stats.reloads["refused"] += 1
        shown = [escape(problem) for problem in problems]
        self.state = self.state._replace(refused=tuple(shown))
        self._log.error(
            "policies refused; those before stay in force",
            generation=self.state.generation,
            problems=shown[:_LOGGED_PROBLEMS],
            count=len(shown),
        )
        self._done()

    def _switch(self, compiled: CompiledPolicies) -> None:
        try:
            self._install(compiled)
        except OSError as error:
            self._refuse([f"the kernel refused the tables: {error}"])
            return
        threading.Thread(target=self._tidy, args=(compiled,), name="policies", daemon=True).start()

    def _tidy(self, compiled: CompiledPolicies) -> None:
        try:
            plan = self._plan(compiled)
            self._kernel.attach(plan)
            self._kernel.configure_syscalls(plan.entry)
        except (Error, OSError) as error:
            self._log.warning("programs that no policy needs stay attached", error=str(error))
        finally:
            self._in_loop(self._done)

    def _done(self) -> None:
        self._busy = False
        if self._again:
            self._again = False
            self.reload("files changed meanwhile")

    def _install(self, compiled: CompiledPolicies) -> None:
        number = self._generations.install(compiled, self._facts())
        self._stats.reloads["loaded"] += 1
        # A rule may have several numbers: what it comes to counts once.
        outcomes = {(rule.rule_id, rule.action, rule.mechanism) for rule in compiled.rules.values()}
        counts = Counter((action.label, mechanism.label) for _, action, mechanism in outcomes)
        self.state = PolicyState(number, len(compiled.policies.policies), counts, (), time.time())
        self._log.info(
            "policies in force",
            generation=number,
            policies=len(compiled.policies.policies),
            rules=compiled.policies.rules,
            less_than_asked=len(compiled.shortfalls),
        )
