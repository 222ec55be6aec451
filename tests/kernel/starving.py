# SPDX-License-Identifier: Apache-2.0
"""Processes of a container that find every buffer for texts taken."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ringfence.abi import EventKind
from ringfence.bpf.kernel import DEFAULT_OBJECT
from tests.kernel.probes import Probes
from tests.support.cgroups import Cgroup
from tests.support.waiting import wait_for
from tools.abi import dump

__all__ = ["Act", "offset_of", "pools_taken"]

_TAKEN = b"\xff" * 8


@functools.cache
def offset_of(struct: str, member: str) -> int:
    """Returns the offset of a member of a struct of the probes."""
    structs = {entry.get("name"): entry for entry in dump(DEFAULT_OBJECT) if entry["kind"] == "STRUCT"}
    found: list[dict[str, Any]] = structs[struct]["members"]
    return int(next(one["bits_offset"] for one in found if one["name"] == member)) // 8


def _taken_at() -> int:
    return offset_of("rf_armed", "scratch") + offset_of("rf_scratch", "taken")


@contextlib.contextmanager
def pools_taken(probes: Probes) -> Iterator[None]:
    """Every buffer of the pools is taken, until the end of the block."""
    own, shared = probes.kernel.map("scratch_busy"), probes.kernel.map("scratch_shared_busy")
    before = own.get(0)
    assert before is not None
    own.set(0, _TAKEN * (len(before) // 8))
    shared.set(0, _TAKEN)
    try:
        yield
    finally:
        own.set(0, bytes(len(before)))
        shared.set(0, bytes(8))


class Act:
    """`act` in a container. It makes each call when `call` is called, and waits before it."""

    def __init__(self, probes: Probes, cgroup: Cgroup, act: str, *calls: str) -> None:
        """The process is bound when this returns."""
        argv = [act, *(word for call in calls for word in ("wait", call))]
        self._probes = probes
        self.process = cgroup.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._until_it_waits()
        assert any(event.pid == self.pid for event in probes.wait(cgroup, EventKind.CONTAINER_START))

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Act:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def _until_it_waits(self) -> None:
        """It is in read(0, ...), and in no program."""

        def waits() -> bool:
            if self.process.poll() is not None:
                raise AssertionError("the process has ended")
            return Path(f"/proc/{self.pid}/syscall").read_text().startswith("0 0x0 ")

        wait_for(waits, "the process to wait")

    def take_buffer(self, *, taken: bool = True) -> None:
        """Its own buffer is in use from here on, as by a program that was interrupted; or free again."""
        self._until_it_waits()
        pidfd, tasks = os.pidfd_open(self.pid), self._probes.kernel.map("tasks")
        try:
            value = tasks.get(pidfd)
            assert value is not None
            at = _taken_at()
            tasks.set(pidfd, value[:at] + int(taken).to_bytes(4, "little") + value[at + 4 :])
        finally:
            os.close(pidfd)

    def call(self) -> int | None:
        """The result of the next call; None: the process was killed, or is another program."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # killed before: no result can be read
            os.write(self.process.stdin.fileno(), b"x")
        self.process.stdout.readline()
        said = self.process.stdout.readline().split()
        return int(said[1]) if said else None

    def starved_call(self) -> int | None:
        """The same with its own buffer and those of the pools taken."""
        self.take_buffer()
        with pools_taken(self._probes):
            return self.call()

    def status(self) -> int:
        """How it ended."""
        return self.process.wait(timeout=60)
