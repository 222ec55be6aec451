# SPDX-License-Identifier: Apache-2.0
"""Two layers of one file each, and their import into a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence_runtime.images import ImageStore, Imported, Options, import_image
from tests.runtime.images.layouts import Layout, file, layer

__all__ = ["ONE", "TWO", "NewLayout", "files", "take"]

NewLayout = Callable[[], Layout]
ONE = layer(file(b"one", b"1" * 3000))
TWO = layer(file(b"two", b"2" * 3000))


def take(store: ImageStore, layout: Layout | Path, **options: Any) -> Imported:
    """Import without fsync."""
    path = layout.path if isinstance(layout, Layout) else layout
    return import_image(store, str(path), Options(**{"durable": False, **options}))


def files(store: ImageStore, done: Imported) -> list[str]:
    """File names of all layers."""
    return [name for each in done.image.layers for name in os.listdir(f"{store.layer(each)}/root")]
