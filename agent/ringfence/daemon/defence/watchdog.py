# SPDX-License-Identifier: Apache-2.0
"""Once a second: is everything as it was left? What is not is restored, counted, and reported.

The probes refuse or kill tasks that tamper, where they see it. This is for what they cannot see: a path that
was not ours until it was resolved, an administrator's mistake, a bug.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ringfence import log
from ringfence.bpf.health import dead_links, lost_pins
from ringfence.bpf.kernel import Kernel
from ringfence.containers.registry import Registry
from ringfence.daemon.succession.guarded_file import GuardedFile
from ringfence.errors import KernelError
from ringfence.policy.install import Generations

__all__ = ["WHAT", "Watchdog"]

#: label of ringfence_tampered_total
WHAT = ("generation", "profile", "link", "pin", "file", "limit", "cgroup")
_SLOTS_A_ROUND = 256
_LIMITS = tuple(
    number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_") and isinstance(number, int)
)


class Watchdog:
    """`tell(what, details)` is called for each incident; `reattach` attaches again what is detached.

    Used by the loop only.
    """

    def __init__(
        self,
        kernel: Kernel,
        generations: Generations,
        registry: Registry,
        tell: Callable[[str, Mapping[str, object]], None],
        reattach: Callable[[], None],
    ) -> None:
        self._kernel, self._generations, self._registry = kernel, generations, registry
        self._tell, self._reattach = tell, reattach
        self.files: Sequence[GuardedFile] = ()
        self._at = 0
        self._lost_ns = 0
        self._process: dict[str, object] = {}
        self._cgroup = ""
        self._log = log.get_logger("watchdog")
        self.counts: Counter[str] = Counter(dict.fromkeys(WHAT, 0))

    def begin(self) -> None:
        """Limits and priority are from now on to stay as they are: the agent has changed its own by now."""
        self._process, self._cgroup = _process(), _cgroup()

    def tick(self) -> None:
        """One round. What goes wrong in it is logged."""
        for look in (
            self._look_at_generation,
            self._look_at_profiles,
            self._look_at_links_and_pins,
            self._look_at_files,
            self._look_at_process,
        ):
            try:
                look()
            except (OSError, KernelError) as error:
                self._log.error("could not look whether all is in place", error=str(error))

    def found_since(self, time_ns: int) -> bool:
        """Whether a pin or a file was not as it was left, now or since that time (CLOCK_BOOTTIME)."""
        self.tick()
        return self._lost_ns >= time_ns

    def _look_at_generation(self) -> None:
        word, ours = self._kernel.map("generation"), self._generations.number
        found = word.get_int(0)
        if found != ours:
            word.set(0, ours)
            self._met("generation", {"found": found, "expected": ours})

    def _look_at_profiles(self) -> None:
        containers = list(self._registry)
        if not containers:
            return
        self._at %= len(containers)
        part = containers[self._at : self._at + _SLOTS_A_ROUND]
        self._at += _SLOTS_A_ROUND
        wrong = [one.id for one in part if self._generations.restore_slot(one.slot, one.cgroup_id)]
        if wrong:
            self._met("profile", {"containers": wrong[:16]}, len(wrong))

    def _look_at_links_and_pins(self) -> None:
        """Not while new policies attach and pin: the next round is soon."""
        if not self._kernel.changing.acquire(blocking=False):
            return
        try:
            if dead := dead_links(self._kernel):
                self._kernel.forget(dead)
                self._met("link", {"links": [link.target for link in dead][:16]}, len(dead))
                self._reattach()
            if lost := lost_pins(self._kernel):
                self._met("pin", {"pins": lost[:16]}, len(lost))
                self._kernel.pin_again()
        finally:
            self._kernel.changing.release()

    def _look_at_files(self) -> None:
        for kept in self.files:
            if not kept.as_left():
                self._met("file", {"file": str(kept.path)})
                kept.renew()

    def _look_at_process(self) -> None:
        now = _process()
        changed = sorted(name for name, value in self._process.items() if now.get(name) != value)
        if changed:
            self._met("limit", {"changed": changed}, len(changed))
            _put_back(self._process, changed)
            self._process = _process()  # what could not be put back is told of once
        cgroup = _cgroup()
        if cgroup != self._cgroup:
            self._met("cgroup", {"was": self._cgroup[:512], "is": cgroup[:512]})
            self._cgroup = cgroup

    def _met(self, what: str, details: Mapping[str, object], times: int = 1) -> None:
        self.counts[what] += times
        if what in ("pin", "file"):
            self._lost_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._log.error("not as it was left; put right where it can be", what=what, **details)
        self._tell(what, {"what": what, **details})


def _process() -> dict[str, object]:
    """Limits and priority of this process. Not its CPUs: a kubelet that manages them changes them."""
    found: dict[str, object] = {f"rlimit:{number}": resource.getrlimit(number) for number in _LIMITS}
    found["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    found["scheduler"] = os.sched_getscheduler(0)
    with suppress(OSError):
        found["oom_score_adj"] = int(Path("/proc/self/oom_score_adj").read_text())
    return found


def _put_back(wanted: Mapping[str, object], names: Sequence[str]) -> None:
    """As far as permitted: lowering one's own limits is easier than raising them."""
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
