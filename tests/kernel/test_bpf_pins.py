# SPDX-License-Identifier: Apache-2.0
"""Pins survive their agent, are taken over without a gap, and are removed at uninstall."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.bpf import _libbpf
from ringfence.bpf.attach import AttachPlan, detach
from ringfence.bpf.capabilities import mounts_of
from ringfence.bpf.pins import PinDirectory, find_base, uninstall
from ringfence_linux import syscalls
from tests.kernel.binding import TRIED, attached, compile_fixture, ids, link_id, loaded
from tests.kernel.probes import running
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
ENTRY = AttachPlan(entry=frozenset({"getppid"}), tracing=frozenset(), cgroup=frozenset())

KILLED_AGENT = """
import os, signal, sys
from pathlib import Path
from ringfence.bpf.pins import PinDirectory, find_base
from tests.kernel.binding import attached, loaded
from tests.kernel.test_bpf_pins import ENTRY
built, mount, target = sys.argv[1:]
with loaded(Path(built), target=int(target), burst=1) as done, attached(done, ENTRY) as links:
    PinDirectory.create(find_base((mount,))).pin(links, done.maps, next(iter(done.programs.values())))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def fixture_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once for the tests of this file."""
    return compile_fixture(tmp_path_factory.mktemp("binding"))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[str]:
    """A place where the test may mount a bpffs of its own; unmounted at the end."""
    path = str(tmp_path / "bpf")
    yield path
    if path in mounts_of("bpf"):
        syscalls.umount2(path, syscalls.MNT_DETACH)


def base_of(mount: str) -> Path:
    """The directory of all pins."""
    base = find_base((mount,))
    assert base is not None
    return base


def test_bpffs_is_mounted_where_there_is_none(mount: str) -> None:
    """The next agent finds it again; a read-only lookup never creates it."""
    assert find_base((mount,), create=False) is None
    assert mounts_of("bpf").count(mount) == 0
    base = base_of(mount)
    assert base.parent == Path(mount)
    assert base_of(mount) == base
    assert mounts_of("bpf").count(mount) == 1


def test_links_survive_an_agent_that_was_killed(fixture_object: Path, mount: str) -> None:
    """After SIGKILL the programs continue; the next
    agent reads the maps, takes over, then removes.
    """
    arguments = [str(fixture_object), mount, str(os.getpid())]
    killed = subprocess.run([sys.executable, "-c", KILLED_AGENT, *arguments], cwd=Path(__file__).parents[2])
    assert killed.returncode == -9
    (left,) = PinDirectory.all(base_of(mount))
    counts = left.open_map("counts")
    assert counts is not None
    before = counts.sum(TRIED)
    os.getppid()
    assert counts.sum(TRIED) == before + 1

    with loaded(fixture_object, burst=1) as done, attached(done, ENTRY) as links:
        fresh = PinDirectory.create(base_of(mount))
        fresh.pin(links, done.maps, next(iter(done.programs.values())))
        os.getppid()
        assert (counts.sum(TRIED), done.maps["counts"].sum(TRIED)) == (before + 2, 1)  # both: no gap
        left.remove()
        wait_for(lambda: not is_counting(counts), "the old programs to go")
        assert [directory.path for directory in PinDirectory.all(base_of(mount))] == [fresh.path]
        seen = done.maps["counts"].sum(TRIED)
        os.getppid()
        assert done.maps["counts"].sum(TRIED) == seen + 1
    counts.close()


def is_counting(counts: object) -> bool:
    """Returns True if a getppid still increments the counter."""
    before = counts.sum(TRIED)  # type: ignore[attr-defined]
    os.getppid()
    return bool(counts.sum(TRIED) != before)  # type: ignore[attr-defined]


def test_uninstall_leaves_nothing(fixture_object: Path, mount: str) -> None:
    """Pins of several agents, links and mount are removed; a second call succeeds."""
    mine: set[int] = set()
    for _ in range(2):
        with loaded(fixture_object) as done, attached(done, ENTRY) as links:
            PinDirectory.create(base_of(mount)).pin(links, done.maps, next(iter(done.programs.values())))
            mine |= {link_id(link.fd) for link in links}
    assert len(mine) >= 2
    assert mine <= ids("link")
    assert uninstall((mount,)) == 2
    wait_for(lambda: not mine & ids("link"), "the links to go")
    assert mounts_of("bpf").count(mount) == 0
    assert not Path(mount).exists()
    assert uninstall((mount,)) == 0


def test_uninstall_keeps_a_bpffs_of_the_operator(fixture_object: Path, mount: str) -> None:
    """The agent's pins are removed; the bpffs may hold pins of others, and stays mounted."""
    Path(mount).mkdir()
    detached = syscalls.mount_detached("bpf")
    syscalls.move_mount_to(detached, mount)
    os.close(detached)
    with loaded(fixture_object) as done, attached(done, ENTRY) as links:
        PinDirectory.create(base_of(mount)).pin(links, done.maps, next(iter(done.programs.values())))
    assert uninstall((mount,)) == 1
    assert mounts_of("bpf").count(mount) == 1
    assert not Path(mount, "ringfence").exists()


def test_pins_are_all_or_none(fixture_object: Path, mount: str) -> None:
    """If a map or link cannot be pinned, what was pinned before it is removed."""
    with loaded(fixture_object) as done, attached(done, ENTRY) as links:
        directory = PinDirectory.create(base_of(mount))
        (directory.path / "maps" / "counts").mkdir()  # in the way
        with pytest.raises(OSError, match="bpf_obj_pin"):
            directory.pin(links, done.maps, next(iter(done.programs.values())))
        assert not directory.path.exists()


def test_detach_keeps_the_pins(fixture_object: Path, mount: str) -> None:
    """An agent that ends closes its descriptors; the pins keep the links."""
    with loaded(fixture_object, burst=1) as done:
        with attached(done, ENTRY) as links:
            directory = PinDirectory.create(base_of(mount))
            directory.pin(links, {}, next(iter(done.programs.values())))
        assert is_counting(done.maps["counts"])
        directory.remove()
        wait_for(lambda: not is_counting(done.maps["counts"]), "the program to go")
        detach([])


def test_a_directory_gets_its_name_once_it_is_complete(fixture_object: Path, mount: str) -> None:
    """A kill in between leaves a directory marked as incomplete:
    it counts, sorts last, and is removed like any other.
    """
    base = base_of(mount)
    with loaded(fixture_object) as done, attached(done, ENTRY) as links:
        whole = PinDirectory.create(base)
        assert whole.path.name.startswith("new-")
        whole.pin(links, done.maps, next(iter(done.programs.values())))
        assert whole.name == f"00000001-{os.getpid()}"
        assert whole.same_abi
        half = PinDirectory.create(base)
        _libbpf.pin(links[0].fd, str(half.path / "links" / "000-x"))
        found = PinDirectory.all(base)
        assert [one.path.name for one in found] == [whole.name, f"new-00000002-{os.getpid()}"]
        assert not found[1].same_abi
        assert found[1].open_map("counts") is None
        half.remove()
        assert PinDirectory.create(base).path.name.startswith("new-00000002-")


def test_a_failure_in_the_middle_leaves_nothing(fixture_object: Path, mount: str) -> None:
    """A bpffs without space for one more."""
    base = base_of(mount)
    with loaded(fixture_object) as done, attached(done, ENTRY) as links:
        fresh = PinDirectory.create(base)
        bad = [*links, links[0]._replace(fd=10_000)]
        with pytest.raises(OSError, match="bpf_obj_pin"):
            fresh.pin(bad, done.maps, next(iter(done.programs.values())))
    assert PinDirectory.all(base) == []


def test_pins_under_another_name_do_not_outlive_the_agent(mount: str) -> None:
    """A container that moved them: the agent pins again, and removes those."""
    base = base_of(mount)
    with running() as probes:
        kernel = probes.kernel
        kernel.pin(base)
        assert kernel.pins is not None
        own = kernel.pins.path
        own.rename(base / "elsewhere")
        foreign = base / "foreign"
        (foreign / "maps").mkdir(parents=True)
        kernel.pin_again()
        assert kernel.pins is not None
        assert sorted(path.name for path in base.iterdir()) == sorted([kernel.pins.path.name, "foreign"])
        kernel.unpin()
        assert [path.name for path in base.iterdir()] == ["foreign"]
