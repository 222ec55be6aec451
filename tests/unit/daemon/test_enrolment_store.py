# SPDX-License-Identifier: Apache-2.0
"""What runtimes told, on disk for the next agent; and nothing that nobody needs any more."""

from __future__ import annotations

from pathlib import Path

from ringfence.containers.model import Enrichment, Facts
from ringfence.daemon.tracking.enrolment_store import EnrolmentRecord, EnrolmentStore


def record(cgroup: int, *chosen: str) -> EnrolmentRecord:
    """One container with the policies that it chose."""
    return EnrolmentRecord(cgroup, f"/rftest/{cgroup}", f"c{cgroup}", Facts(Enrichment.DONE), chosen)


def files(directory: Path) -> set[str]:
    """What is kept."""
    return {path.name for path in directory.iterdir()}


def test_a_policy_file_goes_with_the_last_container_that_chose_it(tmp_path: Path) -> None:
    """Else each text of `ringfence run --policy FILE` would stay in memory (/run) as long as the
    agent.
    """
    told = EnrolmentStore(tmp_path)
    told.keep_file("file:aa", "a.yaml", b"text")
    for cgroup in (1, 2):
        told.keep(record(cgroup, "base", "file:aa"))
    told.forget(1)
    assert files(tmp_path) == {"2", "file-aa"}
    told.forget(2)
    assert files(tmp_path) == set()


def test_the_next_agent_knows_who_chose_what(tmp_path: Path) -> None:
    """It reads the records, and removes a file with the last of them as well."""
    before = EnrolmentStore(tmp_path)
    before.keep_file("file:aa", "a.yaml", b"text")
    before.keep_file("file:bb", "b.yaml", b"nobody's")
    before.keep(record(1, "file:aa"))
    told = EnrolmentStore(tmp_path)
    assert told.records() == [record(1, "file:aa")]
    assert files(tmp_path) == {"1", "file-aa"}
    assert told.file("file:aa") == ("a.yaml", b"text")
    told.forget(1)
    assert files(tmp_path) == set()


def test_a_file_of_a_container_that_was_not_enrolled_goes(tmp_path: Path) -> None:
    """One that somebody else chose stays."""
    told = EnrolmentStore(tmp_path)
    told.keep_file("file:aa", "a.yaml", b"text")
    told.keep_file("file:bb", "b.yaml", b"text")
    told.keep(record(1, "file:aa"))
    for key in ("file:aa", "file:bb"):
        told.release(key)
    assert files(tmp_path) == {"1", "file-aa"}
