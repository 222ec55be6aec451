# SPDX-License-Identifier: Apache-2.0
"""Which kernels there are, and where the cache keeps them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "ARM64",
    "CATALOGUE",
    "DEFAULT",
    "KERNELS",
    "NATIVE",
    "Prepared",
    "Source",
    "cache_directory",
    "locked",
    "prepared",
]


class Source(NamedTuple):
    """Where a kernel comes from: the newest that any of the suites has of a package.

    `package` is a metapackage, or a pattern of numbered ones where no metapackage leads to them any more.
    """

    name: str
    suites: tuple[str, ...]
    package: str = "linux-image-cloud-amd64"
    headers: bool = True  # False: none are fetched (mirrors have dropped them), and no module is built for it
    machine: str = "amd64"  # Debian's name of the architecture


KERNELS = {
    source.name: source
    for source in (
        Source("6.1", ("bookworm",)),
        Source("6.12", ("bookworm-backports",)),
        Source("6.18", ("trixie-backports",), r"linux-image-6\.18\.[0-9]+\+deb13-cloud-amd64", headers=False),
        Source("testing", ("forky",)),
        Source("newest", ("trixie-backports", "sid")),
    )
}
DEFAULT = ("6.1", "newest")
#: run only when asked for by name: the guest has another architecture, and a userland of its own
ARM64 = {
    source.name: source
    for source in (
        Source(f"arm64-{name}", suites, "linux-image-cloud-arm64", headers=False, machine="arm64")
        for name, suites in (
            ("6.1", ("bookworm",)),
            ("6.12", ("bookworm-backports",)),
            ("newest", ("trixie-backports", "sid")),
        )
    )
}
CATALOGUE = KERNELS | ARM64
#: in a userland: Python packages with machine code of its architecture, before those of ROOT/.venv
NATIVE = Path("/opt/python")


class Prepared(NamedTuple):
    """A kernel that can be booted: `vmlinux` and `initrd` lie in `directory`."""

    name: str
    release: str
    directory: Path
    package: Path  # the unpacked package
    drivers: list[str]  # modules that the initrd holds, in loading order
    machine: str = "amd64"

    @property
    def modules(self) -> Path:
        """lib/modules/RELEASE of the package."""
        return self.package / "lib/modules" / self.release

    @property
    def userland(self) -> Path:
        """The root of the guest: this machine's own, or one of the kernel's architecture."""
        return Path("/") if self.machine == "amd64" else cache_directory() / f"userland-{self.machine}"


def cache_directory() -> Path:
    """Where kernels and QEMU are kept: RINGFENCE_VM_CACHE, /var/cache/ringfence/vm, or a user's own."""
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    base = "/var/cache" if os.geteuid() == 0 else users
    return Path(os.environ.get("RINGFENCE_VM_CACHE") or f"{base}/ringfence/vm")


def prepared(name: str) -> Prepared | None:
    """The kernel of this name if the cache holds it."""
    directory = cache_directory() / "kernels" / name
    try:
        facts = json.loads((directory / "meta.json").read_text())
    except FileNotFoundError:
        return None
    return Prepared(
        name, facts["release"], directory, directory / "package", facts["drivers"], CATALOGUE[name].machine
    )


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One at a time fills the cache: two guests may be started side by side."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
