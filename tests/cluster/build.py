# SPDX-License-Identifier: Apache-2.0
"""Fills the cache: Kubernetes' programs, built from Debian's source package with Debian's Go, and
its etcd.

Debian 12's `kubernetes` (1.20) is the newest source package with the servers; later ones have
kubectl alone. Nothing is installed: Go and etcd are unpacked into the cache. Building takes about
ten minutes on two CPUs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tools.vm.apt import KEYRING, Apt, mirror

__all__ = ["Programs", "fetch", "prepared"]

SUITE = "bookworm"
GO = ("golang-1.19-go", "golang-1.19-src")
ETCD = ("etcd-server", "etcd-client")
BUILT = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
_FACTS = "meta.json"


class Programs(NamedTuple):
    """The contents of the cache: a directory like /usr/bin, and the upstream version."""

    version: str
    directory: Path

    def __call__(self, name: str) -> str:
        """Returns the path of a program."""
        return str(self.directory / name)


class _Sources(Apt):
    """A package index with source packages."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, [SUITE])
        with (directory / "etc/sources.list").open("a") as file:
            file.write(f"deb-src [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
        self._run("apt-get", "-qq", "update")

    def source(self, package: str) -> tuple[Path, str]:
        """Download and unpack a source package. Returns its directory and its version."""
        shown = self._run("apt-cache", "showsrc", "--only-source", package)
        version = re.findall(r"^Version: (\S+)", shown, re.M)[0]
        self._run("apt-get", "-qq", "source", "--only-source", f"{package}={version}")
        return next(path for path in (self.directory / "deb").glob(f"{package}-*") if path.is_dir()), version


def cache_directory() -> Path:
    """Returns the cache directory: RINGFENCE_CLUSTER_CACHE, or /var/cache/ringfence/kubernetes."""
    return Path(os.environ.get("RINGFENCE_CLUSTER_CACHE", "/var/cache/ringfence/kubernetes"))


def prepared() -> Programs | None:
    """Returns the programs, if the cache has them."""
    directory = cache_directory() / "bin"
    try:
        facts = json.loads((directory / _FACTS).read_text())
    except FileNotFoundError:
        return None
    return Programs(facts["version"], directory)


def fetch(*, renew: bool = False) -> list[str]:
    """Build what is missing (renew: or has a newer
    version in the suite); yields a line for each action.
    """
    cache = cache_directory()
    if prepared() is not None and not renew:
        return []
    apt = _Sources(cache / "apt")
    tree, package = apt.source("kubernetes")
    known = prepared()
    if known is not None and json.loads((known.directory / _FACTS).read_text())["package"] == package:
        shutil.rmtree(tree)
        return []
    fresh = cache / "bin.new"
    for directory in (fresh, cache / "go", cache / "etcd"):
        shutil.rmtree(directory, ignore_errors=True)
    fresh.mkdir()
    apt.unpack(GO, cache / "go")
    apt.unpack(ETCD, cache / "etcd")
    version = upstream(package)
    _build(tree, cache, version)
    for name in BUILT:
        shutil.copy2(tree / "_output/bin" / name, fresh)
    for name in ("etcd", "etcdctl"):
        shutil.copy2(cache / "etcd/usr/bin" / name, fresh)
    (fresh / _FACTS).write_text(json.dumps({"version": version, "package": package}))
    shutil.rmtree(cache / "bin", ignore_errors=True)
    fresh.rename(cache / "bin")
    for directory in (tree, cache / "go", cache / "etcd", cache / "gocache"):
        shutil.rmtree(directory, ignore_errors=True)
    return [f"Kubernetes {version}, of {package}"]


def upstream(package: str) -> str:
    """1.20.5+really1.20.2-1.1 -> 1.20.2"""
    found = re.search(r"\+really([0-9.]+)", package) or re.match(r"([0-9.]+)", package)
    assert found, package
    return found[1]


def _build(tree: Path, cache: Path, version: str) -> None:
    """With its own makefile, which must be in a GOPATH; all its dependencies are vendored."""
    link = tree / ".go/src/k8s.io/kubernetes"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../..")
    major, minor, _ = version.split(".")
    facts = {
        "COMMIT": "debian",
        "TREE_STATE": "archive",
        "VERSION": f"v{version}",
        "MAJOR": major,
        "MINOR": minor,
    }
    (cache / "version").write_text("".join(f"KUBE_GIT_{key}='{value}'\n" for key, value in facts.items()))
    go = cache / "go/usr/lib/go-1.19"
    environment = {
        "PATH": f"{go}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(cache / "home"), "GOROOT": str(go),
        "GOPATH": str(tree / ".go"), "GOCACHE": str(cache / "gocache"), "GOFLAGS": "-mod=vendor",
        "GOPROXY": "off", "CGO_ENABLED": "0", "KUBE_GIT_VERSION_FILE": str(cache / "version"),
    }  # fmt: skip
    (cache / "home").mkdir(exist_ok=True)
    what = " ".join(f"cmd/{name}" for name in BUILT)
    with (cache / "build.log").open("wb") as log:
        status = subprocess.call(
            ["nice", "make", f"WHAT={what}"],
            cwd=tree,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    if status:
        tail = (cache / "build.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Kubernetes cannot be built (status {status}):\n{tail}")


def main() -> int:
    """`python3 -m tests.cluster.build [--renew]`"""
    for line in fetch(renew="--renew" in sys.argv[1:]) or ["nothing to do"]:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
