# SPDX-License-Identifier: Apache-2.0
"""Audits the node and its containers every few minutes, in a thread, for the metrics."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from ringfence.audit.model import Finding, Unseen
from ringfence.config import Config
from ringfence.containers.model import Container
from ringfence.faults import SupervisedThread

__all__ = ["AuditRound"]

_FIRST = 10.0  # seconds after the start, which it must not slow down


class AuditRound:
    """Counts findings by check and severity. Uses the containers of the registry; runs no program."""

    def __init__(self, config: Config, containers: Callable[[], Sequence[Container]]) -> None:
        self._config, self._interval, self._containers = config, config.audit_interval, containers
        self._stop = threading.Event()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._accepted = self._counts.copy()
        self._unseen: Counter[str] = Counter()
        self._at = 0.0
        self._thread = SupervisedThread("audit", self._run)

    def start(self) -> None:
        """Begin, unless the interval is 0."""
        if self._interval:
            self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.stop()

    def look(self) -> None:
        """Do one round now."""
        from ringfence.audit import node
        from ringfence.audit.accept import accept
        from ringfence.audit.survey import of_containers, own_identifier, parted, this_node
        from ringfence.containers.hierarchy import detect

        here = this_node(self._config, programs=False)
        found, unseen = parted([*node.findings(here), *of_containers(self._containers())])
        own = own_identifier(detect())
        self.found(list(accept(found, self._config.audit_accept, own)), unseen)

    def found(self, found: Sequence[Finding], unseen: Sequence[Unseen] = ()) -> None:
        """Take the result of a round: its findings, and the checks that could not look."""
        self._counts = _counted(one for one in found if not one.accepted)
        self._accepted = _counted(one for one in found if one.accepted)
        self._unseen = Counter(one.check for one in unseen)
        self._at = time.time()

    def samples(self) -> Iterator[Metric]:
        """The families of one scrape; without samples before the first round."""
        for name, text, counts in (
            (
                "ringfence_audit_findings",
                "Findings of the last audit, by check, scope and severity, without accepted ones.",
                self._counts,
            ),
            (
                "ringfence_audit_accepted",
                "Findings of the last audit that are accepted for a reason, by check, scope and severity.",
                self._accepted,
            ),
        ):
            family = GaugeMetricFamily(name, text, labels=["check", "scope", "severity"])
            for labels, count in counts.items():
                family.add_metric(labels, count)
            yield family
        unseen = GaugeMetricFamily(
            "ringfence_audit_unchecked",
            "Objects that a check of the last audit could not examine.",
            labels=["check"],
        )
        for check, count in self._unseen.items():
            unseen.add_metric([check], count)
        yield unseen
        when = GaugeMetricFamily("ringfence_audit_timestamp_seconds", "Time of the last audit.", labels=[])
        if self._at:
            when.add_metric([], self._at)
        yield when

    def _run(self) -> None:
        wait = min(_FIRST, self._interval)
        while not self._stop.wait(wait):
            self.look()
            wait = self._interval


def _counted(findings: Iterable[Finding]) -> Counter[tuple[str, str, str]]:
    """By check, scope and severity."""
    return Counter((one.check.id, one.check.scope, one.severity) for one in findings)
