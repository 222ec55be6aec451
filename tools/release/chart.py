# SPDX-License-Identifier: Apache-2.0
"""The Helm chart as an archive. `helm package` would put the time of day into it."""

from __future__ import annotations

import gzip
import io
import tarfile
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["package"]


def package(chart: Path, target: Path, date: int) -> None:
    """Writes the archive of the chart's directory: the same files and date give the same bytes."""
    ignored = (chart / ".helmignore").read_text().split()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(chart.rglob("*")):
            inside = path.relative_to(chart)
            if path.is_dir() or any(fnmatch(part, word) for part in inside.parts for word in ignored):
                continue
            member = tarfile.TarInfo(f"{chart.name}/{inside}")
            member.size, member.mtime, member.mode = path.stat().st_size, date, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
    target.write_bytes(gzip.compress(data.getvalue(), 9, mtime=0))
