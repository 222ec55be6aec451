# SPDX-License-Identifier: Apache-2.0
"""The root filesystem of the test's containers: the attack program under several names, and little else."""

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
    """A directory that can be one."""
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
    """One on overlayfs, as engines make them: what the image has is told from what came later."""
    writable, merged = directory / "writable", directory / "root"
    lower = make_root(directory / "image")
    writable.mkdir()
    merged.mkdir()
    try:
        # On a tmpfs of its own: where we are may be an overlay, on which no other can write.
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
        raise Error(f"the containers of the test have no root: {got.stderr.strip()}")
