# SPDX-License-Identifier: Apache-2.0
"""The writer: nothing that happens to the output holds up or ends the agent, and nothing is lost
uncounted."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from ringfence.export.jsonl import LineWriter, line_of
from tests.support.waiting import wait_for


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    """What was queued is in the file after close, in order, and counted."""
    writer = LineWriter(tmp_path / "out")
    for number in range(1000):
        assert writer.write(b"%d\n" % number)
    writer.close()
    assert (tmp_path / "out").read_text().split() == [str(n) for n in range(1000)]
    assert writer.written == 1000
    assert not writer.dropped


def test_a_closed_pipe_is_counted_and_reported_once() -> None:
    """The reader is gone: every line counts as closed, the complaint comes once."""
    complaints: list[tuple[str, str]] = []
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = LineWriter(write_end, complain=lambda *what: complaints.append(what))
    for _ in range(3):
        writer.write(b"x\n")
        wait_for(lambda: writer._lines.empty(), "the line to be taken")
    writer.close()
    os.close(write_end)
    assert writer.dropped == {"closed": 3}
    assert complaints == [("closed", "output")]


def test_a_full_disk_is_counted_and_reported_once() -> None:
    """/dev/full answers ENOSPC to every write."""
    complaints: list[tuple[str, str]] = []
    with open("/dev/full", "wb") as full:
        writer = LineWriter(full.fileno(), complain=lambda *what: complaints.append(what))
        for _ in range(5):
            writer.write(b"x\n")
        writer.close()
    assert writer.dropped == {"disk_full": 5}
    assert len(complaints) == 1


def test_a_reader_that_sleeps_costs_lines_but_no_time() -> None:
    """The pipe is full and not read: write returns at once, the overflow is counted as slow."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end, capacity=100)
    line = b"x" * 4095 + b"\n"
    for _ in range(500):
        writer.write(line)
    assert (
        writer.dropped["slow"] >= 500 - 100 - 64 - 16
    )  # queue, pipe of 64 KiB, a batch in the writer's hands
    received = bytearray()

    def drain() -> None:
        while data := os.read(read_end, 1 << 16):
            received.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    writer.close(timeout=5)
    os.close(write_end)
    reader.join(5)
    os.close(read_end)
    assert writer.written + writer.dropped["slow"] == 500
    assert received.count(b"\n") == writer.written


def test_a_line_that_was_torn_does_not_spoil_the_next() -> None:
    """After a write that ended inside a line, the next line begins on a line of its own."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end)
    writer._torn = True
    writer.write(b"whole\n")
    writer.close()
    os.close(write_end)
    assert os.read(read_end, 100) == b"\nwhole\n"
    os.close(read_end)


@pytest.mark.parametrize(("left", "kept"), [(b"", b""), (b"a\n", b"a\n"), (b"a\n{torn", b"a\n{torn\n")])
def test_an_agent_that_was_killed_inside_a_line_spoils_no_line_of_the_next(
    tmp_path: Path, left: bytes, kept: bytes
) -> None:
    """By SIGKILL or a power cut. A file that was rotated has no such end, whatever the one before had."""
    path = tmp_path / "out"
    path.write_bytes(left)
    writer = LineWriter(path)
    writer.write(b"whole\n")
    assert writer.settle(5)
    assert path.read_bytes() == kept + b"whole\n"
    path.rename(tmp_path / "out.1")
    path.write_bytes(left)
    writer.reopen()
    writer.write(b"first\n")
    writer.close()
    assert path.read_bytes() == kept + b"first\n"


def test_reopen_follows_a_rotated_file(tmp_path: Path) -> None:
    """After a rename and `reopen`, lines go to a new file of the old name."""
    path = tmp_path / "out"
    writer = LineWriter(path)
    writer.write(b"old\n")
    wait_for(lambda: writer.written == 1, "the first line")
    path.rename(tmp_path / "out.1")
    writer.reopen()
    writer.write(b"new\n")
    writer.close()
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "out.1").read_bytes() == b"old\n"


def test_a_reopen_that_fails_leaves_no_descriptor_of_others_to_write_to(tmp_path: Path) -> None:
    """The directory is away when the file is opened again: lines are kept where they were going, and never go
    to whatever was opened meanwhile. Once it is back, they are in the new file."""
    complaints: list[tuple[str, str]] = []
    path = tmp_path / "logs/out"
    path.parent.mkdir()
    writer = LineWriter(path, complain=lambda reason, name: complaints.append((reason, name)))
    writer.write(b"old\n")
    assert writer.settle(5)
    path.parent.rename(tmp_path / "away")
    writer.reopen()
    writer.write(b"first\n")
    assert writer.settle(5)
    others = [os.open(tmp_path / f"other{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
    writer.write(b"second\n")
    assert writer.settle(5)
    assert [os.fstat(fd).st_size for fd in others] == [0] * 8
    assert (tmp_path / "away/out").read_bytes() == b"old\nfirst\nsecond\n"
    assert complaints == [("not_reopened", str(path))]
    path.parent.mkdir()
    writer.write(b"third\n")
    writer.close()
    assert path.read_bytes() == b"third\n"
    assert writer.written == 4
    assert not writer.dropped
    for fd in others:
        os.close(fd)


def test_records_are_one_json_object_a_line() -> None:
    """Text with quotes and non-ASCII letters survives; a lone surrogate is escaped."""
    record = {"event": "file.open", "details": {"path": 'a"b\u00e9'}}
    line = line_of(record)
    assert line.endswith(b"\n")
    assert json.loads(line) == record
    assert line_of({"path": "\udc80"}) == b'{"path":"\\udc80"}\n'


def test_a_file_does_not_stay_in_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fill the agent's memory limit. It is given up once in a MiB."""
    given_up: list[int] = []
    monkeypatch.setattr("ringfence.export.jsonl.forget_cache", given_up.append)
    writer = LineWriter(tmp_path / "out")
    line = b"x" * 65535 + b"\n"
    for count, expected in ((15, 0), (1, 1), (16, 2)):
        for _ in range(count):
            assert writer.write(line)
        assert writer.settle(5)
        assert len(given_up) == expected
    writer.close()
