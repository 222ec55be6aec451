# SPDX-License-Identifier: Apache-2.0
"""The policies in force, and the change to the next set. A set that is refused changes nothing.

Reading, compiling and attaching take long and happen in a thread; only the switch of generations
happens in the loop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from prometheus_client.core import Metric

from ringfence import log
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.config import Config
from ringfence.containers.host_addresses import Addresses, node_addresses
from ringfence.containers.model import Container
from ringfence.daemon.attach.plan import Planner, tiers_of
from ringfence.daemon.delivery.alert_counters import make_series
from ringfence.daemon.parts import Loaded
from ringfence.daemon.policies.container_policies import ContainerPolicies, PolicyFile
from ringfence.daemon.policies.file_watch import FileWatch
from ringfence.daemon.policies.last_good import FirstSet, LastGood
from ringfence.errors import Error, PolicyError
from ringfence.export import families
from ringfence.export.escape import escape
from ringfence.export.families import PolicyState
from ringfence.export.node_facts import node_info
from ringfence.export.stats import Stats
from ringfence.faults import SupervisedThread
from ringfence.policy import CompiledPolicies, NodeTiers, PolicySet, compile_policies, load_policies
from ringfence.policy.drivers import Drivers, node_drivers
from ringfence.policy.probe_rules import ProbeWords
from ringfence.policy.review import refuse

__all__ = ["PolicyFiles", "PolicyManager", "load", "probe_words"]

_LOGGED_PROBLEMS = 20
_LOOK = 1.0  # seconds between two looks at the files


def load(config: Config, tiers: NodeTiers) -> CompiledPolicies:
    """The configured policies for this node. Raises PolicyError with every problem."""
    return _compiled(load_policies(config.policies, probe_words(config)), config, tiers)


def load_first(config: Config, tiers: NodeTiers) -> FirstSet:
    """The same at the start of an agent; if they are refused, the last good set of this node."""
    kept = LastGood(config.policies_kept)
    return kept.first(
        partial(load, config, tiers), lambda base: _compiled(base, config, tiers), probe_words(config)
    )


def _compiled(policies: PolicySet, config: Config, tiers: NodeTiers) -> CompiledPolicies:
    here = replace(tiers, addresses=node_addresses(), drivers=node_drivers())
    compiled = compile_policies(policies, here, config.mode)
    refuse(policies)
    return compiled


def probe_words(config: Config) -> Mapping[str, ProbeWords]:
    """The vocabulary of the custom probes, as their files are now."""
    if config.probes_directory is None:
        return {}
    from ringfence.probes.read import read_directory  # only where there are probes

    return read_directory(config.probes_directory).words()


class PolicyFiles:
    """The configured policy files. Made before the first set is read, so that no later change is
    missed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._watch = FileWatch(config.policies)

    def read(self) -> PolicySet:
        """The policies of the files as they are now. Raises PolicyError with every problem."""
        return load_policies(self.config.policies, probe_words(self.config))

    def changed(self) -> bool:
        """Returns True once for every change of the files."""
        return self._watch.changed()


class PolicyManager:
    """Owns the generations."""

    def __init__(
        self,
        files: PolicyFiles,
        loaded: Loaded,
        planner: Planner,
        stats: Stats,
        in_loop: Callable[[Callable[[], None]], bool],
        facts: Callable[[], Mapping[int, Container | None]],
        announce: Callable[[CompiledPolicies], None],
    ) -> None:
        """`in_loop` hands work to the loop. `facts` gives the known facts by slot, in the loop.
        `announce` is called with a set before it is in force.
        """
        self._files, self._config = files, files.config
        self._kernel, self._generations, self._planner = loaded.kernel, loaded.generations, planner
        self._stats, self._in_loop, self._facts, self._announce = stats, in_loop, facts, announce
        self._addresses, self._drivers = Addresses(), Drivers()
        self._stopping = threading.Event()
        self._base = PolicySet(())  # what the files hold; the containers' own policies come on top
        self._container_policies = ContainerPolicies()
        self._busy = False
        self._again = False
        self._retry = False  # an attempt failed because no thread could be started
        self._log = log.get_logger("policies")
        self.state = PolicyState()

    @property
    def compiled(self) -> CompiledPolicies | None:
        """The set in force."""
        return self._generations.compiled

    def samples(self) -> Iterator[Metric]:
        """The set in force, the attempts to change it, and containers' policy files that wait."""
        yield from families.policies(self.state, self._stats.reloads)
        config, tiers = self._config, self._planner.tiers
        yield node_info(config.node_name, tiers.tier, tiers.when_skipped, config.mode, self.state.digest)
        yield from families.capacity("container_policies", self._container_policies.capacity)

    def start(self, compiled: CompiledPolicies, problems: Sequence[str] = ()) -> None:
        """Put the first set in force. Before the loop runs, so all steps happen at once.

        `problems`: those of the files, if this is the last good set and not theirs.
        """
        self._base = compiled.policies
        self.prepare(compiled)
        self._announce(compiled)
        self._install(compiled)
        self.state = self.state._replace(refused=tuple(problems))
        if not problems:
            self._keep()

    def prepare(self, *sets: CompiledPolicies) -> None:
        """Set up the system calls that these sets need."""
        plan = self._planner.plan(*sets)
        self._kernel.configure_syscalls(plan.entry, plan.hooked, plan.guarded)

    def watch(self) -> None:
        """Look at the files each second, in a thread: a walk over a thousand of them takes
        milliseconds.
        """
        SupervisedThread("policy-watch", self._look).start()

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK):
            if self._retry:
                self._retry = False
                self._in_loop(lambda: self.reload("the last attempt could not begin"))
            elif self._files.changed():
                self._in_loop(lambda: self.reload("files changed"))
            elif self._addresses.changed() and self._base.names_node:
                self._in_loop(lambda: self.reload("the node's addresses changed"))
            elif self._drivers.changed() and self._base.names_drivers:
                self._in_loop(lambda: self.reload("the node's device drivers changed"))

    def refused_with(self, capabilities: NodeCapabilities) -> list[str]:
        """The problems of the files' policies on a node with these capabilities; in the loop."""
        sections = [program.section for program in self._kernel.programs]
        try:
            _compiled(self._base, self._config, tiers_of(capabilities, sections))
        except PolicyError as error:
            return [str(problem) for problem in error.problems]
        return []

    def reload(self, why: str) -> None:
        """Read all files again, in a thread."""
        if self._busy:
            self._again = True
            return
        self._busy = True
        self._log.info("reading policies", why=why)
        kept = self._container_policies.kept(self._facts().values())

        def read() -> None:
            self._read(kept)

        self._in_thread(read, self._put_off)

    def reattach(self) -> None:
        """Attach what was detached, in a thread."""
        compiled = self.compiled
        if self._busy or compiled is None:
            self._again = True  # the reload attaches it
            return
        self._busy = True
        self._in_thread(lambda: self._tidy(compiled, self._put_off), self._put_off)

    def _in_thread(self, work: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Call `failed` with the reason if no thread can be started (a fork bomb fills the node).
        That must cost this attempt only, not all after it.
        """
        try:
            threading.Thread(target=work, name="policies", daemon=True).start()
        except RuntimeError as error:
            failed(str(error))

    def _put_off(self, problem: str) -> None:
        self._retry = True
        self._refuse([f"they cannot be put in force now: {problem}"])

    def _hand_over(self, work: Callable[[], None]) -> None:
        """Hand work to the loop, from a thread. Waits while the loop accepts no more."""
        while not self._in_loop(work) and not self._stopping.wait(_LOOK):
            pass

    def add(self, name: str, data: bytes, done: Callable[[str, str], None]) -> None:
        """Put the policies of a file in force for the containers that choose it; in the loop.

        `done(key, problem)` is called in the loop with the key by which a container chooses the
        policies, or with a problem.
        """
        file = PolicyFile(name, data, done)
        # The set that is being made now may be without it, so the file is taken after that.
        self._container_policies.wait(file)
        self._next_file()

    def _next_file(self) -> None:
        if self._busy or not (file := self._container_policies.next()):
            return
        self._busy = True
        kept = self._container_policies.kept(self._facts().values())

        def read() -> None:
            self._read_file(file, kept)

        self._in_thread(read, lambda problem: self._reject(file, problem))

    def _read_file(self, file: PolicyFile, kept: PolicySet) -> None:
        """In a thread. The configured files stay as they were read last: a mistake in one of them
        must not refuse this file.
        """
        try:
            both = PolicySet((*self._base.policies, *kept.policies, *file.read()))
            compiled = self._compile(both)
        except (Error, OSError) as error:
            text = error.message if isinstance(error, Error) else str(error)
            self._hand_over(lambda: self._reject(file, text))
        except Exception as error:  # a bug: the container does not start, the running set stays
            text = f"internal error: {type(error).__name__}: {error}"
            self._hand_over(lambda: self._reject(file, text))
        else:
            self._hand_over(lambda: self._admit(file, compiled))

    def _reject(self, file: PolicyFile, problem: str) -> None:
        self._log.warning("the policy file of a container is refused", file=escape(file.name))
        file.done("", problem)
        self._done()

    def _admit(self, file: PolicyFile, compiled: CompiledPolicies) -> None:
        if self._switch(compiled):
            file.done(file.key, "")
        else:
            file.done("", "the kernel refused the tables")

    def _compile(self, policies: PolicySet) -> CompiledPolicies:
        """For this node, with every program attached that the old set or the new one needs."""
        here = replace(self._planner.tiers, addresses=self._addresses.now, drivers=self._drivers.now)
        compiled = compile_policies(policies, here, self._config.mode)
        refuse(policies)
        old = self.compiled
        # First attach what either set needs, then switch, then detach what the new set does not
        # need.
        both = self._planner.plan(*([old] if old else []), compiled)
        self._kernel.configure_syscalls(both.entry, both.hooked, both.guarded)
        self._kernel.attach(both)
        self._announce(compiled)
        return compiled

    def _read(self, kept: PolicySet) -> None:
        try:
            base = self._files.read()
            compiled = self._compile(PolicySet((*base.policies, *kept.policies)))
        except PolicyError as error:
            problems = [str(problem) for problem in error.problems]
            self._hand_over(lambda: self._refuse(problems))
        except (Error, OSError) as error:
            text = str(error)
            self._hand_over(lambda: self._refuse([text]))
        except Exception as error:  # a bug: the running set stays, and the log says so
            text = f"internal error: {type(error).__name__}: {error}"
            self._hand_over(lambda: self._refuse([text]))
        else:
            self._hand_over(lambda: self._replace(base, compiled))

    def _replace(self, base: PolicySet, compiled: CompiledPolicies) -> None:
        before, self._base = self._base, base
        if self._switch(compiled):
            self._keep()
        else:
            self._base = before

    def _keep(self) -> None:
        """Keeps the files for a start with broken ones. In a thread: the disk may be slow."""
        digest, config = self._base.digest, self._config
        if config.policies_kept:
            kept = LastGood(config.policies_kept)
            self._in_thread(lambda: kept.keep(config.policies, digest, probe_words(config)), self._unkept)

    def _unkept(self, problem: str) -> None:
        self._log.warning("the policies cannot be kept for the next start", error=problem)

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

    def _switch(self, compiled: CompiledPolicies) -> bool:
        try:
            self._install(compiled)
        except OSError as error:
            self._refuse([f"the kernel refused the tables: {error}"])
            return False
        except Exception as error:  # a bug: a caller that waits for this attempt must not wait for ever
            self._refuse([f"internal error: {type(error).__name__}: {error}"])
            return False
        self._in_thread(lambda: self._tidy(compiled, self._untidied), self._untidied)
        return True

    def _untidied(self, problem: str) -> None:
        self._log.warning("programs that no policy needs stay attached", error=problem)
        self._done()

    def _tidy(self, compiled: CompiledPolicies, failed: Callable[[str], None]) -> None:
        """Attach what this set needs, and nothing else. In a thread; one of `failed` and `_done`
        follows, in the loop.
        """
        after: Callable[[], None] = self._done
        try:
            plan = self._planner.plan(compiled)
            self._kernel.attach(plan)
            self._kernel.configure_syscalls(plan.entry, plan.hooked, plan.guarded)
        except (Error, OSError) as error:
            after = partial(failed, str(error))
        finally:
            self._hand_over(after)

    def _done(self) -> None:
        self._busy = False
        if self._again:
            self._again = False
            self.reload("files changed meanwhile")
        self._next_file()

    def _install(self, compiled: CompiledPolicies) -> None:
        number = self._generations.install(compiled, self._facts())
        make_series(self._stats, compiled, self._config.mode, self._config.detectors_off)
        self._container_policies.settle(compiled.policies)
        self._stats.reloads["loaded"] += 1
        # A rule may have several numbers: each effective action of it counts once.
        outcomes = {(rule.rule_id, rule.action, rule.mechanism) for rule in compiled.rules.values()}
        counts = Counter((action.label, mechanism.label) for _, action, mechanism in outcomes)
        counts.update(
            (rule.action.label, "observe") for p in compiled.policies.policies for rule in p.probe_rules
        )
        counts.update([("none", "none")] * len(compiled.blind))
        count = len(compiled.policies.policies)
        self.state = PolicyState(number, count, counts, (), time.time(), self._base.digest)
        self._log.info(
            "policies in force",
            generation=number,
            digest=self._base.digest,
            policies=count,
            rules=compiled.policies.rules,
            less_than_asked=len(compiled.shortfalls),
            blind=[one.rule.id for one in compiled.blind],
        )
