# SPDX-License-Identifier: Apache-2.0
"""Checks once a second that the agent's resources are as it left them. A modified one is restored,
counted and reported.

The probes deny or kill tasks that tamper, if they see it. The watchdog is for what they cannot
see: a path that became the agent's only when it was resolved, an administrator's mistake, a bug.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from prometheus_client.core import Metric

from ringfence import log
from ringfence.bpf.health import dead_links, lost_pins
from ringfence.containers.registry import Registry
from ringfence.daemon.parts import Loaded
from ringfence.daemon.succession.guarded_file import GuardedFile
from ringfence.daemon.verdicts.tamper import Look
from ringfence.errors import KernelError
from ringfence.export import families
from ringfence.response.detectors import Finding, finding

__all__ = ["WHAT", "Watchdog"]

#: label of ringfence_tampered_total
WHAT = ("generation", "profile", "link", "pin", "file", "socket", "limit", "cgroup")
_SLOTS_A_ROUND = 256
_LIMITS = tuple(
    number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_") and isinstance(number, int)
)


class ListeningSocket(Protocol):
    """A socket in the filesystem. `renew` creates its file again."""

    path: Path

    def as_left(self) -> bool: ...
    def renew(self) -> None: ...


class Watchdog:
    """Used by the loop only."""

    def __init__(
        self,
        loaded: Loaded,
        registry: Registry,
        files: Sequence[GuardedFile],
        reattach: Callable[[], None],
        sockets: Callable[[], Iterable[ListeningSocket]] = tuple,
        *,
        reports: bool = True,
    ) -> None:
        """`files` are those that the next agent needs; `reattach` attaches the programs again;
        `sockets` are those by which others reach the agent. With `reports` off, incidents are
        repaired and counted, but no findings.
        """
        self._kernel, self._generations, self._registry = loaded.kernel, loaded.generations, registry
        self._files, self._reattach, self._reports = tuple(files), reattach, reports
        self._sockets, self._gone = sockets, set[Path]()
        self._found: list[Finding] = []
        self._at = 0
        self._lost_ns = 0
        self._process: dict[str, object] = {}
        self._cgroup = ""
        self._log = log.get_logger("watchdog")
        self._counts: Counter[str] = Counter(dict.fromkeys(WHAT, 0))

    def begin(self) -> None:
        """From now on limits and priority must stay as they are: the agent has set its own by now."""
        self._process, self._cgroup = _process(), _cgroup()

    def look(self) -> Look:
        """Check everything now. A check that fails is logged."""
        for look in (
            self._look_at_generation,
            self._look_at_profiles,
            self._look_at_links_and_pins,
            self._look_at_files,
            self._look_at_sockets,
            self._look_at_process,
        ):
            try:
                look()
            except (OSError, KernelError) as error:
                self._log.error("the agent's resources could not be checked", error=str(error))
        found, self._found = self._found, []
        return Look(found, self._lost_ns)

    def samples(self) -> Iterator[Metric]:
        """Incidents by kind."""
        yield families.counters(
            "ringfence_tampered",
            "Agent resources (pins, maps, limits, files, sockets) found modified, and restored.",
            "what",
            self._counts,
        )

    def _look_at_generation(self) -> None:
        word, expected = self._kernel.map("generation"), self._generations.number
        found = word.get_int(0)
        if found != expected:
            word.set(0, expected)
            self._incident("generation", {"found": found, "expected": expected})

    def _look_at_profiles(self) -> None:
        containers = list(self._registry)
        if not containers:
            return
        self._at %= len(containers)
        part = containers[self._at : self._at + _SLOTS_A_ROUND]
        self._at += _SLOTS_A_ROUND
        wrong = [one.id for one in part if self._generations.restore_slot(one.slot, one.cgroup_id)]
        if wrong:
            self._incident("profile", {"containers": wrong[:16]}, len(wrong))

    def _look_at_links_and_pins(self) -> None:
        """Skipped while new policies are attached and pinned: the next round is soon."""
        if not self._kernel.changing.acquire(blocking=False):
            return
        try:
            if dead := dead_links(self._kernel):
                self._kernel.forget(dead)
                self._incident("link", {"links": [link.target for link in dead][:16]}, len(dead))
                self._reattach()
            if lost := lost_pins(self._kernel):
                self._incident("pin", {"pins": lost[:16]}, len(lost))
                self._kernel.pin_again()
        finally:
            self._kernel.changing.release()

    def _look_at_files(self) -> None:
        for kept in self._files:
            if not kept.as_left():
                self._incident("file", {"file": str(kept.path)})
                kept.renew()

    def _look_at_sockets(self) -> None:
        """A socket that cannot be created again is reported once, and tried again each round."""
        for one in self._sockets():
            if one.as_left():
                self._gone.discard(one.path)
                continue
            if one.path not in self._gone:
                self._gone.add(one.path)
                self._incident("socket", {"socket": str(one.path)})
            one.renew()

    def _look_at_process(self) -> None:
        now = _process()
        changed = sorted(name for name, value in self._process.items() if now.get(name) != value)
        if changed:
            self._incident("limit", {"changed": changed}, len(changed))
            _restore(self._process, changed)
            self._process = _process()  # what could not be restored is reported once
        cgroup = _cgroup()
        if cgroup != self._cgroup:
            self._incident("cgroup", {"was": self._cgroup[:512], "is": cgroup[:512]})
            self._cgroup = cgroup

    def _incident(self, what: str, details: Mapping[str, object], times: int = 1) -> None:
        self._counts[what] += times
        if what in ("pin", "file"):
            self._lost_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._log.error("a resource of the agent was modified; restored if possible", what=what, **details)
        if self._reports:
            self._found.append(finding("agent-tampered", None, {"what": what, **details}))


def _process() -> dict[str, object]:
    """Limits and priority of this process. Not its CPUs: a kubelet may change them."""
    found: dict[str, object] = {f"rlimit:{number}": resource.getrlimit(number) for number in _LIMITS}
    found["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    found["scheduler"] = os.sched_getscheduler(0)
    with suppress(OSError):
        found["oom_score_adj"] = int(Path("/proc/self/oom_score_adj").read_text())
    return found


def _restore(wanted: Mapping[str, object], names: Sequence[str]) -> None:
    """Restore what is permitted: lowering one's own limits is easier than raising them."""
    for name in names:
        with suppress(OSError, ValueError):
            value = wanted[name]
            if name.startswith("rlimit:"):
                resource.setrlimit(int(name.partition(":")[2]), value)  # type: ignore[arg-type]
            elif name == "nice":
                os.setpriority(os.PRIO_PROCESS, 0, int(str(value)))
            elif name == "scheduler":
                os.sched_setscheduler(0, int(str(value)), os.sched_param(0))
            else:
                Path("/proc/self/oom_score_adj").write_text(f"{value}\n")


def _cgroup() -> str:
    try:
        return Path("/proc/self/cgroup").read_text(errors="replace")
    except OSError:
        return ""
