# SPDX-License-Identifier: Apache-2.0
"""One bad record costs only itself: it is counted, and the others are handled."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

from ringfence.abi import EventKind
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Picture
from ringfence.daemon.verdicts.dispatcher import Dispatcher
from ringfence.export.stats import Stats
from ringfence.faults import handler_errors
from ringfence.wire import encode, make
from tests.unit.containers.fakes import FakeSlots

CGROUP = 9


def dispatcher(pipeline: mock.Mock) -> tuple[Dispatcher, Stats, int]:
    """A dispatcher, its counters, and the slot of its only container."""
    stats, slots = Stats(), FakeSlots()
    slot = slots.enroll(CGROUP)
    registry = Registry(slots)
    registry.add(Container.unnamed(CGROUP, slot))
    stream = mock.Mock(wanted=[False] * 256)
    nobody = cast(Any, mock.Mock())
    picture = Picture("node-1", registry, ProcessTree(), stats)
    made = Dispatcher(picture, nobody, pipeline, nobody, stream, None, nobody)
    return made, stats, slot


def test_an_unreadable_record_is_counted_and_the_next_is_handled() -> None:
    """Cut, empty, of another version."""
    pipeline = mock.Mock()
    made, stats, slot = dispatcher(pipeline)
    good = encode(make(EventKind.FILE_OPEN, container=CGROUP, slot=slot, action=1))
    made.on_records([good[:20], b"", bytes([good[0], good[1], 99]) + good[3:], good], [])
    assert stats.decode_errors.total() == 3
    assert pipeline.handle.call_count == 1


def test_a_bug_in_one_record_does_not_end_the_loop() -> None:
    """The exception is counted; the next record is handled."""
    pipeline = mock.Mock()
    pipeline.handle.side_effect = [ZeroDivisionError("a bug"), None]
    made, _, slot = dispatcher(pipeline)
    good, before = (
        encode(make(EventKind.FILE_OPEN, container=CGROUP, slot=slot, action=1)),
        handler_errors["record"],
    )
    made.on_records([good, good], [])
    assert (handler_errors["record"] - before, pipeline.handle.call_count) == (1, 2)


def test_a_container_with_few_records_does_not_wait_for_one_with_many() -> None:
    """One record of each container in turn; each container's own come in their order."""
    pipeline = mock.Mock()
    made, _, slot = dispatcher(pipeline)
    loud = [make(EventKind.FILE_OPEN, container=CGROUP, slot=slot, action=1, pid=n) for n in range(1000)]
    quiet = [make(EventKind.FILE_OPEN, container=55, slot=slot, action=1, pid=n) for n in range(2)]
    made.on_records([encode(event) for event in (*loud, *quiet)], [])
    handled = [(call.args[0].container, call.args[0].pid) for call in pipeline.handle.call_args_list]
    assert handled[:5] == [(CGROUP, 0), (55, 0), (CGROUP, 1), (55, 1), (CGROUP, 2)]
    assert [pid for container, pid in handled if container == CGROUP] == list(range(1000))
