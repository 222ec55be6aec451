# SPDX-License-Identifier: Apache-2.0
"""The small object of tests/kernel/fixtures/binding.bpf.c,
compiled by the test, loaded by the binding.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.bpf import _libbpf
from ringfence.bpf.attach import Attached, AttachPlan, attach_all, detach, places
from ringfence.bpf.objects import Loaded, ObjectFile, Program, load_error
from tests.support import force

__all__ = [
    "DISCARDED",
    "NO_ROOM",
    "SENT",
    "TRIED",
    "attached",
    "compile_fixture",
    "ids",
    "link_id",
    "loaded",
    "program_id",
]

SOURCE = Path(__file__).parent / "fixtures" / "binding.bpf.c"
TRIED, SENT, NO_ROOM, DISCARDED, EXITS, LEFT, SYSCTLS = range(7)


def compile_fixture(directory: Path) -> Path:
    """Compile the object; skip where there is no clang."""
    path = directory / "binding.bpf.o"
    flags = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror")
    subprocess.run([force.need_program("clang"), *flags, "-c", SOURCE, "-o", path], check=True)
    return path


@contextmanager
def loaded(
    path: Path, *, target: int = 0, burst: int = 0, discard_every: int = 0, ring: int = 1 << 16
) -> Iterator[Loaded]:
    """The fixture in the kernel; unloaded at the end."""
    constants = {"target": target or os.getpid(), "burst": burst, "discard_every": discard_every}
    with ObjectFile(path) as file:
        for name, value in constants.items():
            file.write_constant(name, value.to_bytes(4, "little"))
        file.resize("ring", ring)
        try:
            done = file.load()
        except OSError as error:
            raise load_error(error) from None
    try:
        yield done
    finally:
        done.close()


@contextmanager
def attached(done: Loaded, plan: AttachPlan) -> Iterator[list[Attached]]:
    """A plan carried out for the fixture and undone at the end. No item may be skipped."""
    results = list(attach_all(places(done.programs.values(), plan), plan.cgroup_path))
    links = [result for result in results if isinstance(result, Attached)]
    try:
        assert links == results
        yield links
    finally:
        detach(link.fd for link in links)


def ids(kind: str) -> set[int]:
    """Returns the ids of all programs or links on the machine: `prog` or `link`."""
    output = subprocess.run(
        [force.need_program("bpftool"), "-j", kind, "show"], check=True, capture_output=True
    ).stdout
    return {entry["id"] for entry in json.loads(output)}


def program_id(program: Program) -> int:
    """Returns the id as in `ids`: the second word of struct bpf_prog_info."""
    return _id(program.fd)


def link_id(fd: int) -> int:
    """Returns the id of a link: the second word of struct bpf_link_info."""
    return _id(fd)


def _id(fd: int) -> int:
    return int(struct.unpack("=2I", _libbpf.info(fd, 8))[1])
