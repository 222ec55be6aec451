# SPDX-License-Identifier: Apache-2.0
"""Fills the cache: kernels of distributions, and a QEMU that does not corrupt its guests."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tools.vm import qemu
from tools.vm.apt import Apt
from tools.vm.catalogue import KERNELS, Source, cache_directory, locked, prepared
from tools.vm.headers import fetch_headers
from tools.vm.prepare import prepare

__all__ = ["fetch"]

QEMU_SUITE = "bookworm-backports"
QEMU_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")


def fetch(names: Iterable[str], *, renew: bool = False) -> list[str]:
    """Get the kernels that are missing (renew: or that the suite has a newer one of) and QEMU where needed.

    Gives one line for each thing that was fetched. Raises RuntimeError with apt's message.
    """
    cache = cache_directory()
    with locked():
        return _fetch(cache, names, renew=renew)


def _fetch(cache: Path, names: Iterable[str], *, renew: bool) -> list[str]:
    sources = [KERNELS[name] for name in names if renew or prepared(name) is None]
    need_qemu = qemu.needs_fetch()
    if not sources and not need_qemu:
        return []
    suites = [suite for source in sources for suite in source.suites]
    apt = Apt(cache / "apt", suites + [QEMU_SUITE] * need_qemu)
    done = []
    if need_qemu:
        apt.unpack((f"{name}/{QEMU_SUITE}" for name in QEMU_PACKAGES), cache / "qemu")
        done.append(f"QEMU of {QEMU_SUITE}")
    done += [line for source in sources if (line := _fetch_kernel(apt, source))]
    return done


def _fetch_kernel(apt: Apt, source: Source) -> str | None:
    found = apt.newest(source.package, source.suites)
    directory = cache_directory() / "kernels" / source.name
    if prepared(source.name) and _version(directory) == found.version:
        return None
    numbered = re.compile(r"linux-image-[0-9]")
    names = (found.package, *apt.depends(found.package, found.version))
    image = next(name for name in names if numbered.match(name))
    release = image.removeprefix("linux-image-")
    packages = [image]
    # From 7.x the image package is a shell around two others.
    for split in (f"linux-binary-{release}", f"linux-modules-{release}", f"linux-base-{release}"):
        if apt.exists(split):
            packages.append(split)
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    apt.unpack(packages, fresh / "package")
    install(fresh, directory, found.version)
    if source.headers:  # now: the mirror drops them with the next version
        kernel = prepared(source.name)
        assert kernel is not None
        fetch_headers(apt, kernel, found.suite)
    return f"kernel {release} of {found.suite}"


def _version(directory: Path) -> str:
    return str(json.loads((directory / "meta.json").read_text()).get("version"))


def install(fresh: Path, directory: Path, version: str) -> None:
    """Prepare the kernel unpacked in `fresh/package` and put it in the place of an older one."""
    prepare(fresh, version)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
