# SPDX-License-Identifier: Apache-2.0
"""Fills the cache: kernels of distributions, and a QEMU that does not corrupt its guests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tools.vm import qemu
from tools.vm.apt import Apt
from tools.vm.catalogue import CATALOGUE, NATIVE, Source, cache_directory, locked, prepared
from tools.vm.headers import fetch_headers
from tools.vm.prepare import prepare

__all__ = ["fetch"]

QEMU_SUITE = "bookworm-backports"
#: what the tests want in a guest that does not have the machine's own root
USERLAND = (
    "base-files", "base-passwd", "bash", "bpftool", "busybox-static", "ca-certificates", "coreutils", "crun",
    "dash", "diffutils", "e2fsprogs", "findutils", "gcc", "grep", "gzip", "hostname", "iproute2", "kmod",
    "libbpf1", "libc6-dev", "libcap2-bin", "libelf1", "libseccomp2", "mount", "passwd", "procps", "python3",
    "runc", "sed", "strace", "sudo", "tar", "uidmap", "util-linux",
)  # fmt: skip
#: what the tests import that has machine code; the rest is that of the machine's own environment
EXTENSIONS = ("hypothesis", "rpds-py")
QEMU_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")


def fetch(names: Iterable[str], *, renew: bool = False) -> list[str]:
    """Get the kernels that are missing (renew: or that the suite has a newer one of) and QEMU where needed.

    Gives one line for each thing that was fetched. Raises RuntimeError with apt's message.
    """
    cache = cache_directory()
    with locked():
        return _fetch(cache, names, renew=renew)


def _fetch(cache: Path, names: Iterable[str], *, renew: bool) -> list[str]:
    wanted = [CATALOGUE[name] for name in names]
    sources = [source for source in wanted if renew or prepared(source.name) is None]
    need_qemu = qemu.needs_fetch()
    done = []
    if need_qemu:
        apt = Apt(cache / "apt", [QEMU_SUITE])
        apt.unpack((f"{name}/{QEMU_SUITE}" for name in QEMU_PACKAGES), cache / "qemu")
        done.append(f"QEMU of {QEMU_SUITE}")
    for machine in sorted({source.machine for source in sources}):
        some = [source for source in sources if source.machine == machine]
        suites = [suite for source in some for suite in source.suites]
        apt = Apt(cache / ("apt" if machine == "amd64" else f"apt-{machine}"), suites, machine)
        done += [line for source in some if (line := _fetch_kernel(apt, source))]
    for machine in sorted({source.machine for source in wanted} - {"amd64"}):
        done += _fetch_userland(cache, machine)
    return done


def _fetch_userland(cache: Path, machine: str) -> list[str]:
    """The root of guests of another architecture: packages of the suite that this machine has, unpacked."""
    target = cache / f"userland-{machine}"
    if target.exists():
        return []
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    assert found is not None
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    Apt(cache / f"apt-userland-{machine}", [found[1]], machine).unpack_with_depends(USERLAND, fresh)
    for name in ("passwd", "group"):
        shutil.copy(fresh / f"usr/share/base-passwd/{name}.master", fresh / f"etc/{name}")
    _fetch_extensions(fresh / NATIVE.relative_to("/"))
    fresh.rename(target)
    return [f"userland of {found[1]} for {machine}"]


def _fetch_extensions(target: Path) -> None:
    wanted = [f"{name}=={version(name)}" for name in EXTENSIONS]
    built = ("manylinux2014_aarch64", "manylinux_2_28_aarch64")
    argv = [sys.executable, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary", ":all:", *(word for one in built for word in ("--platform", one))]
    done = subprocess.run(
        [*argv, "--target", str(target), *wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip: status {done.returncode}\n{done.stderr.strip()}")


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
