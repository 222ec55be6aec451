# SPDX-License-Identifier: Apache-2.0
"""Noticing that policy files changed: once, when the change has settled."""

from __future__ import annotations

import os
from pathlib import Path

from ringfence.daemon.policies.file_watch import FileWatch


def settle(watch: FileWatch) -> list[bool]:
    """Three looks, a second apart in life."""
    return [watch.changed() for _ in range(3)]


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    """A look at files that stay as they are says no."""
    (tmp_path / "a.yaml").write_text("x")
    assert settle(FileWatch([tmp_path])) == [False, False, False]


def test_a_change_counts_once_and_only_when_it_has_settled(tmp_path: Path) -> None:
    """The first look after a write waits for a second one that agrees."""
    watch = FileWatch([tmp_path])
    (tmp_path / "a.yaml").write_text("x")
    assert settle(watch) == [False, True, False]


def test_other_endings_can_be_looked_for(tmp_path: Path) -> None:
    """Those of custom probes."""
    watch = FileWatch([tmp_path], suffixes=(".yaml", ".c"))
    (tmp_path / "a.c").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    assert settle(watch) == [False, True, False]
    (tmp_path / "a.txt").write_text("xy")
    assert settle(watch) == [False, False, False]


def test_a_file_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    """As long as its size changes from look to look, it has not settled."""
    watch = FileWatch([tmp_path])
    for length in range(1, 5):
        (tmp_path / "a.yaml").write_text("x" * length)
        assert not watch.changed()
    assert watch.changed()


def test_a_configmap_swap_is_a_change(tmp_path: Path) -> None:
    """Kubernetes swaps the link `..data`; names and links in the directory stay as they are."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    watch = FileWatch([tmp_path])
    (tmp_path / "..tmp").symlink_to("..2")
    os.rename(tmp_path / "..tmp", tmp_path / "..data")
    assert settle(watch) == [False, True, False]


def test_hidden_and_foreign_files_do_not_count(tmp_path: Path) -> None:
    """An editor's swap file and a README are not policies."""
    watch = FileWatch([tmp_path])
    (tmp_path / ".a.yaml.swp").write_text("x")
    (tmp_path / ".b.yaml").write_text("x")
    (tmp_path / "README.md").write_text("x")
    assert settle(watch) == [False, False, False]


def test_a_directory_that_goes_away_is_a_change(tmp_path: Path) -> None:
    """The loader will say what is wrong; the watch only says that something is."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "a.yaml").write_text("x")
    watch = FileWatch([directory])
    (directory / "a.yaml").unlink()
    directory.rmdir()
    assert settle(watch) == [False, True, False]


def test_forget_takes_the_present_for_known(tmp_path: Path) -> None:
    """After a requested reload, the watch does not request another."""
    watch = FileWatch([tmp_path])
    (tmp_path / "a.yaml").write_text("x")
    watch.forget()
    assert settle(watch) == [False, False, False]
