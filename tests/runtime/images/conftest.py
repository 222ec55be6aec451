# SPDX-License-Identifier: Apache-2.0
"""A private store, and a quick way to import a layer into it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.images import ImageStore, Imported, Limits, Options, import_image
from tests.runtime.images.layouts import Layout
from tests.support import force


@pytest.fixture(autouse=True)
def _root() -> None:
    """Layers are unpacked with their owners: only root can do that."""
    force.need_root()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    """An empty store. Mounts that a failing test leaves in it are unmounted."""
    made = ImageStore(str(tmp_path / "store"))
    yield made
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = line.split()[4]
        if place.startswith(f"{made.root}/"):
            syscalls.umount2(place, syscalls.MNT_DETACH)


@pytest.fixture
def new_layout(tmp_path: Path) -> Callable[[], Layout]:
    """Makes empty layouts."""
    numbers = itertools.count()
    return lambda: Layout(tmp_path / f"layout{next(numbers)}")


Importer = Callable[..., Imported]


@pytest.fixture
def load(store: ImageStore, new_layout: Callable[[], Layout]) -> Importer:
    """Imports an image of the given layers; keywords are for Options, `limits` for Limits."""

    def imported(*layers: bytes, config: dict[str, Any] | None = None, **options: Any) -> Imported:
        layout = new_layout()
        layout.add(layout.image(*layers, config=config))
        options["limits"] = Limits(**options.get("limits", {}))
        return import_image(store, str(layout.path), Options(**{"durable": False, **options}))

    return imported


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the store with one file; a test that changes either has escaped."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    before = os.stat(victim / "file")
    yield victim
    after = os.stat(victim / "file")
    assert os.listdir(victim) == ["file"]
    assert (victim / "file").read_text() == "untouched"
    assert (before.st_mode, before.st_uid, before.st_nlink) == (after.st_mode, after.st_uid, after.st_nlink)
