# SPDX-License-Identifier: Apache-2.0
"""What containers are given, and the host uses as root: directories of logs, and files of engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import (
    TREE_ENGINE,
    TREE_GIVEN,
    TREE_LOG_DIRECTORY,
    TREE_LOGS,
    TREE_OF_LOGS,
    TREE_SHIFT,
    EventKind,
)
from tests.kernel.lsm import FLAGS, REFUSED, TYPE, Outcome, evading, mounted
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.kernel.trees import host_rule, register
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
DONE = Outcome(0)
HERE = "-100"  # AT_FDCWD
LEADS = 3
LINKS = Rule(
    EventKind.FILE_LINK,
    "deny",
    {FLAGS: {1, 2, 3}, TYPE: {TREE_LOGS << TREE_SHIFT}},
    {FLAGS: LEADS, TYPE: 15 << TREE_SHIFT},
)


@pytest.fixture(autouse=True)
def reset(probes: Probes) -> Iterator[None]:
    """Remove the trees after each test."""
    yield
    probes.kernel.map("host_trees").delete_all()


@pytest.fixture
def host(probes: Probes, tmp_path: Path) -> Iterator[Path]:
    """Files of a host on a filesystem of its own, with the rules in force."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        for name in ("logs/pods", "volume", "engine/1234"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("logs/0.log", "volume/data", "engine/1234/hosts"):
            (tmp_path / name).write_text("kept")
        kinds = {"logs": TREE_LOG_DIRECTORY, "volume": TREE_GIVEN, "engine": TREE_ENGINE}
        register(probes, tmp_path, {tmp_path / name: kind for name, kind in kinds.items()})
        probes.enforce(LINKS, host_rule("deny"))
        yield tmp_path


@pytest.mark.parametrize(
    ("path", "target", "outcome"),
    [
        ("logs/x", "/etc/shadow", REFUSED),
        ("logs/pods/x", "../../etc/shadow", REFUSED),
        ("logs/x", "0.log", DONE),
        ("volume/x", "/etc/shadow", DONE),
    ],
)
def test_a_link_that_leads_out_is_not_made_among_logs(
    cgroup: Cgroup, names: str, host: Path, path: str, target: str, outcome: Outcome
) -> None:
    """Of the host; a volume may have any link."""
    assert evading(cgroup, names, HERE, "symlinkto", host / path, target) == outcome


@pytest.mark.parametrize("way", ["rename", "link", "exchange"])
@pytest.mark.parametrize(("target", "outcome"), [("/etc/shadow", REFUSED), ("0.log", DONE)])
def test_a_link_is_not_moved_among_logs(
    cgroup: Cgroup, names: str, host: Path, way: str, target: str, outcome: Outcome
) -> None:
    """Made elsewhere, with the text by which it would be refused there; in either order."""
    for one, other in (("volume/x", "logs/y"), ("logs/z", "volume/z")):
        link, new = (one, other) if one.startswith("volume") else (other, one)
        (host / link).symlink_to(target)
        if way == "exchange":
            (host / new).write_text("x")
        elif one != link:
            continue
        assert evading(cgroup, names, HERE, way, host / one, host / other) == outcome
        assert (host / new).is_symlink() == (outcome == DONE)


@pytest.mark.parametrize(
    ("name", "other", "outcome"),
    [
        ("volume/made", "logs/moved", REFUSED),
        ("logs/made", "logs/moved", DONE),
        ("volume/made", "volume/moved", DONE),
        ("volume/data", "logs/moved", DONE),
    ],
)
def test_a_directory_that_may_have_links_is_not_moved_among_logs(
    cgroup: Cgroup, names: str, host: Path, name: str, other: str, outcome: Outcome
) -> None:
    """Within a tree it is; and so is a file from elsewhere."""
    if name.endswith("made"):
        (host / name).mkdir()
        (host / name / "link").symlink_to("/etc/shadow")
    assert evading(cgroup, names, HERE, "rename", host / name, host / other) == outcome


def test_a_filesystem_for_logs_is_known_by_itself(
    probes: Probes, cgroup: Cgroup, names: str, host: Path
) -> None:
    """It is none of the host's others: files and directories are free, links that lead out are not."""
    register(probes, host, {host / "logs": TREE_LOG_DIRECTORY}, TREE_OF_LOGS)
    assert evading(cgroup, names, HERE, "symlinkto", host / "logs/x", "/etc/shadow") == REFUSED
    assert evading(cgroup, names, HERE, "symlinkto", host / "volume/x", "/etc/shadow") == DONE
    for path in ("logs/new", "volume/new", "new"):
        assert evading(cgroup, names, HERE, "create", host / path) == DONE


@pytest.mark.parametrize("way", ["unlink", "rename", "link", "exchange", "symlink", "fifo"])
def test_nothing_takes_the_place_of_an_engines_file(cgroup: Cgroup, names: str, host: Path, way: str) -> None:
    """The engine follows a link there. A file that is written in place stays what it is."""
    hosts, data = host / "engine/1234/hosts", host / "volume/data"
    if way in ("link", "symlink", "fifo"):
        hosts.unlink()
    words = (data, hosts) if way in ("rename", "link", "exchange") else (hosts,)
    assert evading(cgroup, names, HERE, way, *words) == REFUSED
    if not hosts.exists():
        assert evading(cgroup, names, HERE, "create", hosts) == DONE
    for act in ("write", "empty", "truncate", "chmod"):
        assert evading(cgroup, names, HERE, act, hosts) == DONE
    assert hosts.is_file()


def test_a_directory_that_is_given_is_not_removed(cgroup: Cgroup, names: str, host: Path) -> None:
    """Its name belongs to the directory above; those in it are the container's."""
    (host / "volume/data").unlink()
    assert evading(cgroup, names, HERE, "rmdir", host / "volume") == REFUSED
    assert evading(cgroup, names, HERE, "rmdir", host / "logs/pods") == DONE
