# SPDX-License-Identifier: Apache-2.0
"""Exceptions that hold on the container's own root filesystem only: for set-id files and attributes."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import TREE_OWN, EventKind
from tests.kernel.lsm import mounted
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
SETID, TREE, PLACES = 0o4000, 2, {"own": "/file", "below": "/var/file", "volume": "/volume/file"}
RULES = (
    Rule(EventKind.SYS_CHMOD, "deny", {0: {SETID}}, {0: SETID}),
    Rule(EventKind.SYS_CHMOD, clears=0, operands={TREE: {TREE_OWN}}),
)


@pytest.fixture(params=["directory", "filesystem"])
def root(request: pytest.FixtureRequest, tmp_path: Path, names: str) -> Iterator[Path]:
    """A container's root: a directory of the disk that the volume is on, or a filesystem of its own."""
    made, volume = tmp_path / "root", tmp_path / "volume"
    for directory in (made, volume):
        directory.mkdir()
    (volume / "file").write_text("x")
    kind = ("--bind", made) if request.param == "directory" else ("-t", "tmpfs", "none")
    with mounted(*kind, made):
        for name in ("volume", "var"):
            (made / name).mkdir()
        for name in ("file", "var/file"):
            (made / name).write_text("x")
        shutil.copy(names, made / "names")
        with mounted("--bind", volume, made / "volume"):
            yield made


def set_by(cgroup: Cgroup, root: Path, path: str) -> int:
    """The errno with which a container in that root fails to set the bit; 0: none."""
    join = "".join(f"echo $$ > {directory}/cgroup.procs; " for directory in set(cgroup.paths.values()))
    start = f'{join} exec unshare -m -R {root} -- /names -100 setid "$1"'
    done = subprocess.run(["sh", "-ec", start, "sh", path], capture_output=True, text=True, check=True)
    word, error, _ = done.stdout.split()
    return int(error) if word == "refused" else 0


@pytest.mark.parametrize("place", PLACES)
def test_an_exception_ends_at_the_edge_of_the_containers_root(
    probes: Probes, cgroup: Cgroup, root: Path, place: str
) -> None:
    """A volume is not the root, on another filesystem or on the same one; without rules all is done."""
    assert set_by(cgroup, root, PLACES[place]) == 0
    probes.enforce(*RULES)
    assert set_by(cgroup, root, PLACES[place]) == (errno.EPERM if place == "volume" else 0)


def test_the_hosts_root_is_no_containers_own(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """A container that was given the host's root as its own gets no exception there."""
    (tmp_path / "file").write_text("x")
    probes.enforce(*RULES)
    done = cgroup.run([names, "-100", "setid", str(tmp_path / "file")], capture_output=True, text=True)
    assert done.stdout.split()[:2] == ["refused", str(errno.EPERM)]
