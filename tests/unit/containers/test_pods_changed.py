# SPDX-License-Identifier: Apache-2.0
"""A changed pod: its containers are queried again, and keep their facts and policies meanwhile."""

from __future__ import annotations

from typing import Any, cast

from ringfence.containers.enrich import Request
from ringfence.containers.enrich.worker import Answer
from ringfence.containers.model import Container, Enrichment, Facts
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Loaded, Picture
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.export.stats import Stats
from tests.unit.containers.fakes import FakeSlots

UID = "0f0f0f0f-1111-2222-3333-444444444444"


class FakeWorker:
    """Records requests, and returns the answers of the test."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.waiting: list[Answer] = []

    def submit(self, request: Request) -> bool:
        self.asked.append(request)
        return True

    def answers(self) -> list[Answer]:
        found, self.waiting = self.waiting, []
        return found


class FakeGenerations:
    """Records the facts by which policies were selected."""

    def __init__(self) -> None:
        self.chosen: list[Container | None] = []

    def assign(self, slot: int, cgroup: int, known: Container | None) -> frozenset[int]:
        self.chosen.append(known)
        return frozenset()


class FakeLosses:
    """Loses nothing."""

    def retire(self, slot: int) -> None:
        """Nothing to add up."""


def test_a_changed_label_selects_other_policies() -> None:
    """Only for containers of that pod; the old policies stay in force until the answer."""
    registry, worker, generations = Registry(FakeSlots()), FakeWorker(), FakeGenerations()
    loaded = Loaded(cast(Any, None), cast(Any, None), cast(Any, generations))
    tracker = ContainerTracker(loaded, Picture("node-1", registry, ProcessTree(), Stats()), cast(Any, worker))
    for number, pod in enumerate((UID, "1" + UID[1:])):
        path = f"/kubepods/burstable/pod{pod}/{str(number) * 64}"
        registry.add(Container.unnamed(100 + number, number).at(path))
    worker.waiting.append(Answer(100, Facts(Enrichment.DONE, labels={"a": "1"}, pod="web-0", pod_uid=UID)))
    list(tracker.answers())
    tracker.pods_changed(frozenset((UID,)))
    assert [request.cgroup_id for request in worker.asked] == [100]
    worker.waiting.append(Answer(100, Facts(Enrichment.PENDING)))
    list(tracker.answers())
    assert generations.chosen[-1] is not None  # not back to what holds at birth
    worker.waiting.append(Answer(100, Facts(Enrichment.DONE, labels={"a": "2"}, pod="web-0", pod_uid=UID)))
    list(tracker.answers())
    known = generations.chosen[-1]
    assert known is not None
    assert (known.labels, known.pod) == ({"a": "2"}, "web-0")
