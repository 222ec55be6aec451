# SPDX-License-Identifier: Apache-2.0
"""What the CRI's answers mean. The messages are encoded here, by the field numbers of cri-api's api.proto."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from ringfence.containers.kubernetes import cri as module
from ringfence.containers.kubernetes.cri import Cri, CriContainer, CriError, sockets_of, usual_socket
from ringfence.containers.kubernetes.grpc import GrpcError
from ringfence.containers.kubernetes.proto import text_field

CONTAINER, SANDBOX = "c" * 64, "5" * 64
DIGEST = "registry.test/web@sha256:" + "d" * 64
PULLED = "sha256:" + "e" * 64


def labels(number: int, values: Mapping[str, str]) -> bytes:
    """Encodes a map of texts."""
    pairs = (text_field(1, key) + text_field(2, value) for key, value in values.items())
    return b"".join(text_field(number, pair) for pair in pairs)


def status_of(image: str, reference: str = DIGEST, asked: str = "") -> bytes:
    """Encodes ContainerStatusResponse."""
    spec = text_field(1, image) + (text_field(18, asked) if asked else b"")
    return text_field(1, text_field(8, spec) + text_field(9, reference))


def pod_of(name: str = "web-0", **values: str) -> bytes:
    """Encodes PodSandboxStatusResponse."""
    about = text_field(1, name) + text_field(2, "uid-1") + text_field(3, "shop")
    return text_field(1, text_field(2, about) + labels(7, values))


def listed(identifier: str = CONTAINER, image: str = "web:1") -> bytes:
    """Encodes ListContainersResponse."""
    one = text_field(1, identifier) + text_field(2, SANDBOX)
    return text_field(1, one + text_field(3, text_field(1, "web")) + text_field(4, text_field(1, image)))


class Runtime:
    """A fake of the connection: answers by method; None: not found."""

    path = Path("/run/test.sock")

    def __init__(self, **answers: bytes | None) -> None:
        self.answers: dict[str, bytes | None] = {
            "Version": text_field(2, "containerd") + text_field(3, "1.7.2"),
            "ListContainers": listed(),
            "ContainerStatus": status_of("web:1"),
            "PodSandboxStatus": pod_of(),
            **answers,
        }
        self.calls: list[tuple[str, bytes]] = []

    def call(self, method: str, message: bytes) -> bytes:
        """Returns the answer of one method."""
        service, _, name = method.rpartition("/")
        assert service == "/runtime.v1.RuntimeService"
        self.calls.append((name, message))
        answer = self.answers[name]
        if answer is None:
            raise GrpcError("not found", 5)
        return answer

    def names(self) -> list[str]:
        """Returns the methods that were called."""
        return [name for name, _ in self.calls]


def asking(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Cri:
    """Returns a Cri whose connection is the fake."""
    monkeypatch.setattr(module, "Channel", lambda path, timeout: runtime)
    return Cri(runtime.path)


def found_in(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, identifier: str = CONTAINER) -> CriContainer:
    """Returns what the runtime knows about a container."""
    found = asking(monkeypatch, runtime).find(identifier)
    assert found is not None
    return found


def test_all_facts_of_a_container_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, image and digest; name, namespace, uid and labels of its pod; the runtime."""
    runtime = Runtime(PodSandboxStatus=pod_of(app="web"))
    assert found_in(monkeypatch, runtime) == CriContainer(
        "web", "web:1", DIGEST, "web-0", "shop", "uid-1", {"app": "web"}, "containerd"
    )
    assert runtime.calls == [
        ("ListContainers", text_field(1, text_field(1, CONTAINER))),
        ("PodSandboxStatus", text_field(1, SANDBOX)),
        ("ContainerStatus", text_field(1, CONTAINER)),
        ("Version", b""),
    ]


def test_labels_of_the_kubelet_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin with io.kubernetes."""
    answer = pod_of(**{"io.kubernetes.pod.name": "web-0", "io.kubernetes": "kept"})
    assert found_in(monkeypatch, Runtime(PodSandboxStatus=answer)).labels == {"io.kubernetes": "kept"}


@pytest.mark.parametrize(
    ("status", "image", "digest"),
    [
        (status_of(PULLED, asked="shop/web:2"), "shop/web:2", DIGEST),
        (status_of(PULLED), "registry.test/web", DIGEST),
        (status_of(PULLED, reference=""), PULLED, ""),
        (status_of("web:1", reference=PULLED), "web:1", ""),
        (None, "web:1", ""),
    ],
    ids=["asked", "resolved", "no-reference", "no-digest", "gone"],
)
def test_the_image_has_the_name_that_the_pod_asked_for(
    monkeypatch: pytest.MonkeyPatch, status: bytes | None, image: str, digest: str
) -> None:
    """A runtime resolves the name to the image's id; a container that ended keeps the listed one."""
    found = found_in(monkeypatch, Runtime(ContainerStatus=status))
    assert (found.image, found.image_digest) == (image, digest)


def test_a_pods_pause_container_is_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no container to the runtime, and has no image."""
    found = found_in(monkeypatch, Runtime(ListContainers=b""), SANDBOX)
    assert (found.name, found.image, found.image_digest, found.pod) == ("POD", "", "", "web-0")


def test_a_container_whose_pod_is_gone_has_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other facts are kept."""
    found = found_in(monkeypatch, Runtime(PodSandboxStatus=None))
    assert (found.name, found.pod, found.namespace, found.pod_uid, found.labels) == ("web", "", "", "", {})


def test_what_the_runtime_does_not_know_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a container nor a pod, or no id of one: then it is not asked at all."""
    runtime = Runtime(ListContainers=listed("f" * 64), PodSandboxStatus=None)
    asked = asking(monkeypatch, runtime)
    assert asked.find(CONTAINER) is None
    assert runtime.names() == ["ListContainers", "PodSandboxStatus"]
    runtime.calls.clear()
    for identifier in ("", "web", "C" * 64, "c" * 63, "c" * 65):
        assert asked.find(identifier) is None
    assert runtime.calls == []


def test_a_pod_and_the_runtimes_name_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of one pod share its answer; the pod that was used last is kept longest."""
    runtime = Runtime()
    asked = asking(monkeypatch, runtime)
    monkeypatch.setattr(module, "_SANDBOXES", 2)
    assert asked.find(CONTAINER) == asked.find(CONTAINER)
    assert [runtime.names().count(name) for name in ("PodSandboxStatus", "Version")] == [1, 1]
    for identifier in ("1" * 64, SANDBOX, "2" * 64, SANDBOX):  # the pods 5, 1, 5, 2, 5
        assert asked._sandbox(identifier) is not None
    assert runtime.names().count("PodSandboxStatus") == 3
    assert list(asked._sandboxes) == ["2" * 64, SANDBOX]


def test_the_version_of_the_runtime_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both texts are foreign."""
    assert asking(monkeypatch, Runtime()).version() == ("containerd", "1.7.2")
    long = text_field(2, "n" * 100) + text_field(3, "v" * 100)
    assert asking(monkeypatch, Runtime(Version=long)).version() == ("n" * 64, "v" * 64)
    with pytest.raises(CriError, match="not found"):
        asking(monkeypatch, Runtime(Version=None)).version()
    with pytest.raises(CriError):
        asking(monkeypatch, Runtime(Version=b"\xff")).version()


def test_a_success_ends_a_row_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only three failures in a row make a pause."""
    runtime = Runtime()
    asked = asking(monkeypatch, runtime)
    for answer in (b"\xff", b"\xff", listed(), b"\xff", b"\xff", listed()):
        runtime.answers["ListContainers"] = answer
        if answer == listed():
            assert asked.find(CONTAINER) is not None
        else:
            with pytest.raises(CriError):
                asked.find(CONTAINER)


def test_the_first_usual_socket_that_exists_is_used(tmp_path: Path) -> None:
    """A file of that name is no socket; a directory that cannot be entered has none."""
    assert usual_socket(tmp_path) is None
    (tmp_path / "run/containerd").mkdir(parents=True)
    (tmp_path / "run/containerd/containerd.sock").touch()
    (tmp_path / "run/crio").mkdir()
    assert usual_socket(tmp_path) is None
    directory = os.open(tmp_path / "run/crio", os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{directory}/crio.sock")
            assert usual_socket(tmp_path) == tmp_path / "run/crio/crio.sock"
    finally:
        os.close(directory)


def test_the_configured_socket_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`auto` is the first usual one, if there is one; None is none."""
    assert sockets_of(None) == ()
    assert sockets_of(tmp_path / "x.sock") == (tmp_path / "x.sock",)
    monkeypatch.setattr(module, "usual_socket", lambda: None)
    assert sockets_of("auto") == ()
    monkeypatch.setattr(module, "usual_socket", lambda: Path("/run/y.sock"))
    assert sockets_of("auto") == (Path("/run/y.sock"),)
