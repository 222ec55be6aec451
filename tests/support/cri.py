# SPDX-License-Identifier: Apache-2.0
"""A real containerd with its CRI plugin, with private root, state and socket; pods and containers
in it.

No kubelet, no network plugin: pods share the host's network. Their cgroups have the kubelet's
paths, `/kubepods/burstable/pod<uid>/<id>`. The requests are encoded by the project's own field
tables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ringfence.containers.kubernetes import proto
from ringfence.containers.kubernetes.grpc import Channel, GrpcError
from ringfence.containers.kubernetes.proto import Field, text_field
from tests.support.cgroups import hierarchies, remove_trees
from tests.support.container import make_rootfs
from tests.support.shims import end_shims
from tests.support.waiting import end, patience, wait_for
from tools.image.layout import archive, write_layout

__all__ = ["IMAGE", "CriDaemon", "CriPod", "running_cri"]

IMAGE = "registry.example/shop/web:1.2"
PAUSE = "registry.example/pause:1"
#: containerd's configuration for CRI without AppArmor
_CONTAINERD = f"""\
version = 2
root = "{{root}}"
state = "{{state}}"
[grpc]
  address = "{{address}}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{programs}}"
    conf_dir = "{{networks}}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""
_RUNTIME = "/runtime.v1.RuntimeService/"


def containerd_config(**paths: str) -> str:
    """Returns containerd's configuration with root, state, address, programs (CNI) and networks."""
    return _CONTAINERD.format(**paths)


def _map(number: int, pairs: Mapping[str, str]) -> bytes:
    return b"".join(text_field(number, text_field(1, k) + text_field(2, v)) for k, v in pairs.items())


def _message(number: int, *parts: bytes) -> bytes:
    return text_field(number, b"".join(parts))


class CriPod:
    """A running sandbox."""

    def __init__(self, daemon: CriDaemon, identifier: str, config: bytes, uid: str) -> None:
        self.daemon, self.id, self.config, self.uid = daemon, identifier, config, uid

    def run(self, name: str, *command: str, image: str = IMAGE, start: bool = True) -> str:
        """Create a container of the pod. Returns its id."""
        config = b"".join(
            (
                _message(1, text_field(1, name)),
                _message(2, text_field(1, image)),
                *(text_field(3, word) for word in command),
                _map(9, {"io.kubernetes.container.name": name, "io.kubernetes.pod.uid": self.uid}),
            )
        )
        request = text_field(1, self.id) + text_field(2, config) + text_field(3, self.config)
        identifier = self.daemon.ask("CreateContainer", request, "container_id")
        if start:
            self.start(identifier)
        return identifier

    def start(self, identifier: str) -> None:
        """Start a created container."""
        self.daemon.ask("StartContainer", text_field(1, identifier))

    def run_to_its_end(self, name: str, *command: str) -> str:
        """The same, for a program that ends by itself.

        If the pod is removed earlier, the program may be killed before it started.
        """
        identifier = self.run(name, *command)
        ended = text_field(1, identifier) + _message(2, b"\x08\x02")  # ContainerState.CONTAINER_EXITED
        wait_for(lambda: self.daemon.containers(ended), f"the end of {name}", every=0.05)
        return identifier

    def remove(self) -> None:
        """Stop and remove it with its containers."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            with contextlib.suppress(GrpcError):
                self.daemon.ask(method, text_field(1, self.id))


class CriDaemon:
    """The daemon, and calls to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "c.sock"
        self.channel = Channel(self.socket, timeout=patience(60))

    def ask(self, method: str, request: bytes, field: str = "") -> str:
        """Make one call. Returns the text of the answer's first field."""
        answer = self.channel.call(_RUNTIME + method, request)
        return str(proto.decode(answer, {1: Field(field)}).get(field, "")) if field else ""

    def containers(self, which: bytes) -> list[str]:
        """Returns the ids that match a ContainerFilter."""
        answer = self.channel.call(f"{_RUNTIME}ListContainers", _message(1, which))
        return [one["id"] for one in proto.decode(answer, proto.CONTAINERS).get("containers", [])]

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run its own client, in the namespace of Kubernetes."""
        argv = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *words]
        return subprocess.run(argv, check=check, capture_output=True, timeout=patience(60))

    @contextlib.contextmanager
    def pod(self, name: str, namespace: str, labels: Mapping[str, str], uid: str = "") -> Iterator[CriPod]:
        """A pod for the time of a `with` block; its cgroups are removed with it."""
        uid = uid or str(uuid.uuid4())
        parent = f"/kubepods/burstable/pod{uid}"
        own = {
            "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }  # fmt: skip
        node_network = b"\x08\x02"  # NamespaceOption.network = NODE
        config = b"".join(
            (
                _message(1, text_field(1, name), text_field(2, uid), text_field(3, namespace)),
                _map(6, {**own, **labels}),
                _message(8, text_field(1, parent), _message(2, _message(1, node_network))),
            )
        )
        made = CriPod(self, self.ask("RunPodSandbox", text_field(1, config), "id"), config, uid)
        try:
            yield made
        finally:
            made.remove()
            remove_cgroups(parent)


def remove_cgroups(path: str) -> None:
    """Remove a pod's cgroup and its contents, in every
    hierarchy; its parents only if they are empty.
    """
    mounted = (path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir())
    # runc joins hierarchies that the tests do not use
    tops = [mount / path.strip("/") for mount in {*hierarchies().values(), *mounted}]
    remove_trees(tops, path)
    for parent in (parent for top in tops for parent in (top.parent, top.parent.parent)):
        with contextlib.suppress(OSError):
            os.rmdir(parent)


def _images(directory: Path, busybox: str) -> Path:
    """Make an archive with both images. Their entry point is the one that tools.image writes."""
    rootfs = make_rootfs(directory / "rootfs", busybox=busybox)
    entry = rootfs / "usr/bin/ringfence"
    entry.write_text("#!/bin/sh\nexec sleep 100000\n")
    entry.chmod(0o755)
    return rootfs


@contextlib.contextmanager
def running_cri(busybox: str) -> Iterator[CriDaemon]:
    """A daemon for the time of a `with` block. Its path is short: sockets are named after it."""
    with tempfile.TemporaryDirectory(prefix="rfcri-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "config.toml").write_text(
            containerd_config(
                root=f"{name}/root",
                state=f"{name}/state",
                address=f"{name}/c.sock",
                programs=f"{name}/cni/bin",
                networks=f"{name}/cni/conf",
            )
        )
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                ["containerd", "--config", str(directory / "config.toml")], stdout=log, stderr=log
            )
        daemon = CriDaemon(directory)
        try:
            wait_for(lambda: daemon.ctr("version", check=False).returncode == 0, "containerd")
            rootfs = _images(directory, busybox)
            for reference in (PAUSE, IMAGE):
                layout = directory / "layout"
                (rootfs / "etc/image").write_text(reference)  # otherwise both would have one digest
                digest = write_layout(rootfs, layout, reference, {})["digest"]
                archive(layout, directory / "image.tar")
                daemon.ctr("images", "import", "--snapshotter", "native", str(directory / "image.tar"))
                # as a pull would: the digest in the alerts
                daemon.ctr("images", "tag", reference, f"{reference.rpartition(':')[0]}@{digest}")
                shutil.rmtree(layout)
            yield daemon
        finally:
            daemon.channel.close()
            _end(process, daemon)


def _end(process: subprocess.Popen[bytes], daemon: CriDaemon) -> None:
    """End all shims of the daemon, whatever the test did."""
    listed = daemon.ctr("tasks", "list", "--quiet", check=False).stdout.decode().split()
    for identifier in listed:
        daemon.ctr("tasks", "kill", "--signal", "KILL", identifier, check=False)
        daemon.ctr("tasks", "delete", "--force", identifier, check=False)
    end(process)
    end_shims(str(daemon.socket))
