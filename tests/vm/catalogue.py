# SPDX-License-Identifier: Apache-2.0
"""Which kernels there are, and where the cache keeps them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["DEFAULT", "KERNELS", "Prepared", "Source", "cache_directory", "prepared"]


class Source(NamedTuple):
    """A kernel of a Debian suite, by its metapackage: numbered packages vanish from mirrors."""

    name: str
    suite: str
    package: str


KERNELS = {
    source.name: source
    for source in (
        Source("6.1", "bookworm", "linux-image-cloud-amd64"),
        Source("6.12", "bookworm-backports", "linux-image-cloud-amd64"),
        Source("trixie-backports", "trixie-backports", "linux-image-cloud-amd64"),
        Source("sid", "sid", "linux-image-cloud-amd64"),
    )
}
DEFAULT = ("6.1", "6.12")


class Prepared(NamedTuple):
    """A kernel that can be booted: `vmlinux` and `initrd` lie in `directory`."""

    name: str
    release: str
    directory: Path
    package: Path  # the unpacked package
    drivers: list[str]  # modules that the initrd holds, in loading order

    @property
    def modules(self) -> Path:
        """lib/modules/RELEASE of the package."""
        return self.package / "lib/modules" / self.release


def cache_directory() -> Path:
    """Where kernels and QEMU are kept: RINGFENCE_VM_CACHE, or /var/cache/ringfence/vm."""
    return Path(os.environ.get("RINGFENCE_VM_CACHE", "/var/cache/ringfence/vm"))


def prepared(name: str) -> Prepared | None:
    """The kernel of this name if the cache holds it."""
    directory = cache_directory() / "kernels" / name
    try:
        facts = json.loads((directory / "meta.json").read_text())
    except FileNotFoundError:
        return None
    return Prepared(name, facts["release"], directory, directory / "package", facts["drivers"])
