# SPDX-License-Identifier: Apache-2.0
"""A file is replaced whole or stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence_linux.atomicfile import replace_file


@pytest.mark.parametrize("data", [b"new", "new"])
def test_the_new_content_replaces_the_old(tmp_path: Path, data: bytes | str) -> None:
    """By rename, readable by its owner alone, and nothing else is left."""
    path = tmp_path / "state"
    path.write_text("old and longer")
    replace_file(path, data, durable=True)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the error names it, and the unfinished file is removed."""
    path = tmp_path / "state"
    path.write_text("old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_failed_rename_leaves_no_unfinished_file(tmp_path: Path) -> None:
    """The target is a directory."""
    (tmp_path / "state").mkdir()
    with pytest.raises(OSError, match=r"."):
        replace_file(tmp_path / "state", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_symlink_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """Somebody else's file is not written to."""
    (tmp_path / "other").write_text("stays")
    (tmp_path / "state.new").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"."):
        replace_file(tmp_path / "state", b"new")
    assert (tmp_path / "other").read_text() == "stays"
