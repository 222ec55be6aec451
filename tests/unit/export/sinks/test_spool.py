# SPDX-License-Identifier: Apache-2.0
"""The queue on disk: order, bounds, content after a crash, and corrupt files."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import Error
from ringfence.export.sinks.frames import RECORD_MAX
from ringfence.export.sinks.outbox import Outbox
from ringfence.export.sinks.sender import Sender
from ringfence.export.sinks.spool import Spool
from tests.support.descriptors import no_descriptors

SIZE = 1 << 20


def drain(spool: Spool, count: int = 100) -> list[bytes]:
    """Takes and settles everything."""
    found: list[bytes] = []
    while batch := spool.take(count, 1 << 20):
        found += batch.records
        spool.done(batch)
    return found


def test_records_come_out_as_they_went_in(tmp_path: Path) -> None:
    """In order, in batches of the asked size."""
    spool = Spool(tmp_path, SIZE)
    records = [b"%d" % n for n in range(250)]
    assert all(spool.append(record) for record in records)
    assert spool.records == 250
    batch = spool.take(100, 1 << 20)
    assert batch is not None
    assert list(batch.records) == records[:100]
    spool.done(batch)
    assert drain(spool) == records[100:]
    assert spool.records == 0
    assert not spool.lost


def test_what_was_not_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    """At least once: the batch in flight is sent again, the settled one is not."""
    spool = Spool(tmp_path, SIZE)
    for n in range(10):
        spool.append(b"%d" % n)
    first = spool.take(4, 1 << 20)
    assert first is not None
    spool.done(first)
    spool.take(3, 1 << 20)
    spool.close()
    again = Spool(tmp_path, SIZE)
    assert again.records == 6
    again.append(b"new")
    assert drain(again) == [b"4", b"5", b"6", b"7", b"8", b"9", b"new"]
    again.close()
    assert drain(Spool(tmp_path, SIZE)) == []


WRITER = """
import os, sys
from pathlib import Path
from ringfence.export.sinks.outbox import Outbox
from ringfence.export.sinks.sender import Sender
from ringfence.export.sinks.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 32)
for n in range(10**7):
    spool.append(b"%d" % n)
    if n == 500:
        print("written", flush=True)
"""


def test_an_agent_killed_in_the_middle_loses_nothing_that_it_had_written(tmp_path: Path) -> None:
    """SIGKILL while it appends: the queue begins with 0 and has no gap."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    spool = Spool(tmp_path, 1 << 32)
    found = [int(record) for record in drain(spool)]
    assert found == list(range(len(found)))
    assert len(found) > 500
    assert spool.lost["corrupt"] <= 1  # the one that it was writing


def test_a_full_queue_loses_its_oldest_and_counts_them(tmp_path: Path) -> None:
    """Never more on disk than configured; lost + left = put."""
    spool = Spool(tmp_path, SIZE)
    count = 40_000
    for n in range(count):
        spool.append(b"%08d" % n + b"x" * 100)
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert on_disk <= SIZE
    assert spool.held <= SIZE
    left = drain(spool)
    assert spool.lost["queue_full"] + len(left) == count
    assert spool.lost["queue_full"] > 0
    assert int(left[-1][:8]) == count - 1
    assert int(left[0][:8]) == spool.lost["queue_full"]


def test_a_batch_that_is_on_its_way_is_not_counted_as_lost(tmp_path: Path) -> None:
    """Its segment was removed, but the sender holds it."""
    spool = Spool(tmp_path, SIZE)
    for _ in range(100):
        spool.append(b"a" * 1000)
    batch = spool.take(50, 1 << 20)
    assert batch is not None
    for _ in range(3000):
        spool.append(b"b" * 1000)
    spool.done(batch)
    assert spool.lost["queue_full"] + len(drain(spool)) + len(batch.records) == 3100


def test_a_batch_that_is_on_its_way_makes_no_room(tmp_path: Path) -> None:
    """The receiver is away for longer than the queue has room for, and then the agent ends: put = left + lost
    for the next one, too."""
    spool = Spool(tmp_path, SIZE)
    for n in range(100):
        spool.append(b"%08d" % n + b"a" * 1000)
    assert spool.take(50, 1 << 20) is not None
    for n in range(100, 5000):
        spool.append(b"%08d" % n + b"b" * 1000)
    assert spool.held <= SIZE
    lost = spool.lost["queue_full"]
    spool.close()
    left = [int(record[:8]) for record in drain(Spool(tmp_path, SIZE))]
    assert left[:50] == list(range(50))
    assert left == sorted(left)
    assert len(left) + lost == 5000


@pytest.mark.parametrize("cut", [1, 5, 8, 12])
def test_a_torn_end_costs_that_record_alone(tmp_path: Path, cut: int) -> None:
    """A power cut in the middle of a write."""
    spool = Spool(tmp_path, SIZE)
    for n in range(5):
        spool.append(b"record%d" % n)
    spool.close()
    [segment] = tmp_path.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-cut])
    again = Spool(tmp_path, SIZE)
    assert drain(again) == [b"record0", b"record1", b"record2", b"record3"]
    assert again.lost["corrupt"] == 1


@pytest.mark.parametrize("byte", [0, 3, 4, 7, 8, 12], ids=lambda at: f"byte-{at}")
def test_a_damaged_record_costs_that_record_alone(tmp_path: Path, byte: int) -> None:
    """One bit flipped in length, checksum or contents of record 11 of 30: 29 are delivered, before or
    after a restart, and the loss is counted once and passed on.
    """
    records = [b'{"record":%d}' % n for n in range(30)]
    flipped = sum(8 + len(record) for record in records[:11]) + byte
    for restart in (True, False):
        found: list[tuple[str, int, int]] = []
        directory = tmp_path / str(restart)

        def damaged(path: Path, offset: int, count: int, found: list[Any] = found) -> None:
            found.append((path.suffix, offset, count))

        spool = Spool(directory, SIZE, damaged=damaged)
        for record in records:
            spool.append(record)
        [segment] = directory.glob("*.seg")
        data = bytearray(segment.read_bytes())
        data[flipped] ^= 1
        segment.write_bytes(data)
        if restart:
            spool.close()
            spool = Spool(directory, SIZE, damaged=damaged)
            assert spool.records == 29
        assert drain(spool, 7) == records[:11] + records[12:]
        assert (spool.lost["corrupt"], spool.records) == (1, 0)
        assert found == [(".seg", flipped - byte, 1)]


def test_damage_larger_than_a_batch_costs_what_is_in_it(tmp_path: Path) -> None:
    """The records behind it are found, and the sum of delivered and lost ones is not exceeded."""
    size = 1 << 28
    spool = Spool(tmp_path, size)
    for number in range(24):
        spool.append(b"%02d" % number + b"x" * 200_000)
    [segment] = tmp_path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[300_000:3_000_000] = b"y" * 2_700_000
    segment.write_bytes(data)
    found = [int(record[:2]) for record in drain(spool)]
    assert found == [0, *range(15, 24)]
    assert spool.lost["corrupt"] == 14


def test_a_block_of_zeros_is_no_record(tmp_path: Path) -> None:
    """As a power cut leaves it at the end of a file: a length of 0, and the CRC-32 of nothing is 0."""
    spool = Spool(tmp_path, SIZE)
    for number in range(3):
        spool.append(b"%d" % number)
    spool.close()
    [segment] = tmp_path.glob("*.seg")
    with segment.open("ab") as file:
        file.write(bytes(4096))
    again = Spool(tmp_path, SIZE)
    assert again.records <= 4
    assert drain(again) == [b"0", b"1", b"2"]
    assert again.lost["corrupt"] <= 1
    assert again.records == 0


@settings(deadline=None)  # what it takes depends on the disk
@given(garbage=st.binary(max_size=300), at=st.integers(0, 200), cursor=st.binary(max_size=40))
def test_broken_files_are_survived_fuzz(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int, cursor: bytes
) -> None:
    """With any content of the files: nothing is raised, and no record comes out that was not written."""
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory, SIZE)
    written = {b"%d-" % n + b"x" * n for n in range(12)}
    for record in sorted(written):
        spool.append(record)
    spool.close()
    [segment] = directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[at : at + len(garbage)] = garbage
    segment.write_bytes(data)
    (directory / "cursor").write_bytes(cursor)
    again = Spool(directory, SIZE)
    assert again.append(b"last")
    found = drain(again)
    again.close()
    assert found[-1] == b"last"
    assert set(found[:-1]) <= written


def test_what_is_no_segment_is_left_alone(tmp_path: Path) -> None:
    """Foreign files in the directory, with any name, do not prevent a start."""
    for name in ("\u00b2.seg", "-1.seg", "x.seg", ".seg", "\udcff.seg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "000000000007.seg").mkdir()
    spool = Spool(tmp_path, SIZE)
    spool.append(b"one")
    assert drain(spool) == [b"one"]
    assert len(list(tmp_path.glob("*.seg"))) >= 6


def test_a_segment_that_vanishes_is_counted(tmp_path: Path) -> None:
    """A deleted segment's records are lost, and counted."""
    spool = Spool(tmp_path, SIZE)
    spool.append(b"one")
    for path in tmp_path.glob("*.seg"):
        path.unlink()
    assert drain(spool) == []
    assert spool.lost["corrupt"] == 1


def test_a_record_beyond_all_measure_is_counted(tmp_path: Path) -> None:
    """It would never fit in a read."""
    spool = Spool(tmp_path, SIZE)
    assert not spool.append(b"x" * (RECORD_MAX + 1))
    assert spool.lost["too_large"] == 1


def test_two_agents_do_not_share_a_queue(tmp_path: Path) -> None:
    """The second one is refused, with a remedy."""
    first = Spool(tmp_path, SIZE)
    with pytest.raises(Error, match="another agent") as caught:
        Spool(tmp_path, SIZE)
    assert "alerts-queue-dir" in caught.value.hint
    first.close()
    Spool(tmp_path, SIZE).close()


def test_nobody_else_can_read_the_queue(tmp_path: Path) -> None:
    """Alerts contain paths and arguments."""
    spool = Spool(tmp_path / "q", SIZE)
    spool.append(b"x")
    assert (tmp_path / "q").stat().st_mode & 0o077 == 0
    files = list((tmp_path / "q").iterdir())
    assert files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No byte more can be written."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        yield


class NoSender:
    """A receiver's queue without a thread that sends."""

    name = "siem"

    def __init__(self, spool: Spool) -> None:
        self.spool = spool


def test_a_full_disk_is_reported_once_and_its_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the receiver's name and the kernel's words, however many alerts wait."""
    reported: list[tuple[str, str]] = []
    sender = cast(Sender, NoSender(Spool(tmp_path, SIZE)))
    box = Outbox([sender], unwritten=lambda receiver, reason: reported.append((receiver, reason)))
    with full_disk(monkeypatch):
        for number in range(3):
            box._write({"n": number})
        assert reported == [("siem", "No space left on device")]
    box._sync_all()
    box._write({"n": 3})
    assert reported == [("siem", "No space left on device"), ("siem", "")]
    assert sender.spool.in_memory == 0


def test_what_a_full_disk_does_not_take_is_sent_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with nothing lost: after the records on disk, before later ones."""
    spool = Spool(tmp_path, SIZE)
    spool.append(b"0")
    with full_disk(monkeypatch):
        assert all(spool.append(b"%d" % n) for n in range(1, 6))
        assert (spool.records, spool.in_memory) == (6, 5)
        assert spool.wait(0)
        first, second = spool.take(3, SIZE), spool.take(3, SIZE)
        assert first is not None
        assert second is not None
        assert (first.records, second.records) == ((b"0",), (b"1", b"2", b"3"))
        spool.done(first)
        spool.done(second)
        assert spool.records == 2
    spool.append(b"6")
    assert spool.in_memory == 0, "there is room again"
    assert drain(spool) == [b"4", b"5", b"6"]
    assert not spool.lost


def test_memory_goes_to_the_disk_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next sync, and at the latest at the end; what was on its way as well."""
    spool = Spool(tmp_path, SIZE)
    with full_disk(monkeypatch):
        spool.append(b"one")
    spool.sync()
    assert spool.in_memory == 0
    with full_disk(monkeypatch):
        spool.append(b"two")
        assert drain(spool) == [b"one", b"two"]
        spool.append(b"three")
        spool.take(1, SIZE)
    spool.close()
    assert drain(Spool(tmp_path, SIZE)) == [b"three"]


def test_the_disk_is_used_again_while_a_batch_from_memory_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full, and the receiver is away for longer: new records are not lost for lack of memory.
    The batch itself is on the disk, too: sent again by the next agent, or settled."""
    spool = Spool(tmp_path / "away", SIZE, memory_max=1000)
    with full_disk(monkeypatch):
        for n in range(4):
            spool.append(b"%d" % n)
        assert spool.take(2, SIZE) is not None
    for n in range(4, 300):
        assert spool.append(b"%d" % n + b" " * 50)
    assert (spool.records, spool.undelivered, spool.in_memory) == (298, 300, 0)
    spool.close()
    again = Spool(tmp_path / "away", SIZE)
    assert [int(record) for record in drain(again)] == list(range(300))
    assert not any(spool.lost.values())
    spool = Spool(tmp_path / "back", SIZE)
    with full_disk(monkeypatch):
        for n in range(4):
            spool.append(b"%d" % n)
        batch = spool.take(2, SIZE)
    spool.append(b"4")
    assert batch is not None
    spool.done(batch)
    spool.close()
    assert drain(Spool(tmp_path / "back", SIZE)) == [b"2", b"3", b"4"]


def test_what_is_on_its_way_still_waits(tmp_path: Path) -> None:
    """A receiver that is away holds a batch: nobody may read that nothing waits for it."""
    spool = Spool(tmp_path, SIZE)
    for n in range(10):
        spool.append(b"%d" % n)
    batch = spool.take(6, SIZE)
    assert (spool.records, spool.undelivered) == (4, 10)
    assert batch is not None
    spool.done(batch)
    assert (spool.records, spool.undelivered) == (4, 4)


def test_memory_is_bounded_and_what_it_cannot_hold_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put = left + lost, at the end of an agent whose disk stays full, too."""
    spool = Spool(tmp_path, SIZE, memory_max=1000)
    with full_disk(monkeypatch):
        kept = [spool.append(b"x" * 100) for _ in range(25)]
        assert (sum(kept), spool.lost["disk_error"]) == (10, 15)
        spool.close()
    assert spool.lost["disk_error"] == 25
    assert Spool(tmp_path, SIZE).records == 0


def test_without_descriptors_nothing_is_lost(tmp_path: Path) -> None:
    """EMFILE: neither forcing to disk, nor a new segment, nor reading ends anything."""
    spool = Spool(tmp_path, SIZE)
    for n in range(10):
        spool.append(b"%d" % n)
    with no_descriptors():
        spool.sync()
        assert spool.sync_errors == 1
        with pytest.raises(OSError, match="Too many open files"):
            spool.take(10, SIZE)
        for n in range(10, 1500):
            spool.append(b"%d" % n + b" " * 100)
        assert spool.in_memory
    spool.sync()
    assert [int(record) for record in drain(spool)] == list(range(1500))
    assert not spool.lost


def test_the_name_of_a_new_segment_is_forced_to_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes a file whose directory was not synced, whatever was done to its content."""
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: forced.append(os.fstat(fd).st_ino))
    spool = Spool(tmp_path, SIZE)
    spool.append(b"one")
    spool.sync()
    spool.append(b"two")
    spool.sync()
    assert forced == [tmp_path.stat().st_ino], "once a segment"
    while len(list(tmp_path.glob("*.seg"))) < 2:
        spool.append(b"x" * 1000)
    spool.sync()
    assert forced == [tmp_path.stat().st_ino] * 2
