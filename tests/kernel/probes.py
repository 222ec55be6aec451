# SPDX-License-Identifier: Apache-2.0
"""The real probes, for containers named rftest-probes-... only, and the records they sent."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ringfence import abi
from ringfence.abi import OBSERVE_ALERTS, PATTERN_ANY, Drop, EventKind
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.kernel import DEFAULT_OBJECT, Kernel, KernelSettings, Pattern
from ringfence.bpf.lsm import decided_by, hooks_for
from ringfence.bpf.syscalls import CALLS, DONE, OPENS, names_of
from ringfence.containers import hierarchy
from ringfence.events import Event
from ringfence.wire import decode
from tests.kernel.rules import Rule, install
from tests.support import force
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.waiting import wait_for

__all__ = [
    "ALWAYS", "BOTH_WAYS", "HOOKS_DECIDE", "LABEL", "Probes", "need_32_bit_calls", "results", "run",
    "running", "values",
]  # fmt: skip

#: runs a module or test twice: where LSM hooks decide, and where only calls are seen
BOTH_WAYS = pytest.mark.parametrize(
    "probes", [{"lsm": True}, {}], ids=["lsm", "calls"], indirect=True, scope="module"
)
HOOKS_DECIDE = pytest.mark.parametrize("probes", [{"lsm": True}], ids=["lsm"], indirect=True, scope="module")
LABEL = "probes"
SLOTS = 1024  # none is freed, and several modules share the probes
ALWAYS = 1 << 62


class Probes:
    """Loaded, attached probes. Their records are kept until they are read."""

    def __init__(self, kernel: Kernel, *observed: EventKind) -> None:
        """`observed`: kinds that are reported from the beginning."""
        self.kernel, self._observed = kernel, observed
        self.observe(*observed)
        self._seen: list[Event] = []

    def enforce(self, *rules: Rule) -> int:
        """Put rules in force for all containers."""
        return install(self.kernel.map, rules)

    def observe(self, *kinds: EventKind) -> None:
        """Report these events without a rule."""
        self.kernel.observe_only(dict.fromkeys(kinds, OBSERVE_ALERTS))

    def calm(self) -> None:
        """Return to the initial state: no rule, nothing more observed, no record kept."""
        self.enforce()
        self.observe(*self._observed)
        self.events()
        self._seen.clear()

    def events(self, cgroup: Cgroup | None = None, *kinds: EventKind) -> list[Any]:
        """Returns all records so far, in order; of one container, of some kinds."""
        for ring in (self.kernel.alerts, self.kernel.activity):
            while records := ring.read():
                self._seen += [decode(record) for record in records]
        wanted = None if cgroup is None else cgroup.id
        return [
            event
            for event in self._seen
            if (wanted is None or event.container == wanted) and (not kinds or event.kind in kinds)
        ]

    def wait(self, cgroup: Cgroup | None, kind: EventKind, count: int = 1) -> list[Any]:
        """Wait until there are that many records, and return all of them."""
        return wait_for(
            lambda: found if len(found := self.events(cgroup, kind)) >= count else None,
            f"{count} x {kind.label}",
        )

    def enroll(self, cgroup: Cgroup, state: int = abi.STATE_USED | abi.STATE_ADOPTED) -> int:
        """Enroll a container that was there before, as the agent does. Returns its slot."""
        slot = self.kernel.map("free_slots").pop()
        assert slot is not None
        value = abi.ContainerValue(cgroup.id, 1, state=state)
        self.kernel.map("slots").set(slot, abi.CONTAINER.pack(*value))
        self.kernel.map("containers").set(cgroup.id.to_bytes(8, "little"), slot)
        return slot

    def slot(self, cgroup: Cgroup) -> int:
        """Returns the slot of a container."""
        return self.kernel.map("containers").get_int(cgroup.id.to_bytes(8, "little"))

    def is_enrolled(self, cgroup: Cgroup) -> bool:
        """Returns True if the cgroup is a container's."""
        return self.kernel.map("containers").get(cgroup.id.to_bytes(8, "little")) is not None

    def counters(self, cgroup: Cgroup) -> tuple[int, ...]:
        """Returns the activity counters of a container, by enum rf_counter."""
        return self.kernel.map("counters").sums(self.slot(cgroup))

    def drops(self) -> dict[tuple[str, str], int]:
        """Returns (event, reason) -> number of dropped records."""
        found: dict[tuple[str, str], int] = {}
        for key, value in self.kernel.map("drops").items():
            event, reason = int.from_bytes(key[:2], "little"), int.from_bytes(key[2:4], "little")
            name = (EventKind(event).label, Drop(reason).label)
            found[name] = found.get(name, 0) + int.from_bytes(value, "little")
        return found


@contextmanager
def running(
    *,
    observe: Iterable[EventKind] = (),
    rules: Sequence[Rule] = (),
    prepare: Callable[[Kernel], None] = lambda kernel: None,
    lsm: bool = False,
    beats: int = ALWAYS,
    also: Collection[str] = (),
    **settings: Any,
) -> Iterator[Probes]:
    """Probes at all calls and cgroup hooks of this kernel; detached at the end.

    With `lsm`, at all of its LSM hooks instead for the events that these decide. `beats`: time of
    the agent's last heartbeat, in ns since boot; without an agent the kernel frees slots itself.
    `also`: calls that cost every process of the node, and are left out otherwise.
    """
    force.need_root()
    if not DEFAULT_OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    node = NodeCapabilities.detect()
    if lsm and not node.lsm_hooks:
        force.no_lsm(node.lsm_lack)
    decided = decided_by(node.lsm_hooks) if lsm else {}
    hooked = frozenset(names_of(decided))
    layout = hierarchy.detect()
    unneeded = {"setsockopt"} if EventKind.SETSOCKOPT in decided else set()
    if EventKind.UNIX_CONNECT in decided:
        unneeded |= {"connect_unix", "sendmsg_unix"}
    chosen = KernelSettings(
        hierarchy=layout.code,
        lsm_hooks=node.lsm_hooks if lsm else frozenset(),
        tracing=node.tracing,
        **{
            "slots": SLOTS,
            "processes": 4096,
            "sealed": False,
            "hook_mechanism": node.hook_mechanism,
            "preemptible": node.preemption.may_skip,
            "backstop": node.backstop,
            "entries_skippable": node.preemption.may_skip,
            "entry_backstop": node.entry_backstop,
            "narrow_entries": bool(node.compat_entries),
            **settings,
        },
    )
    plan = AttachPlan(
        entry=frozenset(CALLS) - ({"ioctl", "splice", "vmsplice", "tee"} - frozenset(also)) - hooked,
        exit=frozenset() if EventKind.FILE_OPEN in decided else frozenset(OPENS),
        done=(frozenset(DONE) | {"connect"} if EventKind.UNIX_CONNECT not in decided else frozenset(DONE))
        - hooked,
        cgroup=frozenset(node.cgroup) - unneeded,
        cgroup_path=node.cgroup2,
        compat=True,
        compat_entries=node.compat_entries if chosen.narrow_entries else frozenset(),
        compat_exit=EventKind.FILE_OPEN not in decided,
        lsm=hooks_for(decided, decided),
        hooked=hooked,
        drift=True,
        checkpoints=EventKind.SYS_SETNS in decided,
        requests=EventKind.MODULE_REQUEST not in decided,
    )
    with Kernel.load(chosen) as kernel:
        for slot in reversed(range(chosen.slots)):
            kernel.map("free_slots").push(slot)
        kernel.map("heartbeat").set(0, beats)
        kernel.configure_patterns([Pattern(PATTERN_ANY, f"{PREFIX}{LABEL}-".encode())])
        kernel.configure_syscalls(plan.entry, plan.hooked)
        probes = Probes(kernel, *observe)
        if rules:
            probes.enforce(*rules)
        prepare(kernel)
        kernel.attach(plan)
        yield probes


def need_32_bit_calls() -> None:
    """Skip where the kernel runs no 32-bit calls."""
    if not NodeCapabilities.detect().compat:
        force.elsewhere("this kernel runs no 32-bit calls")


def run(cgroup: Cgroup, act: str, *commands: str) -> subprocess.CompletedProcess[bytes]:
    """Run commands of act.c, armed in the container, to their end."""
    return cgroup.run([act, *commands], capture_output=True)


def values(cgroup: Cgroup, act: str, *commands: str) -> list[int]:
    """Returns the results of commands of act.c, in their order. They end by themselves."""
    done = run(cgroup, act, *commands)
    assert done.returncode == 0, done
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def results(done: subprocess.CompletedProcess[Any]) -> dict[str, int]:
    """Parses the output of `act`: command -> result of the call."""
    output = done.stdout if isinstance(done.stdout, str) else done.stdout.decode()
    return {name: int(value) for name, value in re.findall(r"^(\w+) (-?\d+)$", output, re.M)}
