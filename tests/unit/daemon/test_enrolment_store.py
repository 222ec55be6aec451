# SPDX-License-Identifier: Apache-2.0
"""Enrolment requests, on disk for the next agent, and nothing that is not needed any more."""

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
    store = EnrolmentStore(tmp_path)
    store.keep_file("file:aa", "a.yaml", b"text")
    for cgroup in (1, 2):
        store.keep(record(cgroup, "base", "file:aa"))
    store.forget(1)
    assert files(tmp_path) == {"2", "file-aa"}
    store.forget(2)
    assert files(tmp_path) == set()


def test_the_next_agent_knows_the_policies_that_containers_chose(tmp_path: Path) -> None:
    """It reads the records, and removes a file with the last of them as well."""
    before = EnrolmentStore(tmp_path)
    before.keep_file("file:aa", "a.yaml", b"text")
    before.keep_file("file:bb", "b.yaml", b"unused")
    before.keep(record(1, "file:aa"))
    store = EnrolmentStore(tmp_path)
    assert store.records() == [record(1, "file:aa")]
    assert files(tmp_path) == {"1", "file-aa"}
    assert store.file("file:aa") == ("a.yaml", b"text")
    store.forget(1)
    assert files(tmp_path) == set()


def test_the_next_agent_knows_what_executes_a_container(tmp_path: Path) -> None:
    """Policies for modules stay in force over a restart."""
    kept = record(1)._replace(facts=Facts(Enrichment.DONE, handler="wasm"))
    EnrolmentStore(tmp_path).keep(kept)
    assert EnrolmentStore(tmp_path).records() == [kept]


def test_a_file_of_a_container_that_was_not_enrolled_goes(tmp_path: Path) -> None:
    """A file that another container chose stays."""
    store = EnrolmentStore(tmp_path)
    store.keep_file("file:aa", "a.yaml", b"text")
    store.keep_file("file:bb", "b.yaml", b"text")
    store.keep(record(1, "file:aa"))
    for key in ("file:aa", "file:bb"):
        store.release(key)
    assert files(tmp_path) == {"1", "file-aa"}


def test_a_forgotten_file_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """An agent sees a new text with each `ringfence run --policy FILE`."""
    store = EnrolmentStore(tmp_path)
    for number in range(3):
        store.keep_file(f"file:{number}", "a.yaml", b"text")
        store.keep(record(number, f"file:{number}"))
        store.forget(number)
    assert not store._users
