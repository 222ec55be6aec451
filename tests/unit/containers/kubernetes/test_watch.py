# SPDX-License-Identifier: Apache-2.0
"""Following a fake API server, with the behaviour of real ones, and of broken or malicious ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ringfence.containers.kubernetes.client import Client
from ringfence.containers.kubernetes.pods import PODS_MAX, PodCache, pod_of
from ringfence.containers.kubernetes.watch import PodWatch
from tests.support.apiserver import FakeApiServer, fake_apiserver, pod
from tests.support.waiting import wait_for


class Follower:
    """A watch with its cache and its complaints."""

    def __init__(self, fake: FakeApiServer, *, longest: float = 30.0, timeout: float = 10.0) -> None:
        self.news: list[frozenset[str]] = []
        self.complaints: list[str] = []
        self.pods = PodCache(self.news.append)
        client = Client(fake.url, None, None, timeout=timeout)
        self.watch = PodWatch(
            client, "node-1", self.pods, self.complaints.append, longest=longest, backoff=0.02
        )

    def wait_pods(self, count: int) -> None:
        """Waits until the cache has this many pods and the watch is up."""
        wait_for(lambda: len(self.pods) == count and self.watch.up, f"{count} pods")


@contextmanager
def following(fake: FakeApiServer, *, longest: float = 30.0, timeout: float = 10.0) -> Iterator[Follower]:
    """Runs a watch."""
    follower = Follower(fake, longest=longest, timeout=timeout)
    follower.watch.start()
    try:
        yield follower
    finally:
        began = time.monotonic()
        follower.watch.close()
        assert time.monotonic() - began < 9  # also while a request is under way


UID = pod(1)["metadata"]["uid"]


def test_a_pod_has_names_labels_and_owner() -> None:
    """The owner is the Deployment of its ReplicaSet."""
    found = pod_of(pod(1))
    assert found is not None
    assert (found.name, found.namespace, found.uid) == ("web-1", "team-1", UID)
    assert found.owner == "Deployment/app-1"
    assert found.labels["app"] == "app-1"
    daemon = pod_of(pod(1, ownerReferences=[{"kind": "DaemonSet", "name": "ds", "controller": True}]))
    assert daemon is not None
    assert daemon.owner == "DaemonSet/ds"


@pytest.mark.parametrize(
    "item",
    [None, [], {}, {"metadata": None}, {"metadata": {"name": 7, "uid": []}}, {"metadata": {"uid": "x"}}],
)
def test_an_invalid_pod_is_none(item: object) -> None:
    """An API server may send anything."""
    assert pod_of(item) is None


def test_the_list_and_the_watch_are_those_of_this_node() -> None:
    """Only metadata of this node's pods, from the server's cache; then from the list's version, with
    bookmarks.
    """
    with fake_apiserver() as fake:
        fake.add(*(pod(n) for n in range(120)))
        with following(fake) as follower:
            follower.wait_pods(120)
            wait_for(lambda: fake.watches == 1, "the watch")
        [(_, asked, _)] = [request for request in fake.requests if "watch" not in request[1]]
        assert asked == {"fieldSelector": "spec.nodeName=node-1", "resourceVersion": "0"}
        path, query, headers = fake.requests[-1]
        assert path == "/api/v1/pods"
        assert query["fieldSelector"] == "spec.nodeName=node-1"
        assert (query["resourceVersion"], query["allowWatchBookmarks"]) == ("220", "true")
        assert "PartialObjectMetadata" in headers["Accept"]


def test_pods_are_added_changed_and_deleted() -> None:
    """Relevant changes are reported, others are not; a deleted pod is remembered for a while."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake) as follower:
            follower.wait_pods(1)
            fake.add(pod(2))
            second = frozenset((pod(2)["metadata"]["uid"],))
            wait_for(lambda: second in follower.news, "the news of it")  # which come after the pod itself
            news = len(follower.news)
            fake.add(pod(1), event="MODIFIED")  # its status changed, say
            fake.add(pod(1, labels={"app": "new"}), event="MODIFIED")
            wait_for(lambda: (one := follower.pods.get(UID)) and one.labels == {"app": "new"}, "the label")
            wait_for(lambda: len(follower.news) > news, "the news")
            assert follower.news[news:] == [frozenset((UID,))]
            fake.delete(UID)
            follower.wait_pods(1)
            gone = follower.pods.get(UID)
            assert gone is not None
            assert gone.labels == {"app": "new"}


def test_a_deleted_pod_is_forgotten_eventually() -> None:
    """After two minutes, and never more than a thousand are kept."""
    now = [0.0]
    cache = PodCache(clock=lambda: now[0])
    pods = [found for n in range(3000) if (found := pod_of(pod(n)))]
    cache.put(pods)
    cache.remove([one.uid for one in pods[:2000]])
    assert cache.get(pods[1999].uid) is not None
    assert cache.get(pods[0].uid) is None
    now[0] = 200.0
    cache.remove([])
    assert cache.get(pods[1999].uid) is None
    assert cache.get(pods[2999].uid) is not None


def test_410_gone_gives_a_new_list_without_deleted_pods() -> None:
    """As an event of type ERROR in the watch; pods that are no longer listed were deleted meanwhile."""
    with fake_apiserver() as fake:
        fake.add(pod(1), pod(2))
        with following(fake) as follower:
            follower.wait_pods(2)
            wait_for(lambda: fake.watches == 1, "the watch")
            del fake.pods[UID]
            fake.oldest = fake.version + 50
            fake.raw(json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n")
            wait_for(lambda: fake.lists >= 2, "a second list")
            fake.oldest = 0
            follower.wait_pods(1)
            assert follower.watch.restarts["gone"] >= 1


def lists(fake: FakeApiServer) -> list[str]:
    """Returns how lists were requested: `cache`, or the numbers of their pages."""
    asked = [query for _, query, _ in fake.requests if "watch" not in query]
    return ["cache" if "resourceVersion" in query else f"page of {query['limit']}" for query in asked]


def test_after_410_the_list_is_paged_and_consistent() -> None:
    """The cached list was too old and is not requested again."""
    with fake_apiserver() as fake:
        fake.add(*(pod(n) for n in range(60)))
        with following(fake) as follower:
            follower.wait_pods(60)
            wait_for(lambda: fake.watches == 1, "the watch")
            fake.raw(json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n")
            wait_for(lambda: fake.watches == 2, "another watch")
    assert lists(fake) == ["cache", "page of 50", "page of 50"]


def test_410_in_the_middle_of_a_list_restarts_it() -> None:
    """A `continue` token is valid for minutes. The list is paged as it is too large for one response."""
    with fake_apiserver() as fake:
        fake.add(*(pod(n, padding=40_000) for n in range(120)))
        fake.gone_at_page = 1
        with following(fake) as follower:
            follower.wait_pods(120)
            assert follower.watch.restarts["gone"] == 1


def test_a_bookmark_advances_the_version() -> None:
    """The next watch starts after it."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake) as follower:
            follower.wait_pods(1)
            mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5000"}}}
            fake.raw(json.dumps(mark).encode() + b"\n")
            wait_for(lambda: follower.watch.used >= 1, "the bookmark")
            fake.raw(b"HANG UP")
            wait_for(lambda: fake.watches >= 2, "another watch")
            assert fake.requests[-1][1]["resourceVersion"] == "5000"


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"ADDED","object":{"metadata":{"na\n', b"\xff\xfe\x00\n", b'"text"\n', b"[]\n", b"null\n",
        b'{"type":"ADDED","object":7}\n', b'{"type":"WEIRD","object":{}}\n', b"{" * 100_000 + b"\n",
        b'{"type":"ADDED","object":{"metadata":{"uid":{},"name":[]}}}\n', b"\n", b"HANG UP",
        b"[" * 200_000 + b"]" * 200_000 + b"\n",
        b'{"type":"ERROR","object":{"code":500}}\n', b'{"type":"ERROR"}\n',
    ],
)  # fmt: skip
def test_invalid_data_in_the_watch_does_not_end_it(data: bytes) -> None:
    """A valid event afterwards is processed, on the same watch or a new one."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake) as follower:
            follower.wait_pods(1)
            wait_for(lambda: fake.watches == 1, "the watch")
            fake.raw(data)
            fake.add(pod(2))
            follower.wait_pods(2)
            assert follower.pods.get(pod(2)["metadata"]["uid"]) is not None


def test_an_endless_line_ends_the_watch() -> None:
    """Memory stays limited, and the connection is closed."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake) as follower:
            follower.wait_pods(1)
            for _ in range(5):
                fake.raw(b"x" * (1 << 20))
            wait_for(lambda: follower.watch.restarts["broken"], "the end of it")
            fake.events.clear()
            fake.add(pod(2))
            follower.wait_pods(2)


def test_a_silent_server_is_abandoned_at_the_timeout() -> None:
    """In a watch that stalls, and in a list that never arrives."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake, longest=0.3) as follower:
            follower.wait_pods(1)
            wait_for(lambda: fake.watches >= 3, "more watches")
            assert follower.watch.restarts["stalled"] >= 1
    with fake_apiserver() as fake:
        fake.stall_list = True
        with following(fake, timeout=0.2) as follower:
            wait_for(lambda: follower.watch.restarts["stalled"] >= 2, "two attempts")
            assert not follower.watch.up


def test_a_dripping_server_is_abandoned_like_a_silent_one() -> None:
    """A byte now and then would avoid every read timeout, and `up` would be wrong."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        fake.drip = 0.05
        with following(fake, longest=0.5) as follower:
            wait_for(lambda: follower.watch.restarts["stalled"] >= 2, "two ends")
            fake.drip = 0.0
            fake.add(pod(2))
            follower.wait_pods(2)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_refusing_server_is_retried_and_reported_once(status: int) -> None:
    """With increasing delays; the cache is kept; then it recovers."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        fake.list_status = lambda number: status if number <= 3 else 200
        with following(fake) as follower:
            follower.wait_pods(1)
            assert follower.watch.restarts["refused"] == 3
            wait_for(lambda: len(follower.complaints) == 2, "the end of it")
            assert str(status) in follower.complaints[0]
            assert follower.complaints[1] == ""


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"items": 7}', b"<html>", b'{"items": [null, 3, {}]', b"\xff", b"[" * 200_000],
)
def test_an_invalid_list_is_refused(body: bytes) -> None:
    """No known pod is forgotten because of it."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        with following(fake) as follower:
            follower.wait_pods(1)
            fake.list_body = body
            fake.oldest = fake.version + 50
            fake.raw(json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n")
            wait_for(lambda: follower.watch.restarts["broken"] >= 2, "the refusal")
            assert follower.pods.get(UID) is not None
            assert len(follower.pods) == 1


def test_large_pods_are_listed_in_smaller_pages() -> None:
    """Fifty of them would not fit into one response."""
    with fake_apiserver() as fake:
        fake.add(*(pod(n, padding=500_000) for n in range(60)))
        with following(fake, timeout=30) as follower:
            follower.wait_pods(60)
        limits = {int(query["limit"]) for _, query, _ in fake.requests if "limit" in query}
        assert min(limits) < 50


def test_an_endless_list_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a `continue` that leads to the same page."""
    monkeypatch.setattr("ringfence.containers.kubernetes.watch._PAGES_MAX", 20)
    with fake_apiserver() as fake:
        fake.add(pod(1))
        fake.endless_list = True
        with following(fake) as follower:
            wait_for(lambda: follower.watch.restarts["broken"], "the end of it")


def test_pods_beyond_the_limit_are_counted_not_kept() -> None:
    """A malicious server cannot fill memory."""
    cache = PodCache()
    cache.put(found for n in range(PODS_MAX + 50) if (found := pod_of(pod(n))))
    assert len(cache) == PODS_MAX
    assert cache.refused == 50


def test_a_server_may_become_reachable_later() -> None:
    """The agent may start before its API server is reachable."""
    with fake_apiserver() as fake:
        fake.add(pod(1))
        follower = Follower(fake)
    follower.watch.start()
    wait_for(lambda: follower.watch.restarts["broken"] >= 2, "two attempts")
    assert not follower.watch.up
    assert len(follower.complaints) == 1
    follower.watch.close()
