# SPDX-License-Identifier: Apache-2.0
"""The container runtime's CRI socket: container, image with digest, pod with labels, by three unary calls.

The runtime has these facts from the kubelet, as of the pod's creation: later changes of labels are only known
to the API server.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.containers.kubernetes import proto
from ringfence.containers.kubernetes.grpc import Channel, GrpcError

__all__ = ["USUAL_SOCKETS", "Cri", "CriContainer", "CriError", "usual_socket"]

#: the default sockets of crictl, and those of small distributions
USUAL_SOCKETS = tuple(
    Path(path)
    for path in (
        "/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock",
        "/run/k0s/containerd.sock", "/run/cri-dockerd.sock",
    )
)  # fmt: skip
_SERVICE = "/runtime.v1.RuntimeService/"
_NOT_FOUND = 5
_PAUSE = 30.0  # seconds for which a failing socket is not queried
_FAILURES = 3  # consecutive failures before a pause
_SANDBOXES = 256
_HEX64 = re.compile(r"[0-9a-f]{64}")


class CriError(Exception):
    """The socket cannot be queried now."""


class CriContainer(NamedTuple):
    """The runtime's facts about one container. A pod's pause container has the name POD."""

    name: str
    image: str
    image_digest: str  # name@sha256:...
    pod: str
    namespace: str
    pod_uid: str
    labels: Mapping[str, str]  # of the pod, without those of the kubelet
    runtime: str


class _Sandbox(NamedTuple):
    pod: str
    namespace: str
    uid: str
    labels: Mapping[str, str]


def usual_socket(host: Path = Path("/")) -> Path | None:
    """Returns the first of the usual sockets that exists, or None."""
    found = (host / path.relative_to("/") for path in USUAL_SOCKETS)
    return next((path for path in found if _is_socket(path)), None)


def _is_socket(path: Path) -> bool:
    """Returns True for a socket; False also if a parent directory is not accessible (no CAP_DAC_OVERRIDE)."""
    try:
        return path.is_socket()
    except OSError:
        return False


class Cri:
    """Queries one socket. For use by one thread."""

    def __init__(self, path: Path, timeout: float = 1.0) -> None:
        self._channel = Channel(path, timeout)
        self._sandboxes: OrderedDict[str, _Sandbox] = OrderedDict()
        self._runtime: str | None = None
        self._failures = 0
        self._paused_until = 0.0

    def find(self, identifier: str) -> CriContainer | None:
        """Returns the container with that id, or a pod's pause container; None: unknown to the runtime.

        Raises CriError. After repeated failures the socket is not queried for a while.
        """
        if not _HEX64.fullmatch(identifier):
            return None
        if time.monotonic() < self._paused_until:
            raise CriError(f"{self._channel.path} failed repeatedly; next attempt within {_PAUSE:.0f} s")
        try:
            found = self._find(identifier)
        except (GrpcError, proto.ProtoError) as error:
            self._failures += 1
            if self._failures >= _FAILURES:
                self._paused_until = time.monotonic() + _PAUSE
            raise CriError(str(error)) from error
        self._failures = 0
        return found

    def version(self) -> tuple[str, str]:
        """Returns the runtime's name (containerd, cri-o) and version. Raises CriError."""
        try:
            answer = proto.decode(self._ask("Version", b""), proto.VERSION)
        except (GrpcError, proto.ProtoError) as error:
            raise CriError(str(error)) from error
        return str(answer.get("runtime_name", ""))[:64], str(answer.get("runtime_version", ""))[:64]

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _find(self, identifier: str) -> CriContainer | None:
        chosen = proto.text_field(1, proto.text_field(1, identifier))
        listed = proto.decode(self._ask("ListContainers", chosen), proto.CONTAINERS).get("containers", [])
        container = next((one for one in listed if one.get("id") == identifier), None)
        if container is None:
            sandbox = self._sandbox(identifier)
            return self._of(sandbox, "POD", "", "") if sandbox else None
        sandbox = self._sandbox(container.get("pod_sandbox_id", ""))
        image, digest = self._image(identifier, container)
        name = container.get("metadata", {}).get("name", "")
        return self._of(sandbox, name, image, digest)

    def _image(self, identifier: str, container: Mapping[str, Any]) -> tuple[str, str]:
        """Returns the image's name in the pod, and the digest of the pulled image."""
        answer = self._ask_known("ContainerStatus", proto.text_field(1, identifier))
        status = proto.decode(answer, proto.CONTAINER_STATUS).get("status", {}) if answer else {}
        spec = status.get("image") or container.get("image", {})
        reference = status.get("image_ref", "")
        name = spec.get("user_specified_image") or spec.get("image", "")
        if name.startswith("sha256:"):  # resolved by the runtime; the reference still has the name
            name = reference.partition("@")[0] or name
        return name, reference if "@" in reference else ""

    def _sandbox(self, identifier: str) -> _Sandbox | None:
        if identifier in self._sandboxes:
            self._sandboxes.move_to_end(identifier)
            return self._sandboxes[identifier]
        answer = self._ask_known("PodSandboxStatus", proto.text_field(1, identifier)) if identifier else None
        status = proto.decode(answer, proto.SANDBOX_STATUS).get("status") if answer else None
        if not status:
            return None
        about = status.get("metadata", {})
        labels = {
            key: value
            for key, value in status.get("labels", {}).items()
            if not key.startswith("io.kubernetes.")
        }
        found = _Sandbox(about.get("name", ""), about.get("namespace", ""), about.get("uid", ""), labels)
        self._sandboxes[identifier] = found
        while len(self._sandboxes) > _SANDBOXES:
            self._sandboxes.popitem(last=False)
        return found

    def _of(self, sandbox: _Sandbox | None, name: str, image: str, digest: str) -> CriContainer:
        known = sandbox or _Sandbox("", "", "", {})
        return CriContainer(
            name, image, digest, known.pod, known.namespace, known.uid, known.labels, self._name()
        )

    def _name(self) -> str:
        """Returns the runtime's name."""
        if self._runtime is None:
            version = proto.decode(self._ask("Version", b""), proto.VERSION)
            self._runtime = str(version.get("runtime_name", ""))[:64]
        return self._runtime

    def _ask(self, method: str, message: bytes) -> bytes:
        return self._channel.call(_SERVICE + method, message)

    def _ask_known(self, method: str, message: bytes) -> bytes | None:
        """Calls a method; returns None if the object does not exist (any more)."""
        try:
            return self._ask(method, message)
        except GrpcError as error:
            if error.status == _NOT_FOUND:
                return None
            raise


def sockets_of(chosen: Path | str | None) -> Sequence[Path]:
    """Returns the configured socket; for `auto` the first of the usual ones that exists; for None none."""
    if chosen is None:
        return ()
    if isinstance(chosen, Path):
        return (chosen,)
    found = usual_socket()
    return (found,) if found else ()
