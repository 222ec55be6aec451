# SPDX-License-Identifier: Apache-2.0
"""The root filesystem of the test's containers: the attack program under several names."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ringfence.errors import Error
from ringfence.proof.program import program

__all__ = ["make_root", "new_root"]

_APPLETS = ("attacks", "true", "pwd", "cat", "sleep", "busybox")


def make_root(directory: Path) -> Path:
    """Fills `directory` as a root filesystem and returns it."""
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "tmp", "run"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    first = directory / "bin" / _APPLETS[0]
    first.write_bytes(program().read_bytes())
    first.chmod(0o755)
    for name in _APPLETS[1:]:
        os.link(first, directory / "bin" / name)
    su = directory / "bin/su"
    su.write_bytes(b"\x7fELF, and no more: it is only read\n")
    su.chmod(0o4755)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/true\n")
    return directory


@contextlib.contextmanager
def new_root(directory: Path) -> Iterator[Path]:
    """Mounts a root filesystem on overlayfs, as engines do, so files of the image are distinguishable."""
    writable, merged = directory / "writable", directory / "root"
    lower = make_root(directory / "image")
    writable.mkdir()
    merged.mkdir()
    try:
        # On its own tmpfs: `directory` may be on an overlay, which cannot hold another's upper layer.
        _mount("-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", str(writable))
        for name in ("upper", "work"):
            (writable / name).mkdir()
        where = f"lowerdir={lower},upperdir={writable}/upper,workdir={writable}/work"
        _mount("-t", "overlay", "-o", where, "overlay", str(merged))
        yield merged
    finally:
        for path in (merged, writable):
            while path.is_mount():
                subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*words: str) -> None:
    got = subprocess.run(["mount", *words], check=False, capture_output=True, text=True)
    if got.returncode:
        raise Error(f"cannot mount the root of the test's containers: {got.stderr.strip()}")
