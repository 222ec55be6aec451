# SPDX-License-Identifier: Apache-2.0
"""Follows this node's pods at the API server in a thread: lists them, then watches them, forever.

Kubernetes API Concepts: a list gives a resource version, from which the watch continues; bookmarks advance
it, and 410 Gone requires a new list. The first list has resourceVersion 0, which the server answers from its
cache; otherwise a starting fleet would make the database read all pods for each node. Only if that is too old
or too large, a paged list follows, which is consistent. Only metadata is requested. Invalid data, stalls,
dripping, endless lines or half a document end the request, never the thread; it is repeated with increasing
delays.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from ringfence.containers.enrich import safejson
from ringfence.containers.kubernetes.client import ApiError, Client
from ringfence.containers.kubernetes.pods import Pod, PodCache, pod_of
from ringfence.faults import SupervisedThread
from ringfence.httpclient import FAILURES

__all__ = ["PodWatch"]

_PAGE = 50  # pods of one response, which must fit in memory
_PAGES_MAX = 2000
_PAGE_MAX, _CACHED_MAX = 8 << 20, 4 << 20  # bytes of a response
_LINE_MAX = 4 << 20
_WATCH_S = 240  # the requested maximum duration of a watch
_GRACE_S = 30  # additional time after which the watch is aborted
_QUICK_S = 5.0  # an earlier end without an event is a failure, to avoid a busy loop
_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 30.0
_ACCEPT_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_ACCEPT_WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


class PodWatch:
    """The watch. The cache is up to date while `up` is True. `restarts` counts by reason."""

    def __init__(
        self,
        client: Client,
        node: str,
        cache: PodCache,
        complain: Callable[[str], None] = lambda text: None,
        *,
        longest: float = _WATCH_S + _GRACE_S,
        backoff: float = _BACKOFF_FIRST,
    ) -> None:
        """`complain` is called at the first of consecutive failures, and with an empty text when they end.

        `longest`: seconds after which a watch is aborted, even if it delivers events.
        """
        self._client, self._node, self._cache, self._complain = client, node, cache, complain
        self._longest, self._backoff = longest, backoff
        self._stop = threading.Event()
        self._thread = SupervisedThread("pod-watch", self._run, on_failure=self._down)
        self._version = ""  # the resource version to continue from; empty: list first
        self._consistent = False  # the next list is paged, and so consistent
        self._attempt = 0  # failures since the last started watch
        self._breaks = 0  # consecutive watches that failed before any event
        self.up = False
        self.restarts: Counter[str] = Counter(
            {"gone": 0, "ended": 0, "stalled": 0, "refused": 0, "broken": 0}
        )
        self.events = 0
        self.used = 0  # valid events
        self.unusable = 0  # invalid events and items
        self.last_heard = 0.0  # seconds since the epoch

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and aborts its request."""
        self._stop.set()
        self._thread.stop()
        self._client.cut()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
                self.restarts["ended"] += 1
                self._breaks = 0
                continue
            except ApiError as error:
                reason, text = error.reason, str(error)
            except TimeoutError as error:
                reason, text = "stalled", str(error.strerror or error)
            except safejson.Unusable as error:
                reason, text = "broken", f"the API server's data {error}"[:300]
            except FAILURES as error:
                reason, text = "broken", f"{type(error).__name__}: {error}"[:300]
            if self._stop.is_set():
                return
            self._failed(reason)
            self._back_off(reason, text)

    def _down(self) -> None:
        self.up = False

    def _failed(self, reason: str) -> None:
        self.restarts[reason if reason in self.restarts else "broken"] += 1
        self._consistent = reason == "gone"
        self._breaks += self.up
        if reason == "gone" or self._attempt > 2 or self._breaks > 1:
            self._version = ""  # too old to continue from, or what follows cannot be read

    def _back_off(self, reason: str, text: str) -> None:
        if reason != "gone" and self._attempt == 0 and self._breaks < 2:
            self._complain(text)
        self.up = False
        longest = min(_BACKOFF_MOST, self._backoff * 2.0 ** min(max(self._attempt, self._breaks - 1), 10))
        self._attempt += 1
        self._stop.wait(longest * (0.5 + 0.5 * random.random()))

    def _recovered(self) -> None:
        if self._attempt and self._breaks < 2:
            self._complain("")
        self._attempt, self.up = 0, True

    def _list(self) -> None:
        """Fills the cache and sets the version. Raises the exceptions that _run handles."""
        seen: set[str] = set()
        version = "" if self._consistent else self._cached(seen)
        self._version = version or self._paged(seen)
        self._consistent = False
        self._cache.keep_only(seen)

    def _cached(self, seen: set[str]) -> str:
        """Lists all pods in one response; returns the version, empty if the response is too large."""
        try:
            page = self._page("resourceVersion=0", seen, _CACHED_MAX)
        except ApiError as error:
            if error.reason == "too_large":
                return ""
            raise
        whole = not safejson.text(page, "metadata", "continue")
        return (safejson.text(page, "metadata", "resourceVersion") or "0") if whole else ""

    def _paged(self, seen: set[str]) -> str:
        """Lists all pods in pages; returns the version, which is that of the first page."""
        following, size = "", _PAGE
        for _ in range(_PAGES_MAX):
            query = f"limit={size}" + (f"&continue={quote(following)}" if following else "")
            try:
                page = self._page(query, seen, _PAGE_MAX)
            except ApiError as error:
                if error.reason != "too_large" or size == 1:
                    raise
                size = max(1, size // 4)  # pods with megabytes of metadata: fewer per page
                continue
            following = safejson.text(page, "metadata", "continue")
            if not following:
                return safejson.text(page, "metadata", "resourceVersion") or "0"
        raise ApiError("broken", "the list of pods does not end")

    def _page(self, query: str, seen: set[str], most: int) -> Any:
        page = safejson.parse(self._client.get(self._path(query), _ACCEPT_LIST, most))
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise ApiError("broken", "the response is not a list of pods")
        pods = list(self._pods(page["items"]))
        self._cache.put(pods)
        seen.update(pod.uid for pod in pods)
        self.last_heard = time.time()
        return page

    def _pods(self, items: list[Any]) -> Iterator[Pod]:
        for item in items:
            pod = pod_of(item)
            if pod is None:
                self.unusable += 1
            else:
                yield pod

    def _watch(self) -> None:
        """Follows until the server ends the watch. Raises the exceptions that _run handles."""
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_S}"
        path = self._path(f"{query}&resourceVersion={quote(self._version)}")
        with self._client.stream(path, _ACCEPT_WATCH, self._longest) as lines:
            self._recovered()
            began, events = time.monotonic(), self.events
            while not self._stop.is_set():
                line = lines(_LINE_MAX)
                if not line:
                    if self.events == events and time.monotonic() - began < _QUICK_S:
                        raise ApiError("ended", "the API server ends each watch immediately")
                    return
                if not line.endswith(b"\n") and len(line) >= _LINE_MAX:
                    raise ApiError("broken", "the API server sent an endless line")
                if line.strip():
                    self._event(safejson.parse(line))

    def _event(self, event: Any) -> None:
        """Processes one event. Raises ApiError for type ERROR."""
        self.events += 1
        self.last_heard = time.time()
        kind, item = safejson.text(event, "type"), event.get("object") if isinstance(event, dict) else None
        if kind == "ERROR":
            code = safejson.integer(item, "code")
            raise ApiError("gone" if code == 410 else "refused", f"the watch ended: {code}")
        pod = pod_of(item)
        if kind == "BOOKMARK":
            self._breaks = 0
            self.used += 1
        elif pod is None or kind not in ("ADDED", "MODIFIED", "DELETED"):
            self.unusable += 1
        else:
            self._breaks = 0
            self.used += 1
            self._cache.put([pod])
            if kind == "DELETED":  # its last facts are remembered
                self._cache.remove([pod.uid])
        self._version = safejson.text(item, "metadata", "resourceVersion") or self._version

    def _path(self, query: str) -> str:
        return f"/api/v1/pods?fieldSelector={quote(f'spec.nodeName={self._node}')}&{query}"
