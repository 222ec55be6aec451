# SPDX-License-Identifier: Apache-2.0
"""Follows this node's pods at the API server: list, then watch, for ever, in a thread of its own.

Kubernetes API Concepts: a list gives a resource version, the watch goes on from there, bookmarks move it
along, 410 Gone means to list again. The first list is asked for with resourceVersion 0: the server answers
from its cache, where a fleet that starts would else have the database read all pods for each node. Only where
that is too old or too much does a list in pages follow, which is consistent. Only metadata is asked for.
Whatever the server does (lies, stalls, drips, endless lines, half a document) ends the request, never the
thread; then it is tried again, later each time.
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

_PAGE = 50  # pods of one answer: what is read at once is what the memory must hold
_PAGES_MAX = 2000
_PAGE_MAX, _CACHED_MAX = 8 << 20, 4 << 20  # bytes of an answer
_LINE_MAX = 4 << 20
_WATCH_S = 240  # the server is asked to end a watch after this time
_GRACE_S = 30  # and left when it has not, this much later
_QUICK_S = 5.0  # an end before that, and without an event, is a failure: it must not be a busy loop
_BACKOFF_FIRST, _BACKOFF_MOST = 0.5, 30.0
_ACCEPT_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_ACCEPT_WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


class PodWatch:
    """`start` begins; the cache is up to date while `up`. `restarts` counts by reason."""

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
        """`complain` is told when a row of failures begins, and with an empty text when it ends.

        `longest`: seconds after which a watch is left, whatever comes by it.
        """
        self._client, self._node, self._cache, self._complain = client, node, cache, complain
        self._longest, self._backoff = longest, backoff
        self._stop = threading.Event()
        self._thread = SupervisedThread("pod-watch", self._run, on_failure=self._down)
        self._version = ""  # where to go on; empty: with a list
        self._consistent = False  # the next list is one in pages
        self._attempt = 0  # failures since a watch could be begun
        self._breaks = 0  # watches in a row that broke before they told anything
        self.up = False
        self.restarts: Counter[str] = Counter(
            {"gone": 0, "ended": 0, "stalled": 0, "refused": 0, "broken": 0}
        )
        self.events = 0
        self.used = 0  # events that made sense
        self.unusable = 0  # events and items that made no sense
        self.last_heard = 0.0  # seconds since the epoch

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a request under way is cut."""
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
                reason, text = "broken", f"what it sends {error}"[:300]
            except FAILURES as error:
                reason, text = "broken", f"{type(error).__name__}: {error}"[:300]
            if self._stop.is_set():
                return
            self._failed(reason)
            self._trouble(reason, text)

    def _down(self) -> None:
        self.up = False

    def _failed(self, reason: str) -> None:
        self.restarts[reason if reason in self.restarts else "broken"] += 1
        self._consistent = reason == "gone"
        self._breaks += self.up
        if reason == "gone" or self._attempt > 2 or self._breaks > 1:
            self._version = ""  # too old to go on from, or what follows it cannot be read

    def _trouble(self, reason: str, text: str) -> None:
        if reason != "gone" and self._attempt == 0 and self._breaks < 2:
            self._complain(text)
        self.up = False
        longest = min(_BACKOFF_MOST, self._backoff * 2.0 ** min(max(self._attempt, self._breaks - 1), 10))
        self._attempt += 1
        self._stop.wait(longest * (0.5 + 0.5 * random.random()))

    def _well(self) -> None:
        if self._attempt and self._breaks < 2:
            self._complain("")
        self._attempt, self.up = 0, True

    def _list(self) -> None:
        """Fill the cache, and set the version. Raises what _run knows."""
        seen: set[str] = set()
        version = "" if self._consistent else self._cached(seen)
        self._version = version or self._paged(seen)
        self._consistent = False
        self._cache.keep_only(seen)

    def _cached(self, seen: set[str]) -> str:
        """All in one answer; the version, empty where that is more than is read at once."""
        try:
            page = self._page("resourceVersion=0", seen, _CACHED_MAX)
        except ApiError as error:
            if error.reason == "too_large":
                return ""
            raise
        whole = not safejson.text(page, "metadata", "continue")
        return (safejson.text(page, "metadata", "resourceVersion") or "0") if whole else ""

    def _paged(self, seen: set[str]) -> str:
        """The version of all pages: that of the first."""
        following, size = "", _PAGE
        for _ in range(_PAGES_MAX):
            query = f"limit={size}" + (f"&continue={quote(following)}" if following else "")
            try:
                page = self._page(query, seen, _PAGE_MAX)
            except ApiError as error:
                if error.reason != "too_large" or size == 1:
                    raise
                size = max(1, size // 4)  # pods of megabytes: fewer at a time
                continue
            following = safejson.text(page, "metadata", "continue")
            if not following:
                return safejson.text(page, "metadata", "resourceVersion") or "0"
        raise ApiError("broken", "a list without an end")

    def _page(self, query: str, seen: set[str], most: int) -> Any:
        page = safejson.parse(self._client.get(self._path(query), _ACCEPT_LIST, most))
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise ApiError("broken", "the answer is no list of pods")
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
        """Follow until the server ends it. Raises what _run knows."""
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_S}"
        path = self._path(f"{query}&resourceVersion={quote(self._version)}")
        with self._client.stream(path, _ACCEPT_WATCH, self._longest) as lines:
            self._well()
            began, told = time.monotonic(), self.events
            while not self._stop.is_set():
                line = lines(_LINE_MAX)
                if not line:
                    if self.events == told and time.monotonic() - began < _QUICK_S:
                        raise ApiError("ended", "the API server ends each watch at once")
                    return
                if not line.endswith(b"\n") and len(line) >= _LINE_MAX:
                    raise ApiError("broken", "the API server sent an endless line")
                if line.strip():
                    self._event(safejson.parse(line))

    def _event(self, event: Any) -> None:
        """Take one event. Raises ApiError for one of type ERROR."""
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
            if kind == "DELETED":  # what it was called at last is remembered
                self._cache.remove([pod.uid])
        self._version = safejson.text(item, "metadata", "resourceVersion") or self._version

    def _path(self, query: str) -> str:
        return f"/api/v1/pods?fieldSelector={quote(f'spec.nodeName={self._node}')}&{query}"
