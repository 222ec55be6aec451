# SPDX-License-Identifier: Apache-2.0
"""The kernel side and the registry, without policies or daemon: which container each record
belongs to.

Only cgroups whose names begin with the observer's own prefix are enrolled, and no rule is loaded.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.abi import ARGS_LEN, OBSERVE_ACTIVITY, OBSERVE_ALERTS, EventKind
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.kernel import Kernel, KernelSettings
from ringfence.config.values import Pattern
from ringfence.containers.adopt import Adopter, pids_by_slot
from ringfence.containers.hierarchy import cgroup_id, detect, host_namespaces
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.slots import KernelSlots
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.attach.plan import kernel_pattern
from ringfence.events import Event, ExecEvent
from ringfence.wire import decode
from tests.support.waiting import patience, wait_for

__all__ = ["Observer", "Seen", "TestCgroup", "Workload", "observing"]

_LIFE = tuple(kind for kind in EventKind if kind.name.startswith(("CONTAINER_", "CGROUP_")))
_PROCESS = (EventKind.PROCESS_FORK, EventKind.PROCESS_EXEC, EventKind.PROCESS_EXIT)
_TRACING = frozenset(
    (
        "cgroup_mkdir", "cgroup_rmdir", "cgroup_release", "cgroup_attach_task",
        "task_newtask", "sched_process_exec", "sched_process_exit",
    )
)  # fmt: skip


class Seen(NamedTuple):
    """One record, with the container it was attributed to when it was read."""

    event: Event
    container: Container | None


class Observer:
    """Loads, reads and attributes; `pump` reads the rings in the order that the registry asks for."""

    def __init__(self, kernel: Kernel, patterns: Sequence[Pattern]) -> None:
        self.kernel, self.patterns = kernel, tuple(patterns)
        self.hierarchy = detect()
        self.slots = KernelSlots(
            *(kernel.map(name) for name in ("slots", "free_slots", "containers", "counters"))
        )
        for slot in reversed(range(self.slots.size)):
            self.slots.put_back(slot)
        self.registry = Registry(self.slots)
        self.tree = ProcessTree()
        self.seen: list[Seen] = []
        kernel.configure_patterns(map(kernel_pattern, patterns))
        for kind in _LIFE:
            kernel.set_observe(kind, OBSERVE_ALERTS)
        for kind in _PROCESS:
            kernel.set_observe(kind, OBSERVE_ACTIVITY)

    def attach(self) -> None:
        """Attach the programs: the kernel enrolls and reports from here on."""
        self.kernel.attach(AttachPlan(tracing=_TRACING, compat=False))

    def adopt(self) -> None:
        """Adopt running containers, as the agent does at start."""
        adopter = Adopter(self.hierarchy, self.patterns, self.slots, self.registry)
        adopter.adopt()
        self.kernel.adopt()
        pids = pids_by_slot(self.kernel.map("processes").items())
        adopter.armed(pids)
        for container in self.registry:
            self.tree.seed(pids.get(container.slot, ()), container.cgroup_id)

    def pump(self) -> int:
        """Read and attribute the available records. Returns their number."""
        activity = self.kernel.activity.read(100_000)
        taken = 0
        while alerts := self.kernel.alerts.read(100_000):
            taken += self._dispatch(alerts)
        return taken + self._dispatch(activity)

    def _dispatch(self, records: Sequence[bytes]) -> int:
        for record in records:
            event = decode(record)
            if event.kind in _LIFE:
                changed = self.registry.on_event(event)
                container = changed or self.registry.get(event.slot, event.container)
            else:
                container = self.registry.get(event.slot, event.container)
                self.tree.on_event(event)
            self.seen.append(Seen(event, container))
        return len(records)

    def of(self, kind: EventKind, name: str = "") -> list[Seen]:
        """Returns the records of that kind from the container with that id (empty: any container)."""
        return [
            seen
            for seen in self.seen
            if seen.event.kind is kind
            and (not name or (seen.container is not None and seen.container.id == name))
        ]

    def wait(self, kind: EventKind, name: str = "", count: int = 1) -> list[Seen]:
        """Pump until that many records were seen, and return them."""

        def enough() -> list[Seen]:
            self.pump()
            found = self.of(kind, name)
            return found if len(found) >= count else []

        return wait_for(enough, f"{count} x {kind.label} of {name or 'any container'}")

    def mistakes(self) -> list[str]:
        """Returns the records of the test's own program
        that were attributed wrongly or not at all.
        """
        wrong = []
        for event, container in self.seen:
            expected = expected_container(event)
            if container is None:
                wrong.append(f"no container: {event}")
            elif expected and container.id != expected:
                wrong.append(f"{container.id} instead of {expected}: {event}")
        return wrong

    def drops(self) -> dict[bytes, int]:
        """Returns the records that the kernel dropped."""
        return {key: int.from_bytes(value, "little") for key, value in self.kernel.map("drops").items()}


def expected_container(event: Event) -> str:
    """Returns the container id in the argv of an exec
    of the test's program; empty for other events.
    """
    if not isinstance(event, ExecEvent):
        return ""
    words = event.args.split(b"\0")
    of_test = len(words) >= 3 and words[1] in (b"short", b"hold", b"child")
    return os.fsdecode(words[2]) if of_test and len(event.args) < ARGS_LEN - 1 else ""


@contextlib.contextmanager
def observing(*patterns: Pattern, slots: int = 64, attach: bool = True) -> Iterator[Observer]:
    """An observer of cgroups with these names, attached unless `attach` is false."""
    names = {name: inum for name, inum in asdict(host_namespaces()).items() if name != "notes"}
    settings = KernelSettings(hierarchy=detect().code, namespaces=names, slots=slots, agent_pid=os.getpid())
    with Kernel.load(settings) as kernel:
        observer = Observer(kernel, patterns)
        try:
            if attach:
                observer.attach()
            yield observer
        finally:
            observer.slots.close()


class TestCgroup:
    """A cgroup in the hierarchy that identifies containers."""

    __test__ = False

    def __init__(self, name: str) -> None:
        assert name.startswith("rftest-")
        self.name = name
        self.path = detect().mount / name

    def make(self) -> TestCgroup:
        """Create the directory and its parents."""
        self.path.mkdir(parents=True)
        return self

    @property
    def id(self) -> int:
        """The kernel's id of the cgroup."""
        return cgroup_id(self.path)

    @property
    def procs(self) -> Path:
        """The file through which a process joins."""
        return self.path / "cgroup.procs"

    def remove(self) -> None:
        """Remove the directory and those below it, once their tasks have ended."""

        def gone() -> bool:
            if not self.path.exists():
                return True
            try:
                for directory, _, _ in os.walk(self.path, topdown=False):
                    os.rmdir(directory)
            except OSError:
                return False
            return True

        wait_for(gone, f"{self.name} to be removed", every=0.002)


class Workload:
    """A process that waits in a cgroup for commands."""

    def __init__(self, program: Path, cgroup: TestCgroup, name: str) -> None:
        argv = [os.fspath(part) for part in (program, "enter", cgroup.procs, name, "hold")]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._expect(b"r")

    @property
    def pid(self) -> int:
        """The pid on the host."""
        return self.process.pid

    def act(self) -> None:
        """Fork and exec a child, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        self._expect(b"d")

    def _expect(self, byte: bytes) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.read(1) == byte, f"the workload ended: {self.process.wait(1)}"

    def end(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(patience(60))

    def __enter__(self) -> Workload:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def new_prefix() -> str:
    """Returns a prefix of cgroup names that no other test uses now."""
    return f"rftest-at{secrets.token_hex(3)}-"
