# SPDX-License-Identifier: Apache-2.0
"""The facade of the kernel side: load, configure, attach, read, close.

RLIMIT_MEMLOCK is not raised: since 5.11 the kernel charges BPF memory to the cgroup, and every
supported kernel is newer.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import (
    ADOPT_ENTERS,
    ADOPT_NO_MEMORY,
    ADOPT_WAITS,
    GUARD_DENY,
    MAPS,
    OBSERVE_OFF,
    PATTERN,
    PATTERN_LEN,
    PATTERNS,
    EventKind,
    Mechanism,
)
from ringfence.bpf import _libbpf, _syscalls, syscalls
from ringfence.bpf.attach import (
    NARROW_CALL,
    Attached,
    AttachPlan,
    Skipped,
    attach_all,
    detach,
    places,
    run_iterator,
)
from ringfence.bpf.capabilities import CGROUP_ATTACHES, TRACEPOINTS
from ringfence.bpf.losses import Losses
from ringfence.bpf.lsm import VOID_HOOKS, function_of, hook_program
from ringfence.bpf.maps import Map
from ringfence.bpf.objects import Loaded, ObjectFile, Program, explain, load_error
from ringfence.bpf.pins import PinDirectory, find_base
from ringfence.bpf.program_stats import ProgramStat, stat_of
from ringfence.bpf.ring import Ring
from ringfence.bpf.settings import DEFAULT_OBJECT, KernelSettings
from ringfence.bpf.skipped_decisions import skipped_decisions
from ringfence.bpf.writer import PROGRAM, UNSEALED, WRITTEN, Writer
from ringfence.errors import ConfigError, KernelError

__all__ = [
    "DEFAULT_OBJECT",
    "Adopted",
    "AdoptionRound",
    "Kernel",
    "KernelSettings",
    "Pattern",
    "ProgramStat",
]

#: programs of the self-defence that are not needed with LSM hooks
_GUARDS_CALLS = ("tp_btf/signal_generate", "tracepoint/syscalls/sys_exit")
#: cgroup programs in sections that libbpf may not know
_SET_BY_HAND = frozenset(("connect_unix", "sendmsg_unix", "egress"))
#: programs that an older kernel may lack or refuse; the others are required
_OPTIONAL = (
    "cgroup/connect_unix", "cgroup/sendmsg_unix", "tp_btf/cap_capable", "tp_btf/sys_enter", "tp_btf/sys_exit",
    "tracepoint/sched/sched_process_exec", "tracepoint/task/task_newtask",
)  # fmt: skip


class Pattern(NamedTuple):
    """Names of container cgroups: `prefix`, followed by `kind` (PATTERN_HEX64, PATTERN_ANY)."""

    kind: int
    prefix: bytes


class Adopted(NamedTuple):
    """A task that ran before the agent, and is now armed."""

    pid: int
    tid: int
    slot: int


class AdoptionRound(NamedTuple):
    """What one run of the task iterator found.

    `bound`: tasks that are now armed. The others are numbers of tasks in containers that are not armed:
    `waiting` ones soon will be, `entering` ones may be a runtime that prepares a container, and there was
    no memory for those that `failed`.
    """

    bound: list[Adopted]
    waiting: int = 0
    entering: int = 0
    failed: int = 0


class Kernel:
    """Loaded programs and their maps. Create it with `load`; `close` ends everything that is not pinned."""

    def __init__(self, loaded: Loaded, missing: list[Skipped], settings: KernelSettings) -> None:
        self._loaded, self._defended = loaded, settings.guard == GUARD_DENY
        self._hook_mechanism = settings.hook_mechanism
        self._links: dict[tuple[str, str], Attached] = {}
        self._statistics = -1
        self._pins: PinDirectory | None = None
        #: held while links and pins change, which the policies' thread does
        self.changing = threading.RLock()
        self._complete = False  # True if earlier agents' pins are no longer needed
        self.pin_failure = ""  # why some links are not pinned; empty: all are
        self._missing = missing
        self.skipped: list[Skipped] = list(missing)
        self.losses = Losses(self.map("drops"), self.map("drops_unnamed"))
        self.alerts = self._ring("alerts")
        self.activity = self._ring("activity")

    @classmethod
    def load(cls, settings: KernelSettings) -> Kernel:
        """Loads the object, sized and configured. KernelError has the refused program and the reason."""
        missing: list[Skipped] = []
        explained = False
        while True:
            with ObjectFile(settings.object_path, explained=explained) as file:
                sections = file.sections()
                _prepare(file, settings, missing)
                try:
                    loaded = file.load()
                except OSError as error:
                    if not explained:  # load again with messages, for the reason
                        explained = True
                        continue
                    failure = load_error(error)
                    refused = [
                        name for name in explain(failure.log)[0] if _is_optional(sections.get(name, ""))
                    ]
                    if not refused or any(skip.program == refused[0] for skip in missing):
                        raise failure from None
                    missing.append(Skipped(refused[0], sections[refused[0]], "the kernel refused it"))
                    continue
            try:
                _check_shapes(loaded)
                if settings.sealed or settings.agent_pid == os.getpid():  # it writes for the agent alone
                    _write_by_program(loaded, sealed=settings.sealed)
                return cls(loaded, missing, settings)
            except BaseException:
                loaded.close()
                raise

    def map(self, name: str) -> Map:
        """Returns a map of probes/maps.bpf.c, owned by the Kernel."""
        return self._loaded.maps[name]

    @property
    def maps(self) -> list[Map]:
        """All maps."""
        return list(self._loaded.maps.values())

    @property
    def attached(self) -> list[Attached]:
        """The current links."""
        return list(self._links.values())

    @property
    def programs(self) -> list[Program]:
        return list(self._loaded.programs.values())

    def configure_syscalls(
        self, names: Iterable[str], hooked: Iterable[str] = (), watched: Iterable[str] = ()
    ) -> None:
        """Sets the calls (names of ringfence.bpf.syscalls) that are events: at entry or, `hooked`, LSM hooks.

        All others are not events. The self-defence checks `watched` (names of ringfence.bpf.guard_calls),
        events or not.
        """
        table = self.map("syscalls")
        entries = syscalls.entries(names, hooked=hooked, guarded=watched)
        wanted = {number.to_bytes(4, "little"): value for number, value in entries}
        empty = bytes(table.value_size)
        stale = {key: empty for key, value in table.items() if any(value) and key not in wanted}
        table.update_batch(wanted | stale)

    @property
    def guarding(self) -> str:
        """The mechanism of the self-defence: `lsm`, `hook`, or `calls`; empty: it is off."""
        if "guard_register" not in self._loaded.programs:
            return ""
        return "calls" if "guard_signal_generate" in self._loaded.programs else self._hook_mechanism.label

    def configure_patterns(self, patterns: Iterable[Pattern]) -> None:
        """Sets the cgroups that are containers. ConfigError: too many patterns, or one is too long."""
        packed = [_pack_pattern(pattern) for pattern in patterns]
        if len(packed) > PATTERNS:
            raise ConfigError(f"{len(packed)} cgroup patterns, but the maximum is {PATTERNS}")
        table = self.map("patterns")
        packed += [bytes(PATTERN.size)] * (PATTERNS - len(packed))
        table.update_batch({index.to_bytes(4, "little"): value for index, value in enumerate(packed)})

    def set_observe(self, kind: EventKind, level: int) -> None:
        """Sets OBSERVE_OFF, OBSERVE_ACTIVITY or OBSERVE_ALERTS for events that no rule matched."""
        self.map("observe").set(int(kind), level)

    def observe_only(self, levels: Mapping[EventKind, int]) -> None:
        """Does `set_observe` for every kind of event; OBSERVE_OFF for those not in `levels`."""
        wanted = {int(kind): levels.get(kind, OBSERVE_OFF) for kind in EventKind}
        table = self.map("observe")
        table.update_batch(
            {kind.to_bytes(4, "little"): level.to_bytes(4, "little") for kind, level in wanted.items()}
        )

    def attach(self, plan: AttachPlan) -> list[Attached]:
        """Attaches new places of the plan, and detaches those no longer in it.

        Returns the new links. `skipped` lists places that this kernel lacks. On failure nothing has
        changed, and KernelError names the place.
        """
        wanted = list(places(self.programs, plan))
        fresh = [place for place in wanted if (place.program.name, place.target) not in self._links]
        new: list[Attached] = []
        skipped = list(self._missing)
        try:
            for result in attach_all(fresh, plan.cgroup_path):
                if isinstance(result, Attached):
                    new.append(result)
                else:
                    skipped.append(result)
        except OSError as error:
            detach(link.fd for link in new)
            raise KernelError(f"attaching failed: {error.strerror} ({error.filename})") from None
        keep = {(place.program.name, place.target) for place in wanted}
        with self.changing:
            gone = [link for key, link in self._links.items() if key not in keep]
            self._links = {key: link for key, link in self._links.items() if key in keep}
            self._links |= {(link.program, link.target): link for link in new}
            detach(link.fd for link in gone)
            self.skipped = skipped
            if self._pins is not None and (new or gone):
                self._pin_again(self._pins.path.parent)
        return new

    def _pin_again(self, base: Path) -> None:
        """Pins again; on failure unpinned programs still decide, and earlier pins stay."""
        try:
            self.pin(base)
        except OSError as error:
            self.pin_failure = f"the most recently attached programs are not pinned: {error}"

    def adopt(self) -> AdoptionRound:
        """Runs the task iterator once: running tasks in enrolled cgroups become armed."""
        output = [run_iterator(program) for program in self.programs if program.name == "adopt"]
        found = [Adopted(*map(int, line.split())) for line in b"".join(output).splitlines()]
        why = Counter(one.slot for one in found)
        bound = [one for one in found if one.slot < ADOPT_NO_MEMORY]
        return AdoptionRound(bound, why[ADOPT_WAITS], why[ADOPT_ENTERS], why[ADOPT_NO_MEMORY])

    def keep_statistics(self, *, on: bool) -> None:
        """Enables the kernel's timing of all BPF programs of the node, for about 20 ns per run."""
        if on and self._statistics < 0:
            self._statistics = _libbpf.enable_stats()
        elif not on and self._statistics >= 0:
            os.close(self._statistics)
            self._statistics = -1

    def program_stats(self) -> list[ProgramStat]:
        """Returns statistics of every program since its load; zeros while statistics are disabled."""
        return [stat_of(program) for program in self.programs]

    def skipped_decisions(self, stats: Iterable[ProgramStat]) -> dict[str, int]:
        """Returns hook or place -> calls that passed undecided, from a result of `program_stats`."""
        misses = {stat.name: stat.misses for stat in stats}
        attached = {link.program for link in self.attached}
        return skipped_decisions(self.programs, misses, attached, self._hook_mechanism)

    def pin(self, base: Path) -> None:
        """Pins links and maps, so they outlive this process. Earlier agents' pins stay: see Takeover."""
        fresh = PinDirectory.create(base)
        writer = self._loaded.programs[PROGRAM]
        fresh.pin(self.attached, self._loaded.maps, writer, defended=self._defended)
        if self._complete:
            fresh.mark_complete()
        # If earlier pins are gone, their name may be in use again.
        if self._pins is not None and self._pins.path != fresh.path:
            self._pins.remove()
        self._pins, self.pin_failure = fresh, ""

    def mark_complete(self) -> None:
        """Records that earlier agents' pins are no longer needed."""
        self._complete = True
        if self._pins is not None:
            self._pins.mark_complete()

    def pin_again(self) -> None:
        """Pins again after pins were removed, in a new bpffs if that is gone, too."""
        if self._pins is not None:
            base = self._pins.path.parent
            if not base.is_dir():
                find_base((str(base.parent),))
            self.pin(base)
            # Under another name they would always outlive this process.
            for other in PinDirectory.strays(base, self.map("generation")):
                if other.path != self._pins.path:
                    other.remove()

    def forget(self, links: Iterable[Attached]) -> None:
        """Closes dead links; `attach` creates them again."""
        gone = {(link.program, link.target) for link in links}
        dead = [link for key, link in self._links.items() if key in gone]
        self._links = {key: link for key, link in self._links.items() if key not in gone}
        detach(link.fd for link in dead)

    @property
    def pins(self) -> PinDirectory | None:
        """The directory of the pins; None: not pinned."""
        return self._pins

    def unpin(self) -> None:
        """Removes the pins, so nothing outlives this process."""
        if self._pins is not None:
            self._pins.remove()
            self._pins = None

    def close(self) -> None:
        """Frees everything. Pinned programs keep deciding; without pins, rules end and all detach."""
        if self._pins is None:
            self.map("generation").set(0, 0)
        self.keep_statistics(on=False)
        detach(link.fd for link in self._links.values())
        self._links = {}
        self.alerts.close()
        self.activity.close()
        self._loaded.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ring(self, name: str) -> Ring:
        found = self.map(name)
        return Ring(found.fd, found.max_entries)


def _prepare(file: ObjectFile, settings: KernelSettings, missing: list[Skipped]) -> None:
    file.write_constant("config", settings.pack({skip.program for skip in missing}))
    for name, entries in settings.sizes().items():
        file.resize(name, entries)
    refused = {skip.program for skip in missing}
    sections = file.sections()
    for program, section in sections.items():
        base = hook_program(program)  # the program itself, if it is no backstop
        section = sections.get(base, section)
        target = section.removeprefix("cgroup/")
        if target in _SET_BY_HAND:
            # libbpf knows the unix ones from 1.3 on; the kernel has them since 6.7 (859051dd165e)
            file.set_type(program, *CGROUP_ATTACHES[target])
            if program not in refused and not _loads(*CGROUP_ATTACHES[target]):
                lack = "this kernel has no such attach type (6.7 has)"
                missing.append(Skipped(program, section, lack, absent=True))
                refused.add(program)
        point = section.removeprefix("tp_btf/")
        if point in TRACEPOINTS and point not in settings.tracing:
            refused.add(program)
        if section.startswith("lsm/") and not _has_hook(program, section, settings, missing):
            refused.add(program)
        wanted = base == program or settings.has_backstop(base)
        if program in refused or not wanted or not _is_of_use(base, section, settings, refused):
            file.leave_out(program)
        elif base == program and section.startswith("lsm/") and settings.hook_mechanism is Mechanism.HOOK:
            _retarget(file, program, section.removeprefix("lsm/"))


def _retarget(file: ObjectFile, program: str, hook: str) -> None:
    """From the hook to the function that calls it, where the program's result has the same meaning."""
    attach_type = _libbpf.ATTACH_TRACE_FENTRY if hook in VOID_HOOKS else _libbpf.ATTACH_MODIFY_RETURN
    file.retarget(program, attach_type, function_of(hook))


def _is_of_use(program: str, section: str, settings: KernelSettings, refused: Collection[str]) -> bool:
    """Returns True if the configuration needs this program and the kernel may support it."""
    if program in settings.left_out:
        return False
    if program.startswith("learn_"):
        return settings.learn
    if program == NARROW_CALL:
        return settings.narrow_entries
    if program.startswith("follow_") and section.startswith("tracepoint/"):
        return settings.follows_by_perf()
    if program.startswith("born_"):
        return not settings.refuses_forks(refused)
    if not program.startswith("guard_"):
        return not section.startswith("fentry/") or settings.knows_entries()
    if section in _GUARDS_CALLS:
        return bool(settings.guard) and not settings.guards_by_hook(refused)
    if section.startswith(("lsm/", "fentry/")):
        return bool(settings.guard) and settings.guards_by_hook(refused)
    return bool(settings.guard)


def _has_hook(program: str, section: str, settings: KernelSettings, missing: list[Skipped]) -> bool:
    """Returns True if the node has the hook. A node with other hooks but not this one is logged."""
    if section.removeprefix("lsm/") in settings.lsm_hooks:
        return True
    if settings.lsm_hooks and not any(skip.program == program for skip in missing):
        missing.append(Skipped(program, section, "this kernel has no such LSM hook", absent=True))
    return False


def _is_optional(section: str) -> bool:
    return section in _OPTIONAL or section.startswith(("lsm/", "fentry/"))


def _loads(kind: int, attach_type: int) -> bool:
    try:
        os.close(_syscalls.load_trivial_program(kind, attach_type))
    except OSError:
        return False
    return True


def _check_shapes(loaded: Loaded) -> None:
    """Raises if the object is of another build: its records would be misread, not refused."""
    for name, shape in MAPS.items():
        found = loaded.maps.get(name)
        if found is None or (found.key_size, found.value_size) != shape:
            raise KernelError(
                f"the probes' map {name} does not have the expected shape: {found}",
                hint="agent and probes are from different builds: make build",
            )


def _write_by_program(loaded: Loaded, *, sealed: bool) -> None:
    """From here on the agent writes by its program; `sealed`: no process can write otherwise."""
    writer = Writer(loaded.programs[PROGRAM].fd)
    for name, found in loaded.maps.items():
        if name in WRITTEN:
            found.write_by(writer, WRITTEN[name])
        if sealed and name not in UNSEALED:
            found.freeze()
    try:
        loaded.maps["heartbeat"].set(0, 0)
    except PermissionError:
        raise KernelError(
            "the probes do not recognise this process as the agent that loaded them",
            hint="run it in the host's pid namespace (hostPID: true, --pid=host)",
        ) from None


def _pack_pattern(pattern: Pattern) -> bytes:
    if len(pattern.prefix) > PATTERN_LEN - 2:
        raise ConfigError(f"a cgroup pattern can have at most {PATTERN_LEN - 2} bytes: {pattern.prefix!r}")
    return PATTERN.pack(pattern.kind, len(pattern.prefix), pattern.prefix)
