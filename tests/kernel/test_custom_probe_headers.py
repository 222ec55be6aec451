# SPDX-License-Identifier: Apache-2.0
"""Headers of custom probes: generated once for each kernel, by its build id."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.errors import Error
from ringfence.probes import headers
from ringfence.probes.headers import build_id, header_tree
from tests.support.probes import need_bcc

pytestmark = [pytest.mark.root]


@pytest.fixture(autouse=True)
def _bcc() -> None:
    need_bcc()


def test_the_tree_is_kept_by_build_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time there is no dump, not even by a new agent; another kernel has its own tree."""
    dumps = []
    dump = headers._dump

    def counted(path: Path) -> None:
        dumps.append(path)
        dump(path)

    monkeypatch.setattr(headers, "_dump", counted)
    first = header_tree(tmp_path)
    assert first == tmp_path / build_id()
    before = (first / "include/vmlinux.h").stat()
    assert header_tree(tmp_path) == first
    assert len(dumps) == 1
    assert (first / "include/vmlinux.h").stat().st_mtime_ns == before.st_mtime_ns
    monkeypatch.setattr(headers, "build_id", lambda: "0123456789abcdef")
    other = header_tree(tmp_path)
    assert (other.name, len(dumps)) == ("0123456789abcdef", 2)
    assert first.exists()


def test_an_incomplete_tree_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed dump leaves nothing that a later probe would use as the kernel's types."""
    monkeypatch.setattr(headers, "_BTF", tmp_path / "none")
    with pytest.raises(Error, match="cannot dump"):
        header_tree(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
