# SPDX-License-Identifier: Apache-2.0
"""Start times of processes, from /proc/PID/stat."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ringfence_linux.procfs import (
    TICK_NS,
    boottime_ahead_ns,
    live_start,
    own_start_ns,
    parse_stat,
    read_stat,
    start_ticks,
    ticks_of,
)
from tests.support.waiting import wait_for


@pytest.mark.parametrize("name", ["a) R 1 1 (b", "x\ny", "(((", ")))"])
def test_a_process_name_does_not_confuse_the_start_time(tmp_path: Path, name: str) -> None:
    """stat(5) puts the name in parentheses, whatever is in it."""
    (tmp_path / "7").mkdir()
    fields = " ".join(str(number) for number in range(3, 53))
    (tmp_path / "7/stat").write_text(f"7 ({name}) S {fields}")
    # field 22 of proc(5); the state is field 3, and "3" stands for field 4
    assert start_ticks(7, tmp_path) == 21


@pytest.mark.parametrize("text", [b"", b"7", b"7 (a", b"7 a) S", b"7 (a) S 1 2 3"])
def test_what_cannot_be_parsed_is_none(text: bytes) -> None:
    """The text is the kernel's, but a read may come short."""
    assert parse_stat(text) is None


def test_a_process_is_identified_by_its_start() -> None:
    """Both readings agree, and lie in the past."""
    assert live_start(os.getpid()) == start_ticks(os.getpid()) == start_ticks("self")
    assert own_start_ns() == live_start(os.getpid()) * TICK_NS
    assert ticks_of(own_start_ns() + TICK_NS - 1) == live_start(os.getpid())
    assert own_start_ns() < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_zombie_has_a_start_and_is_not_alive() -> None:
    """It stays in the table until its parent waits for it."""
    with subprocess.Popen(["true"]) as child:
        wait_for(lambda: (found := read_stat(child.pid)) and found.state == b"Z", "the child to end")
        assert live_start(child.pid) == 0
        found = read_stat(child.pid)
        assert found is not None
        assert (found.comm, found.ppid) == (b"true", os.getpid())
    assert start_ticks(child.pid) is None
    assert live_start(child.pid) == 0


@pytest.mark.parametrize(
    ("text", "ahead"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic           5         0\nboottime        86400       500\n", 86400 * 10**9 + 500),
        ("boottime           -1         0\n", -(10**9)),
        ("boottime\n", 0),
        ("", 0),
    ],
)
def test_a_time_namespace_is_noticed(tmp_path: Path, text: str, ahead: int) -> None:
    """By its offset; a file that cannot be read is no offset."""
    assert boottime_ahead_ns(tmp_path) == 0
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "timens_offsets").write_text(text)
    assert boottime_ahead_ns(tmp_path) == ahead
