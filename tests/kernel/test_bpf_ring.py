# SPDX-License-Identifier: Apache-2.0
"""The ring of this kernel, read by the binding: every lost record is counted, none is read twice."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.maps import Map
from ringfence.bpf.ring import Ring
from tests.kernel.binding import DISCARDED, NO_ROOM, SENT, TRIED, attached, compile_fixture, loaded

pytestmark = pytest.mark.root
ENTRY = AttachPlan(entry=frozenset({"getppid"}), tracing=frozenset(), cgroup=frozenset())


@pytest.fixture(scope="module")
def fixture_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once for the tests of this file."""
    return compile_fixture(tmp_path_factory.mktemp("binding"))


def numbers(records: list[bytes]) -> list[int]:
    """Each record begins with its number."""
    return [int.from_bytes(record[:8], "little") for record in records]


def totals(counts: Map) -> tuple[int, int, int, int]:
    """Tried, sent, refused because the ring was full, discarded by the probe."""
    return counts.sum(TRIED), counts.sum(SENT), counts.sum(NO_ROOM), counts.sum(DISCARDED)


def test_every_record_arrives_in_order(fixture_object: Path) -> None:
    """Fewer than the ring holds: all arrive, each record with the length that was reserved."""
    with loaded(fixture_object, burst=50) as done, attached(done, ENTRY):
        with Ring(done.maps["ring"].fd, done.maps["ring"].max_entries) as ring:
            os.getppid()
            assert ring.pending() > 0
            records = ring.read()
            assert numbers(records) == list(range(50))
            assert {len(record) for record in records[0::2]} == {312}
            assert {len(record) for record in records[1::2]} == {24}
            assert (ring.pending(), ring.read()) == (0, [])


def test_burst_beyond_the_ring_is_counted_exactly(fixture_object: Path) -> None:
    """Emitted = received + dropped, exactly, while the ring overflows repeatedly."""
    received: list[int] = []
    with loaded(fixture_object, burst=400, discard_every=7, ring=1 << 14) as done, attached(done, ENTRY):
        with Ring(done.maps["ring"].fd, done.maps["ring"].max_entries) as ring:
            for turn in range(200):
                os.getppid()
                received += numbers(ring.read(max_records=10 + turn))
            while batch := ring.read():
                received += numbers(batch)
            tried, sent, no_room, discarded = totals(done.maps["counts"])
            assert ring.pending() == 0
    assert tried == 200 * 400
    assert no_room > 1000
    assert discarded > 100
    assert len(received) == sent
    assert tried == sent + no_room + discarded
    assert received == sorted(set(received))
    assert not [number for number in received if number % 7 == 0]


def test_reader_beside_a_writer_loses_nothing(fixture_object: Path) -> None:
    """Reading while another thread fills the ring on another CPU: still exact, and in order."""
    turns = 3000
    received: list[int] = []
    with loaded(fixture_object, burst=20, ring=1 << 15) as done, attached(done, ENTRY):
        with Ring(done.maps["ring"].fd, done.maps["ring"].max_entries) as ring:
            writer = threading.Thread(target=lambda: [os.getppid() for _ in range(turns)])
            writer.start()
            while writer.is_alive() or ring.pending():
                received += numbers(ring.read())
            writer.join()
            received += numbers(ring.read())
            tried, sent, no_room, _ = totals(done.maps["counts"])
    assert tried == turns * 20
    assert (len(received), tried) == (sent, sent + no_room)
    assert received == sorted(set(received))


def test_epoll_wakes_for_a_record(fixture_object: Path) -> None:
    """The map's descriptor is readable exactly while records wait."""
    with loaded(fixture_object, burst=1) as done, attached(done, ENTRY):
        with Ring(done.maps["ring"].fd, done.maps["ring"].max_entries) as ring, select.epoll() as epoll:
            epoll.register(ring.fileno(), select.EPOLLIN)
            assert epoll.poll(0) == []
            os.getppid()
            assert epoll.poll(5) == [(ring.fileno(), select.EPOLLIN)]
            ring.read()
            assert epoll.poll(0) == []


def test_ring_closes_clean(fixture_object: Path) -> None:
    """No mapping remains: repeated loads do not leak memory."""
    with loaded(fixture_object) as done:
        before = Path("/proc/self/maps").read_text().count("bpf-map")
        Ring(done.maps["ring"].fd, done.maps["ring"].max_entries).close()
        assert Path("/proc/self/maps").read_text().count("bpf-map") == before
