# SPDX-License-Identifier: Apache-2.0
"""Which facts about a pod are used: of the cgroup, the runtime, the API server; and who could forge them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence.containers.enrich.request import Request
from ringfence.containers.kubernetes.cri import Cri, CriContainer, CriError
from ringfence.containers.kubernetes.pods import Pod, PodCache, pod_of
from ringfence.containers.kubernetes.source import Kubernetes
from tests.support.apiserver import pod

HASH, OTHER = "ab" * 16, "cd" * 16
CID = "c" * 64
VICTIM = pod(1)["metadata"]["uid"]


class FakeCri(Cri):
    """A runtime with the same answer for every container."""

    def __init__(self, answer: CriContainer | CriError | None) -> None:
        super().__init__(Path("/none"))
        self.answer = answer

    def find(self, identifier: str) -> CriContainer | None:
        """Returns the answer."""
        if isinstance(self.answer, CriError):
            raise self.answer
        return self.answer


def answer_of(name: str, namespace: str, uid: str, **labels: str) -> CriContainer:
    """Returns an answer of a runtime."""
    return CriContainer("web", "i:1", "i@sha256:0", name, namespace, uid, labels, "containerd")


def request(uid: str) -> Request:
    """Returns a request for a container in a pod's cgroup."""
    return Request(7, CID, f"/kubepods/burstable/pod{uid}/{CID}", "", 0, 0)


def mirror(number: int, config_hash: str, **annotations: str) -> Pod:
    """Returns a mirror pod of a static pod, as the API server has it."""
    own = {
        "kubernetes.io/config.hash": config_hash,
        "kubernetes.io/config.mirror": config_hash,
        **annotations,
    }
    found = pod_of(pod(number, annotations=own))
    assert found is not None
    return found


def cache_of(*pods: Pod) -> PodCache:
    """Returns a cache with these pods, added in this order."""
    cache = PodCache()
    for one in pods:
        cache.put([one])
    return cache


def plain(number: int, **metadata: Any) -> Pod:
    """Returns an ordinary pod."""
    found = pod_of(pod(number, **metadata))
    assert found is not None
    return found


def test_a_static_pod_is_found_by_its_hash_and_by_its_uid() -> None:
    """Its cgroup has the hash, its mirror the uid."""
    static = mirror(3, HASH)
    cache = cache_of(static)
    assert cache.get(HASH) is cache.get(static.uid) is static
    cache.remove([static.uid])
    assert cache.get(HASH) is static, "remembered for a while"


@pytest.mark.parametrize(
    "annotations",
    [
        {"kubernetes.io/config.hash": VICTIM},
        {"kubernetes.io/config.hash": VICTIM, "kubernetes.io/config.mirror": VICTIM},
        {"kubernetes.io/config.hash": HASH},
        {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": OTHER},
        {"kubernetes.io/config.hash": HASH.upper(), "kubernetes.io/config.mirror": HASH.upper()},
        {"kubernetes.io/config.hash": "", "kubernetes.io/config.mirror": ""},
    ],
)
def test_a_forged_annotation_does_not_rename_a_pod(annotations: dict[str, str]) -> None:
    """The victim keeps its names, the forger has its own."""
    for order in ((1, 2), (2, 1)):
        pods = {1: plain(1), 2: plain(2, annotations=annotations)}
        cache = cache_of(*(pods[number] for number in order))
        victim = cache.get(VICTIM)
        assert victim is not None
        assert victim.name == "web-1"
        forger = cache.get(pods[2].uid)
        assert forger is not None
        assert forger.name == "web-2"
        assert cache.get(annotations["kubernetes.io/config.hash"].lower()) in (None, pods[1])


def test_a_hash_that_two_pods_claim_is_ignored() -> None:
    """Every user with pods may write the annotations; without the forger the mirror is found again."""
    news: list[frozenset[str]] = []
    cache = PodCache(news.append)
    cache.put([mirror(1, HASH)])
    cache.put([mirror(2, HASH)])
    assert cache.get(HASH) is None
    assert len(news) == 2
    assert all(HASH in uids for uids in news), "the container with that cgroup name is queried again"
    cache.put([plain(2)])
    found = cache.get(HASH)
    assert found is not None
    assert found.name == "web-1"


def test_a_uid_takes_precedence_over_a_claim() -> None:
    """A uid could look like a hash."""
    cache = cache_of(mirror(1, HASH), plain(2, uid=HASH))
    found = cache.get(HASH)
    assert found is not None
    assert found.name == "web-2"


def test_claims_of_forgotten_pods_are_removed() -> None:
    """No entry remains."""
    now = [0.0]
    cache = PodCache(clock=lambda: now[0])
    for number in range(50):
        one = mirror(number, f"{number:032x}")
        cache.put([one])
        cache.remove([one.uid])
    now[0] = 500.0
    cache.remove([])
    assert not cache._mirrors


def test_the_runtimes_names_are_used_if_the_api_server_differs() -> None:
    """With its labels: the API server has another pod."""
    uid = pod(1)["metadata"]["uid"]
    cache = cache_of(plain(1, labels={"guard": "off"}))
    facts = Kubernetes(FakeCri(answer_of("real", "shop", uid, app="web")), cache).find(request(uid))
    assert facts is not None
    assert (facts.namespace, facts.pod, dict(facts.labels), facts.owner) == (
        "shop",
        "real",
        {"app": "web"},
        "",
    )


@pytest.mark.parametrize(
    "answer", [answer_of("web-1", "team-1", VICTIM), answer_of("", "", ""), None, CriError("away")]
)
def test_the_api_servers_labels_are_used_without_a_contradiction(
    answer: CriContainer | CriError | None,
) -> None:
    """The runtime agrees, has no pod, does not know the container, or does not respond."""
    cache = cache_of(plain(1, labels={"guard": "on"}))
    facts = Kubernetes(FakeCri(answer), cache).find(request(VICTIM))
    assert facts is not None
    assert (facts.namespace, facts.pod, dict(facts.labels)) == ("team-1", "web-1", {"guard": "on"})
    assert dict(facts.cluster_labels) == {"guard": "on"}
    assert facts.owner == "ReplicaSet/app-1-5d9c"


def test_a_runtime_that_names_another_pod_is_not_trusted() -> None:
    """The cgroup's path decides which pod it is."""
    cache = cache_of(plain(1))
    facts = Kubernetes(FakeCri(answer_of("real", "shop", pod(2)["metadata"]["uid"])), cache).find(
        request(VICTIM)
    )
    assert facts is not None
    assert (facts.pod, facts.name) == ("web-1", "")
