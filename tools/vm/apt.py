# SPDX-License-Identifier: Apache-2.0
"""Packages of any Debian suite, by the ordinary apt client with a separate configuration and state.

The machine's own apt configuration is read (for the mirror) and never changed; nothing is installed.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Apt", "Found"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CONFIGURATION = """\
Dir::Etc "{0}/etc";
Dir::Etc::sourcelist "{0}/etc/sources.list";
Dir::Etc::sourceparts "{0}/etc/sources.list.d";
Dir::Etc::parts "{0}/etc/apt.conf.d";
Dir::State "{0}/state";
Dir::State::lists "{0}/lists";
Dir::State::status "{0}/state/status";
Dir::Cache "{0}/cache";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Retries "3";
APT::Sandbox::User "root";
APT::Architecture "{1}";
APT::Architectures "{1}";
"""
DIRECTORIES = (
    "etc/sources.list.d",
    "etc/apt.conf.d",
    "etc/preferences.d",
    "etc/trusted.gpg.d",
    "lists/partial",
    "cache/archives/partial",
    "state",
    "deb",
)


def mirror() -> str:
    """The Debian mirror that this machine uses. RuntimeError where it uses none (Ubuntu)."""
    sources = Path("/etc/apt/sources.list.d")
    for file in sorted(
        [*sources.glob("*.sources"), *sources.glob("*.list"), *sources.parent.glob("sources.list")]
    ):
        for word in re.findall(r"^(?:URIs:|deb\s)[^#\n]*?(\S+/debian)/?(?=\s|$)", file.read_text(), re.M):
            return str(word)
    raise RuntimeError("no Debian mirror in the apt sources: the kernels of the tests are Debian packages")


class Found(NamedTuple):
    """A version of a package that a suite has."""

    package: str
    version: str
    suite: str


def _compared(one: Found, other: Found) -> int:
    """Which version is newer, as Debian orders them: <0, 0, >0."""
    for word, result in (("lt", -1), ("gt", 1)):
        argv = ["dpkg", "--compare-versions", one.version, word, other.version]
        if subprocess.run(argv, check=False).returncode == 0:
            return result
    return 0


class Apt:
    """apt with its configuration and state below `directory`, for one architecture."""

    def __init__(self, directory: Path, suites: Iterable[str], architecture: str = "amd64") -> None:
        self.directory = directory
        for name in DIRECTORIES:
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "state/status").write_text("")  # nothing is installed: dependencies are complete
        (directory / "apt.conf").write_text(CONFIGURATION.format(directory, architecture))
        source = f"deb [arch={architecture} signed-by={KEYRING}] {mirror()}"
        lines = [f"{source} {suite} main\n" for suite in sorted(set(suites))]
        (directory / "etc/sources.list").write_text("".join(lines))
        self._run("apt-get", "-qq", "update")

    def _run(self, *argv: str) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C"}
        got = subprocess.run(
            argv, cwd=self.directory / "deb", env=environment, capture_output=True, text=True, check=False
        )
        if got.returncode:
            raise RuntimeError(f"{' '.join(argv)}: status {got.returncode}\n{got.stderr.strip()}")
        return got.stdout

    def newest(self, pattern: str, suites: Sequence[str]) -> Found:
        """Returns the newest package with a full name that matches the pattern, in these suites."""
        found: list[Found] = []
        for name in self._run("apt-cache", "search", "--names-only", f"^{pattern}$").splitlines():
            found += self._versions(name.split()[0], suites)
        if not found:
            raise RuntimeError(f"no package {pattern} in {', '.join(suites)}")
        return max(found, key=functools.cmp_to_key(_compared))

    def version(self, package: str, suite: str) -> str:
        """The newest version of a package in a suite."""
        found = [*self._versions(package, [suite])]
        if not found:
            raise RuntimeError(f"no package {package} in {suite}")
        return max(found, key=functools.cmp_to_key(_compared)).version

    def _versions(self, package: str, suites: Sequence[str]) -> Iterator[Found]:
        for line in self._run("apt-cache", "madison", package).splitlines():
            _, version, place = (part.strip() for part in line.split("|"))
            yield from (Found(package, version, suite) for suite in suites if f" {suite}/" in place)

    def depends(self, package: str, version: str) -> list[str]:
        """Names of the packages that one version of a package depends on."""
        shown = self._run("apt-cache", "show", f"{package}={version}")
        line = next((line for line in shown.splitlines() if line.startswith("Depends:")), "Depends:")
        return [word.split()[0] for word in line.removeprefix("Depends:").split(",") if word.strip()]

    def exists(self, package: str) -> bool:
        """True where some suite has the package."""
        return bool(self._run("apt-cache", "madison", package).strip())

    def unpack_with_depends(self, packages: Iterable[str], target: Path) -> None:
        """Download packages and all that they depend on, and unpack them below `target`, a merged /usr."""
        argv = ("apt-get", "-qq", "install", "--download-only", "--no-install-recommends", "--yes")
        self._run(*argv, *packages)
        for name in ("bin", "sbin", "lib"):
            (target / "usr" / name).mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(f"usr/{name}")
        for file in sorted((self.directory / "cache/archives").glob("*.deb")):
            shown = subprocess.run(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE, check=True)
            unpack = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-p", "-C", str(target)]
            subprocess.run(unpack, input=shown.stdout, check=True)
            file.unlink()

    def unpack(self, packages: Iterable[str], target: Path) -> None:
        """Download packages (`name` or `name/suite`) and unpack them below `target`."""
        wanted = list(packages)
        self._run("apt-get", "-qq", "download", *wanted)
        target.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            (file,) = (self.directory / "deb").glob(f"{name.partition('/')[0]}_*.deb")
            subprocess.run(["dpkg", "-x", str(file), str(target)], check=True)
            file.unlink()
