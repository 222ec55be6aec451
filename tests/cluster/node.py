# SPDX-License-Identifier: Apache-2.0
"""One node that is the whole cluster, in namespaces of its own and unreachable from outside.

A process holds a network and a mount namespace; all programs are started inside. The mounts of a
node (bpffs, tracefs, securityfs) are made there, and the directories that kubelet and runtimes
require are tmpfs there. Cgroups are the machine's (`/kubepods`); so are a few sysctls that the
kubelet changes: both are restored at the end.

There is no kube-proxy: the API server itself listens at the address of its service.
tests.cluster.dns replaces CoreDNS. The network plugin is CNI's bridge.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import settings
from tests.cluster.build import Programs
from tests.cluster.pki import ADMIN, Pki
from tests.cluster.settings import API, DIRECTORIES, DNS, MOUNTS, NODE, SYSCTLS
from tests.support.cri import remove_cgroups
from tests.support.waiting import patience, wait_for

__all__ = ["Cluster", "running_cluster"]

ROOT = Path(__file__).resolve().parents[2]
Object = dict[str, Any]


class Cluster:
    """The running programs, and queries to them."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.directory = directory
        self.programs = programs
        self.pki = Pki(directory / "pki", NODE, f"https://{API}", (API, "127.0.0.1"))
        self._holder: subprocess.Popen[bytes] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._argv: dict[str, list[str]] = {}

    # --- namespaces

    def hold(self) -> None:
        """Make the namespaces, with a node's mounts in them."""
        lines = [
            "set -e", "ip link set lo up",
            *(f"ip address add {one}/32 dev lo" for one in (API, DNS)),
            *(f"mount -t {kind} {kind} {path}" for path, kind in MOUNTS.items()),
            *(f"mount -t tmpfs tmpfs {path}" for path in DIRECTORIES),
            "mount --make-rshared /", "echo ready", "exec sleep infinity",
        ]  # fmt: skip
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]
        self._holder = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "the namespaces cannot be made"

    def inside(self, *words: str) -> list[str]:
        """Returns a command line that runs in the node's namespaces."""
        assert self._holder is not None
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--wd=/", *words]

    # --- programs

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Start a program of the node."""
        self._argv[name] = list(argv)
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self.inside(*argv), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def stop(self, name: str) -> None:
        """Stop a program of the node."""
        process = self._running.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience(60))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, name: str) -> None:
        """Start a program that was stopped."""
        self.start(name, self._argv[name])

    def log(self, name: str) -> str:
        """Returns the end of its log."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-4000:]

    # --- queries

    def run(self, *words: str, check: bool = True, seconds: float = 120) -> str:
        """Run a command in the namespaces. Returns its
        output; AssertionError with the output if it fails.
        """
        done = subprocess.run(
            self.inside(*words), capture_output=True, text=True, check=False, timeout=patience(seconds)
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(words)[:200]}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
        return done.stdout

    def kubectl(self, *words: str, check: bool = True, seconds: float = 120) -> str:
        """Run kubectl as the administrator."""
        return self.run(*self.kubectl_argv, *words, check=check, seconds=seconds)

    @property
    def kubectl_argv(self) -> list[str]:
        """Returns the client's command line, with the server's address."""
        return [self.programs("kubectl"), "--kubeconfig", self.pki.path(f"{ADMIN}.kubeconfig")]

    def get(self, *words: str) -> Object:
        """One object or a list."""
        found: Object = json.loads(self.kubectl("get", "--output", "json", *words))
        return found

    def apply(self, *objects: Object) -> None:
        """Make or change objects."""
        file = self.directory / "apply.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        self.kubectl("apply", "--filename", str(file))

    def ctr(self, *words: str, check: bool = True) -> str:
        """Run containerd's own client."""
        return self.run("ctr", "--namespace", "k8s.io", *words, check=check)

    def load(self, archive: Path) -> None:
        """Load an image into the node's store."""
        self.ctr("images", "import", "--snapshotter", "native", str(archive))

    # --- life

    def up(self) -> None:
        """Start everything, and wait until the node is ready."""
        write, state = self.directory, self.directory / "etcd"
        (write / "containerd.toml").write_text(settings.containerd(write))
        (write / "cni").mkdir()
        (write / "cni/10-bridge.conflist").write_text(json.dumps(settings.CNI))
        (write / "kubelet.json").write_text(json.dumps(settings.kubelet_config(self.pki)))
        self.start("etcd", settings.etcd(self.programs, state))
        self.start("containerd", ["containerd", "--config", str(write / "containerd.toml")])
        self.start("apiserver", settings.api_server(self.programs, self.pki))
        answers = ("get", "--raw", "/readyz")
        wait_for(
            lambda: self.kubectl(*answers, check=False) == "ok", "the API server", seconds=120, every=0.5
        )
        self.start("controllers", settings.controllers(self.programs, self.pki))
        self.start("scheduler", settings.scheduler(self.programs, self.pki))
        self.start("kubelet", settings.kubelet(self.programs, self.pki, write))
        self.start("dns", [sys.executable, "-m", "tests.cluster.dns", DNS, *self.kubectl_argv])
        wait_for(self.is_ready, "the node to be ready", seconds=120, every=0.5)

    def is_ready(self) -> bool:
        """Returns True if the node reports that it is ready."""
        found = self.kubectl("get", "nodes", NODE, "--output", "json", check=False)
        conditions = json.loads(found)["status"].get("conditions", []) if found else []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def down(self) -> None:
        """Stop all of it, containers first."""
        self.stop("kubelet")
        if "containerd" in self._running and self._holder is not None:
            for task in self.ctr("tasks", "list", "--quiet", check=False).split():
                self.ctr("tasks", "delete", "--force", task, check=False)
        self.stop("containerd")
        for process in self._running.values():  # these need no orderly stop
            process.kill()
            process.wait()
        self._running.clear()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()


@contextlib.contextmanager
def running_cluster(programs: Programs) -> Iterator[Cluster]:
    """A cluster of one node, ready; nothing is left of it."""
    saved = {path: Path(path).read_text() for path in SYSCTLS if Path(path).exists()}
    made = [path for path in DIRECTORIES if not Path(path).exists()]
    for path in made:
        os.makedirs(path)
    with tempfile.TemporaryDirectory(prefix="rfk8s-", dir="/tmp", ignore_cleanup_errors=True) as name:
        cluster = Cluster(Path(name), programs)
        try:
            cluster.hold()
            cluster.up()
            yield cluster
        except BaseException:
            keep = ROOT / "tests/results/cluster"
            shutil.rmtree(keep, ignore_errors=True)
            keep.mkdir(parents=True)
            for log in Path(name).glob("*.log"):
                shutil.copy(log, keep)
            raise
        finally:
            cluster.down()
            for path, text in saved.items():
                Path(path).write_text(text)
            _remove_pods()
            for path in reversed(made):
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def _remove_pods() -> None:
    """Remove the kubelet's cgroups. (A machine that is a node already could not run this test.)"""
    for mount in Path("/sys/fs/cgroup").iterdir():
        for quality in ("besteffort", "burstable", ""):
            top = mount / "kubepods" / quality
            for pod in top.glob("pod*") if top.is_dir() else ():
                remove_cgroups(f"/{pod.relative_to(mount)}")
            with contextlib.suppress(OSError):
                os.rmdir(top)
