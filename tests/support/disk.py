# SPDX-License-Identifier: Apache-2.0
"""A disk of the test's own: an ext4 image on a loop device, laid out like the root of a host."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["new_disk"]

SIZE = 8 << 20


@contextlib.contextmanager
def new_disk(directory: Path) -> Iterator[Path]:
    """Mount point of a small ext4 filesystem with an `etc/passwd` at its root; gone after the block.

    Raises RuntimeError where there is no loop device.
    """
    image, where = directory / "disk.img", directory / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    if not Path("/dev/loop-control").exists():
        _run("modprobe", "loop")
    _run("mkfs.ext4", "-q", "-F", str(image))
    try:
        # Inside, so that an interrupt between the mount and what follows leaves no mount behind.
        _run("mount", "-o", "loop", str(image), str(where))
        (where / "etc").mkdir()
        (where / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (where / "secret").write_text("a file of the host\n")
        yield where
    finally:
        # Lazily: containers of the test may still be going away with their copies of the mount.
        while where.is_mount():
            _run("umount", "--lazy", str(where))


def _run(*argv: str) -> None:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    got = subprocess.run(argv, check=False, capture_output=True, text=True, env={"PATH": path})
    if got.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {got.returncode}: {got.stderr.strip()}")
