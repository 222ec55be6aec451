# SPDX-License-Identifier: Apache-2.0
"""userns auto: separate ids for each container, on real files, and never the same twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.errors import Error
from ringfence_runtime.launch import autouserns
from tests.runtime.conftest import Box
from tests.runtime.test_run_fences import Front, front, tree
from tests.support.waiting import wait_for

__all__ = ["front", "tree"]
pytestmark = pytest.mark.root
FIRST = autouserns.POOL[0]  # where /etc/subuid names no range


@pytest.fixture(autouse=True)
def ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ranges that are taken, for this test alone; none may be left at its end."""
    directory = tmp_path / "ranges"
    monkeypatch.setenv("RINGFENCE_USERNS_DIR", str(directory))
    if any(line.startswith("ringfence:") for line in Path("/etc/subuid").read_text().splitlines()):
        pytest.skip("this machine gives user ringfence ranges of its own")
    return directory


def mapped(box: Box) -> Box:
    """Request it by the annotation, as an engine's container does."""
    box.config["annotations"] = {"ringfence.io/userns": "auto"}
    return box


def host_uid(pid: int) -> int:
    """Returns the user of a process on the host."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])


def test_ids_are_separate_and_the_root_filesystem_belongs_to_its_root(box: Box, ranges: Path) -> None:
    """The host's root made the files; inside they are
    root's, outside the workload is an unprivileged user.
    """
    mapped(box).shell("stat -c %u:%g /bin/busybox; touch /made; cat /proc/self/uid_map /proc/self/gid_map")
    lines = [line.split() for line in box.output().splitlines()]
    assert lines == [["0:0"], ["0", str(FIRST), "65536"], ["0", str(FIRST), "65536"]]
    made = (box.rootfs / "made").stat()
    assert (made.st_uid, made.st_gid) == (0, 0)
    assert list(ranges.iterdir()) == []


def test_two_containers_have_two_ranges_and_release_them(boxes: Any, ranges: Path) -> None:
    """For as long as they live; exec has the same ids."""
    first, second = mapped(boxes()).start(), mapped(boxes()).start()
    assert [host_uid(box.state()["pid"]) for box in (first, second)] == [FIRST, FIRST + 65536]
    assert first.exec("/bin/id", "-u").stdout == "0\n"
    assert sorted(path.name for path in ranges.iterdir()) == ["0", "1"]
    assert first.do("delete", "--force").returncode == 0
    third = mapped(boxes()).start()
    assert host_uid(third.state()["pid"]) == FIRST
    for box in (second, third):
        assert box.do("delete", "--force").returncode == 0
    assert list(ranges.iterdir()) == []


def test_a_launch_that_fails_releases_its_range(box: Box, ranges: Path) -> None:
    """Also one that is killed, when its container is deleted."""
    mapped(box).args("/bin/no-such-program").refused()
    assert list(ranges.iterdir()) == []


def test_a_range_of_a_runtime_that_was_killed_is_taken_over(tmp_path: Path, ranges: Path) -> None:
    """Its owner is dead and its container was never made, or is removed."""
    ranges.mkdir()
    (ranges / "0").write_text(f"999999999 1 {tmp_path}/no-such-container")
    (ranges / "1").write_text(f"999999999 1 {tmp_path}")  # this one exists
    (ranges / "2").write_text("junk")
    assert [autouserns.take(f"{tmp_path}/{number}").index for number in range(3)] == [0, 2, 3]


def test_many_at_once_get_different_ranges(tmp_path: Path, ranges: Path) -> None:
    """Sixteen processes take four each."""
    script = (
        "import sys; sys.path.insert(0, 'runtime')\n"
        "from ringfence_runtime.launch.autouserns import take\n"
        f"for number in range(4): print(take('{tmp_path}').uid)\n"
    )
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(16)
    ]
    found = [int(line) for taker in takers for line in taker.communicate()[0].split()]
    assert len(found) == 64
    assert sorted(found) == [FIRST + 65536 * index for index in range(64)]


def files(monkeypatch: pytest.MonkeyPatch, subuid: list[str], subgid: list[str]) -> None:
    """Set the contents of /etc/subuid and /etc/subgid."""
    texts = {"/etc/subuid": "\n".join(subuid), "/etc/subgid": "\n".join(subgid)}
    real = autouserns._read
    monkeypatch.setattr(autouserns, "_read", lambda path: texts[path] if path in texts else real(path))


def test_ranges_of_subuid_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole ranges of the user's lines, in their order; other users' and broken lines are ignored."""
    lines = ["other:1:65536", "ringfence:100000:131072", "ringfence:x:1", "ringfence:900000:65535"]
    files(monkeypatch, [*lines, "ringfence:500000:65536"], ["ringfence:700000:196608"])
    expected = [(0, 100000, 700000), (1, 165536, 765536), (2, 500000, 831072)]
    assert autouserns.ranges() == expected


@pytest.mark.parametrize("both", [("/etc/subuid", 1), ("/etc/subgid", 0)])
def test_uids_without_gids_are_an_error(monkeypatch: pytest.MonkeyPatch, both: tuple[str, int]) -> None:
    """Half from the administrator and half from the pool is never intended."""
    given = [["ringfence:100000:65536"], ["other:1:2"]]
    files(monkeypatch, given[both[1]], given[1 - both[1]])
    with pytest.raises(Error, match=both[0]):
        autouserns.ranges()


def test_ranges_of_others_are_excluded_from_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uids or gids, in part or whole; the numbers of the other ranges stay the same."""
    files(monkeypatch, [f"alice:{FIRST + 65536}:1"], [f"bob:{FIRST + 4 * 65536 - 1}:2"])
    assert [number for number, _, _ in autouserns.ranges()][:4] == [0, 2, 5, 6]


def test_the_pool_is_outside_of_others_ranges() -> None:
    """sssd-ldap(5): ldap_idmap_range_max; systemd.io/UIDS-GIDS: the foreign range."""
    sssd, foreign = 2000200000, 2147352576
    assert sssd <= FIRST
    assert FIRST + autouserns.POOL[1] * 65536 <= foreign


@pytest.mark.parametrize("text", ["1", "x:1", "4294967295:1", "1:-1", "4000000000:9999"])
def test_a_pool_can_be_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """An invalid one is an error."""
    files(monkeypatch, [], [])
    monkeypatch.setenv("RINGFENCE_USERNS_POOL", "3000000000:2")
    assert [uid for _, uid, _ in autouserns.ranges()] == [3000000000, 3000065536]
    monkeypatch.setenv("RINGFENCE_USERNS_POOL", text)
    with pytest.raises(Error, match="RINGFENCE_USERNS_POOL"):
        autouserns.ranges()


def test_no_range_left_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With advice on what helps."""
    files(monkeypatch, ["ringfence:100000:65536"], ["ringfence:100000:65536"])
    assert autouserns.take(str(tmp_path)).uid == 100000
    with pytest.raises(Error, match="every range of ids is taken"):
        autouserns.take(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"annotations": {"ringfence.io/userns": "yes"}}, "annotations.ringfence.io/userns"),
        ({"mappings": True}, "linux.uidMappings"),
    ],
)
def test_invalid_requests_are_refused(box: Box, change: dict[str, Any], place: str, ranges: Path) -> None:
    """An unknown word, and mappings beside it."""
    mapped(box)
    box.config["annotations"] |= change.get("annotations", {})
    if change.get("mappings"):
        box.config["linux"]["namespaces"].append({"type": "user"})
        for key in ("uidMappings", "gidMappings"):
            box.config["linux"][key] = [{"containerID": 0, "hostID": 1, "size": 1}]
    assert place in box.refused()


def test_ringfence_run_supports_it_for_directories_and_detached(front: Front, ranges: Path) -> None:
    """--userns auto; the output of a detached one is still kept."""
    front.environment["RINGFENCE_USERNS_DIR"] = str(ranges)
    _, got = front("--userns", "auto", words=("sh", "-c", "stat -c %u /bin/busybox; cat /proc/self/uid_map"))
    assert got.stdout.split() == ["0", "0", str(FIRST), "65536"], got.stderr
    assert list(ranges.iterdir()) == []
    assert not [path for path in front.tree.rglob("*") if os.lstat(path).st_uid]


def test_a_detached_sandbox_with_ids_of_its_own_keeps_its_output(front: Front, ranges: Path) -> None:
    """The file belongs to the range: its root reopens it, and `logs` reads it."""
    front.environment["RINGFENCE_USERNS_DIR"] = str(ranges)
    name, got = front(
        "--userns", "auto", "--detach", words=("sh", "-c", "echo kept; echo more >>/dev/stdout")
    )
    assert got.returncode == 0, got.stderr
    log = front.directory / "images/containers" / name / "output"
    wait_for(lambda: log.read_text() == "kept\nmore\n", "its output")
    assert log.stat().st_uid == FIRST
    places = ["--state-root", f"{front.directory}/state", "--image-root", f"{front.directory}/images"]
    rm = [sys.executable, "-m", "ringfence", "rm", "--force", *places]
    done = subprocess.run([*rm, name], env=front.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(ranges.iterdir()) == []
