# SPDX-License-Identifier: Apache-2.0
"""A real containerd's CRI: its facts about pods and containers, by the agent's own gRPC client."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.containers.enrich import Request
from ringfence.containers.kubernetes.cri import Cri
from ringfence.containers.kubernetes.grpc import Channel, GrpcError
from ringfence.containers.kubernetes.pods import PodCache, pod_of
from ringfence.containers.kubernetes.source import Kubernetes
from tests.support import force
from tests.support.cri import IMAGE, CriDaemon, CriPod, running_cri
from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.needs("containerd", "ctr", "runc", "busybox")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[CriDaemon]:
    """One for all tests of this file."""
    with running_cri(force.need_program("busybox")) as made:
        yield made


@pytest.fixture
def pod(daemon: CriDaemon) -> Iterator[CriPod]:
    """`shop/web-0`."""
    with daemon.pod("web-0", "shop", {"app": "web", "tier": "front"}) as made:
        yield made


def test_a_container_has_its_pod_image_and_digest(daemon: CriDaemon, pod: CriPod) -> None:
    """From three calls; labels without the kubelet's own."""
    identifier = pod.run("nginx", "/bin/sleep", "600")
    found = Cri(daemon.socket).find(identifier)
    assert found is not None
    assert (found.name, found.pod, found.namespace, found.pod_uid) == ("nginx", "web-0", "shop", pod.uid)
    assert found.image == IMAGE
    assert found.image_digest.startswith("registry.example/shop/web@sha256:")
    assert found.labels == {"app": "web", "tier": "front"}
    assert found.runtime == "containerd"


def test_the_pods_own_container_is_known_as_such(daemon: CriDaemon, pod: CriPod) -> None:
    """The pause container is in no list of containers."""
    found = Cri(daemon.socket).find(pod.id)
    assert found is not None
    assert (found.name, found.pod) == ("POD", "web-0")


def test_a_container_is_known_before_it_starts(daemon: CriDaemon, pod: CriPod) -> None:
    """Its cgroup is made at the start: the first event of a short pod finds its name."""
    identifier = pod.run("short", "/bin/true", start=False)
    found = Cri(daemon.socket).find(identifier)
    assert found is not None
    assert found.name == "short"


def test_what_the_runtime_does_not_know_is_none(daemon: CriDaemon) -> None:
    """gRPC's status: NOT_FOUND is not an error."""
    assert Cri(daemon.socket).find(secrets.token_hex(32)) is None
    assert Cri(daemon.socket).find("../../etc") is None


def test_a_call_that_is_refused_has_its_status_and_text(daemon: CriDaemon) -> None:
    """Huffman-coded trailers: 12 is UNIMPLEMENTED."""
    with pytest.raises(GrpcError, match="unknown") as caught:
        Channel(daemon.socket).call("/runtime.v1.RuntimeService/NoSuchThing", b"")
    assert caught.value.status == 12


def test_one_connection_serves_many_calls(daemon: CriDaemon, pod: CriPod) -> None:
    """Also one whose other end hung up meanwhile."""
    identifier = pod.run("many", "/bin/sleep", "600")
    cri = Cri(daemon.socket, timeout=5.0)
    for _ in range(200):
        assert cri.find(identifier) is not None
    assert cri._channel._socket is not None
    cri._channel._socket.shutdown(2)
    assert cri.find(identifier) is not None


def test_the_source_takes_labels_from_the_api_server_and_the_rest_from_the_runtime(
    daemon: CriDaemon, pod: CriPod
) -> None:
    """A label that was changed since the pod was made; and all of it without an API server."""
    identifier = pod.run("web", "/bin/sleep", "600")
    path = f"/kubepods/burstable/pod{pod.uid}/{identifier}"
    request = Request(1, identifier, path, "", 0, 0)
    cri = Cri(daemon.socket)
    alone = Kubernetes(cri, None).find(request)
    assert alone is not None
    assert (alone.pod, alone.labels["tier"], alone.owner) == ("web-0", "front", "")
    cache = PodCache()
    owner = [{"kind": "StatefulSet", "name": "web", "controller": True}]
    item = {"uid": pod.uid, "name": "web-0", "namespace": "shop", "ownerReferences": owner}
    watched = pod_of({"metadata": {**item, "labels": {"app": "web", "tier": "back"}}})
    assert watched is not None
    cache.put([watched])
    both = Kubernetes(cri, cache).find(request)
    assert both is not None
    assert (both.labels["tier"], both.owner, both.name, both.image) == (
        "back", "StatefulSet/web", "web", IMAGE,
    )  # fmt: skip
    other = Request(1, identifier, path.replace(pod.uid, "0" * 8 + pod.uid[8:]), "", 0, 0)
    assert Kubernetes(cri, None).find(other) is None  # the cgroup says another pod than the runtime


def test_the_runtime_says_its_version(daemon: CriDaemon) -> None:
    """The version for the audit; no program is run."""
    cri = Cri(daemon.socket)
    name, version = cri.version()
    assert name == "containerd"
    said = daemon.ctr("version").stdout.decode()
    assert version in said
    cri.close()


def test_the_first_answer_comes_quickly(daemon: CriDaemon, pod: CriPod) -> None:
    """Names must be available before a short-lived container ends."""
    identifier = pod.run("quick", "/bin/sleep", "600")
    samples = []
    for _ in range(20):
        cri = Cri(daemon.socket)
        began = time.perf_counter()
        assert cri.find(identifier) is not None
        samples.append(time.perf_counter() - began)
    assert sorted(samples)[10] < patience(0.25)


def test_cgroups_are_gone_with_the_pod(daemon: CriDaemon) -> None:
    """The fixture leaves nothing behind."""
    with daemon.pod("gone", "shop", {}) as made:
        made.run("x", "/bin/sleep", "600")
        uid = made.uid
    assert not list(Path("/sys/fs/cgroup").glob(f"*/kubepods/burstable/pod{uid}"))
