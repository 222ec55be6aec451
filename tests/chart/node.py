# SPDX-License-Identifier: Apache-2.0
"""A node for one pod: a containerd of a test's own, and what a kubelet makes of a pod's specification.

The kubelet is the fake here: `run` turns the rendered pod into the options of `ctr run` (capabilities,
seccomp, read-only root, namespaces, mounts, environment, limits; a user of the pod's own is left out, as ctr
1.6 has no option for it). Containerd, runc, the image and the kernel are real. Paths of the host that a test
must not touch lie elsewhere (`Node.host`). What systemd mounts on a node (tracefs, bpffs, securityfs) is
mounted nowhere: the node holds detached mounts of its own, its pins included.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence_linux.syscalls import mount_detached
from tests.chart.helm import Object, by_kind
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.shims import end_shims
from tests.support.waiting import end, patience, wait_for

__all__ = ["Node", "Pod", "new_node"]

_CONFIG = """\
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/containerd.sock"
"""
_MOUNTED = {"/sys/kernel/tracing": "tracefs", "/sys/fs/bpf": "bpf", "/sys/kernel/security": "securityfs"}
# containerd's default capabilities (oci.WithDefaultUnixCapabilities).
_USUAL = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip


class Pod:
    """One container of a pod, running; its cgroup has a test name."""

    def __init__(self, node: Node, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.node, self.name, self.process, self.log = node, name, process, log

    @property
    def pid(self) -> int:
        """Returns the pid of its first process; 0: none yet."""
        for line in self.node.ctr("task", "ls").stdout.splitlines():
            words = line.split()
            if words and words[0] == self.name:
                return int(words[1])
        return 0

    def text(self) -> str:
        """Returns its standard output and error."""
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        """SIGTERM, as the kubelet does it; its status."""
        if self.process.poll() is None:
            self.node.ctr("task", "kill", "--signal", "SIGTERM", self.name)
        return self.process.wait(patience(60))

    def remove(self) -> None:
        """Removes it in any state."""
        self.node.ctr("task", "rm", "--force", self.name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience(60))
        self.process.kill()
        self.process.wait()
        self.node.ctr("container", "rm", self.name)
        Cgroup(self.name).remove()


class Node:
    """containerd, and directories that simulate a host's."""

    def __init__(self, directory: Path, mounts: Mapping[str, int]) -> None:
        self.directory = directory
        self._mounts_of_host = mounts  # path -> descriptor of a detached mount

    def ctr(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run its client to the end."""
        argv = ["ctr", "--address", str(self.directory / "containerd.sock"), *arguments]
        return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=patience(60))

    def host(self, path: str) -> str:
        """Returns the location of a host path for this node."""
        if path in self._mounts_of_host:
            return f"/proc/{os.getpid()}/fd/{self._mounts_of_host[path]}"
        if path.startswith("/sys/"):
            return path
        made = self.directory / "host" / path.strip("/")
        made.mkdir(parents=True, exist_ok=True)
        return str(made)

    def run(
        self, pod: Object, objects: list[Object], label: str, *,
        environment: Mapping[str, str] | None = None, network: int = 0,
    ) -> Pod:  # fmt: skip
        """Start the pod's one container. `network`: in the network namespace of that process."""
        name = f"{PREFIX}{label}-{secrets.token_hex(3)}"
        (container,) = pod["containers"]
        options = [*_security(pod, container), *self._mounts(pod, container, objects)]
        values = {one["name"]: one.get("value", "node-1") for one in container.get("env", [])}
        for variable, value in (values | dict(environment or {})).items():
            options += ["--env", f"{variable}={value}"]
        if network:
            options += ["--with-ns", f"network:/proc/{network}/ns/net"]
        if "limits" in container["resources"]:
            mebibytes = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
            options += ["--memory-limit", str(mebibytes << 20)]
        argv = [*container.get("command", ["/usr/bin/ringfence"]), *container.get("args", [])]
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ctr", "--address", str(self.directory / "containerd.sock"), "run", "--rm",
                 "--cgroup", f"/{name}", *options, container["image"], name, *argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        return Pod(self, name, process, log)

    def _mounts(self, pod: Object, container: Object, objects: list[Object]) -> Iterator[str]:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "hostPath" in volume:
                source = self.host(volume["hostPath"]["path"])
            else:
                source = str(self.config_map(by_kind(objects, "ConfigMap", volume["configMap"]["name"])))
            access = "ro" if mount.get("readOnly") else "rw"
            spread = {"HostToContainer": "rslave"}.get(mount.get("mountPropagation", ""), "rprivate")
            yield "--mount"
            yield f"type=bind,src={source},dst={mount['mountPath']},options=rbind:{spread}:{access}"

    def config_map(self, config: Object) -> Path:
        """As the kubelet writes it: files are links through `..data`, which is swapped in one step."""
        directory: Path = self.directory / "maps" / config["metadata"]["name"]
        fresh = directory / f"..{secrets.token_hex(4)}"
        fresh.mkdir(parents=True)
        for name, text in config["data"].items():
            (fresh / name).write_text(text)
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(f"..data/{name}")
        link = directory / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(directory / "..data")
        for path in directory.iterdir():
            if not path.name.startswith("..") and path.name not in config["data"]:
                path.unlink()
        return directory


def _security(pod: Object, container: Object) -> Iterator[str]:
    """The security context, as options."""
    context: dict[str, Any] = {**pod.get("securityContext", {}), **container["securityContext"]}
    capabilities = context["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    for name in _USUAL:
        if name not in capabilities.get("add", []):
            yield from ("--cap-drop", f"CAP_{name}")
    for name in capabilities.get("add", []):
        if name not in _USUAL:
            yield from ("--cap-add", f"CAP_{name}")
    if context["readOnlyRootFilesystem"]:
        yield "--read-only"
    if context["allowPrivilegeEscalation"]:
        yield "--allow-new-privs"
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    yield "--seccomp"
    if pod.get("hostPID"):
        yield from ("--with-ns", f"pid:/proc/{os.getpid()}/ns/pid")


@contextlib.contextmanager
def new_node(image: Path) -> Iterator[Node]:
    """A node that has the image. Below a short path: sockets are named after it."""
    with tempfile.TemporaryDirectory(prefix="rftest-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        mounts = {path: mount_detached(kind) for path, kind in _MOUNTED.items()}
        node = Node(directory, mounts)
        (directory / "config.toml").write_text(_CONFIG.format(name))
        with (directory / "log").open("wb") as log:
            argv = ["containerd", "--config", f"{name}/config.toml"]
            daemon = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait_for(lambda: node.ctr("version").returncode == 0, "containerd to answer")
            node.ctr("images", "import", str(image), check=True)
            yield node
        finally:
            end(daemon)
            end_shims(f"{name}/containerd.sock")
            for descriptor in mounts.values():
                os.close(descriptor)
            shutil.rmtree(directory / "root", ignore_errors=True)
