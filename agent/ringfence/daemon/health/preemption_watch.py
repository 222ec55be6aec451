# SPDX-License-Identifier: Apache-2.0
"""Notices that the running kernel was switched to another preemption model (debugfs `sched/preempt`).

Which programs are loaded depends on it: see bpf/preemption.py. So the agent is started again, as in an
upgrade: the pinned programs decide until the next ones are attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ringfence import log
from ringfence.abi import Mechanism
from ringfence.bpf import preemption
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.preemption import Preemption
from ringfence.response.detectors import Finding, finding

__all__ = ["PreemptionWatch"]

_DETECTOR = "preemption-changed"


class PreemptionWatch:
    """`tick` is called by a timer, in the loop."""

    def __init__(
        self,
        node: NodeCapabilities,
        *,
        refused_with: Callable[[NodeCapabilities], list[str]],
        report: Callable[[Iterable[Finding]], None],
        stop: Callable[[], None],
        reports: bool = True,
        find: Callable[[Preemption], Preemption] = preemption.find,
    ) -> None:
        """`refused_with`: the problems of the policies in force on a node with these capabilities. `report`
        gets a finding if `reports`; `stop` ends the loop.
        """
        self._node, self._refused_with, self._report, self._stop = node, refused_with, report, stop
        self._reports, self._find = reports, find
        self._model = node.preemption  # as it was seen last
        #: True if the agent ends to be started again
        self.restarts = False
        self._problem = ""
        self._log = log.get_logger("preemption")

    def problem(self) -> str:
        """Why the programs do not fit the kernel any more; empty: they do."""
        return self._problem

    def tick(self) -> None:
        """Look once."""
        before, now = self._model, self._find(self._model)
        if now is before:
            return
        self._model = now
        after = replace(self._node, preemption=now)
        matters = now.may_skip is not self._node.preemption.may_skip and not _by_lsm(self._node)
        refused = self._refused_with(after) if matters else []
        self._log.warning("the kernel's preemption was switched", before=str(before), now=str(now),
                          restarts=matters and not refused, policies_refused=refused)  # fmt: skip
        self._problem = _problem(now, refused) if refused else ""
        if now.may_skip and not before.may_skip and not _by_lsm(self._node) and self._reports:
            self._report([finding(_DETECTOR, None, _details(before, after, refused))])
        if matters and not refused:
            self.restarts = True
            self._stop()


def _by_lsm(node: NodeCapabilities) -> bool:
    """Returns True if BPF-LSM decides, which the kernel never skips."""
    return bool(node.lsm_hooks) and node.hook_mechanism is Mechanism.LSM


def _problem(now: Preemption, refused: list[str]) -> str:
    return (
        f"the kernel preempts itself since it was switched to {now}, and may skip programs that decide; the "
        f"policies would be refused now ({len(refused)} problems, first: {refused[0]}), and stay in force"
    )


def _details(before: Preemption, after: NodeCapabilities, refused: list[str]) -> dict[str, Any]:
    done = "policies require more than this node has: nothing was changed" if refused else "restarted"
    skipped = "killed" if after.backstop and not refused else "passes"
    return {"before": str(before), "now": str(after.preemption), "agent": done, "when_skipped": skipped}
