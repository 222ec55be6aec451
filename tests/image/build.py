# SPDX-License-Identifier: Apache-2.0
"""The image of this checkout, built once per state of its sources."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.force import missing, need_program

__all__ = ["ATTACKS", "OUTPUT", "REFERENCE", "Image", "build_wheel", "image", "run_outside"]

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build/image"
ATTACKS = "agent/ringfence/_bpf/attacks"
REFERENCE = "docker.io/library/ringfence:test"
_SOURCES = (
    "agent",
    "runtime",
    "policies",
    "tools/image",
    "tools/packaging.py",
    "pyproject.toml",
    "hatch_build.py",
)


def run_outside(*argv: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in /, where no source of this checkout is found by chance."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        list(map(str, argv)), cwd="/", env=environment, capture_output=True, text=True, check=False
    )


def build_wheel(source: Path, target: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Builds the wheel of a copy of the sources."""
    return run_outside(sys.executable, "-m", "build", "--wheel", "--outdir", target, source, **variables)


class Image(NamedTuple):
    """Where its parts are, and what the builder said of it."""

    rootfs: Path
    layout: Path
    archive: Path
    report: dict[str, Any]


def image() -> Image:
    """Build it unless it is there already; skips or fails where packages cannot be had."""
    for program in ("apt-get", "dpkg-deb", "readelf"):
        need_program(program)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    stamp = OUTPUT / "sources"
    with (OUTPUT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _fingerprint()
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _build()
            stamp.write_text(wanted)
    report = json.loads((OUTPUT / "report.json").read_text())
    return Image(OUTPUT / "rootfs", OUTPUT / "layout", OUTPUT / "image.tar", report)


def _build() -> None:
    wheels = OUTPUT / "wheel"
    for argv in (
        [sys.executable, "-m", "build", "-q", "--wheel", "--outdir", str(wheels), str(ROOT)],
        [sys.executable, "-m", "tools.image", "--reference", REFERENCE, "--wheel", "WHEEL"],
    ):
        newest = sorted(wheels.glob("*.whl"), key=lambda path: path.stat().st_mtime)
        words = [str(newest[-1]) if word == "WHEEL" else word for word in argv]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            missing("image", f"the image cannot be built here: {done.stderr.strip()[-400:]}")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _files() -> Iterator[Path]:
    for name in _SOURCES:
        path = ROOT / name
        if path.is_file():
            yield path
        else:
            yield from (one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
