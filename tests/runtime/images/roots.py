# SPDX-License-Identifier: Apache-2.0
"""An image of two layers with everything that overlayfs must merge, and access to a mounted root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_runtime.images import Rootfs, open_rootfs
from tests.runtime.images.layouts import directory, file, layer, symlink

__all__ = ["LOWER", "UPPER", "mounts_below", "opened"]

LOWER = layer(
    directory(b"./", 0o755),
    directory(b"etc", 0o750, uid=4),
    file(b"etc/a", b"lower a"),
    file(b"etc/b", b"lower b"),
    directory(b"opt"),
    file(b"opt/old", b"old"),
    directory(b"gone"),
    file(b"gone/x"),
)
UPPER = layer(
    directory(b"./", 0o711, uid=9),
    file(b"etc/.wh.a"),
    directory(b"etc", 0o750, uid=4),
    file(b"etc/c", b"upper c"),
    directory(b"opt"),
    file(b"opt/.wh..wh..opq"),
    file(b"opt/new", b"new"),
    file(b".wh.gone"),
    symlink(b"out", b"/etc/b"),
)


@contextmanager
def opened(rootfs: Rootfs) -> Iterator[Path]:
    """The mounted root filesystem; it is in no namespace, and unmounted afterwards."""
    fd = open_rootfs(rootfs)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def mounts_below(path: str) -> list[str]:
    """Returns the mount points below a path in this namespace."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if path in line]
