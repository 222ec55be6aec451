# SPDX-License-Identifier: Apache-2.0
"""The pods of this node from the API server: uid -> name, labels, owner, and nothing else.

Written by the watch's thread, read by the enrichment's. A deleted pod is remembered for a while, as its last
container may be looked up afterwards.

The cgroup of a static pod is named by the kubelet's hash, not by the uid of the mirror pod at the API server.
The mirror has the hash in annotations, but every user who may create pods can set these. So a hash is an
alias that never overrides a uid, and a hash that two pods claim is ignored.
"""

from __future__ import annotations

import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ringfence.containers.enrich import safejson

__all__ = ["PODS_MAX", "Pod", "PodCache", "pod_of"]

PODS_MAX = 10_000
_GONE_S, _GONE_MAX = 120.0, 1024
#: annotations of a mirror pod (pkg/kubelet/types/pod_update.go): the hash in the cgroup's name, the marker
_HASH, _MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"
_HASH_FORM = re.compile(r"[0-9a-f]{32}")


class Pod(NamedTuple):
    """The kept facts of a pod. Labels are flat (name, value, name, value ...) to save memory."""

    uid: str
    namespace: str
    name: str
    owner: str  # Deployment/web; empty for a pod without a controller
    flat_labels: tuple[str, ...]
    mirror: str = ""  # of a static pod: the hash that its cgroup's name may contain

    @property
    def labels(self) -> dict[str, str]:
        """Name -> value."""
        return dict(zip(self.flat_labels[::2], self.flat_labels[1::2], strict=True))


def pod_of(item: Any) -> Pod | None:
    """Parses a pod, or its metadata alone, from the API server; None if it is neither."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    name, namespace = safejson.text(metadata, "name"), safejson.text(metadata, "namespace")
    uid = safejson.text(metadata, "uid")
    if not uid or not name:
        return None
    labels = safejson.labels(metadata, "labels")
    flat = tuple(sys.intern(text) for pair in sorted(labels.items()) for text in pair)
    return Pod(uid, sys.intern(namespace), name, _owner(metadata, labels), flat, _mirror(metadata))


def _mirror(metadata: Any) -> str:
    found = safejson.text(metadata, "annotations", _HASH)
    is_mirror = safejson.text(metadata, "annotations", _MIRROR) == found
    return found if is_mirror and _HASH_FORM.fullmatch(found) else ""


def _owner(metadata: Any, labels: Mapping[str, str]) -> str:
    """Returns the controller. A ReplicaSet's name is its Deployment's plus the hash in its pods' labels."""
    for reference in safejson.children(metadata, "ownerReferences"):
        if not isinstance(reference, dict) or reference.get("controller") is not True:
            continue
        kind, name = safejson.text(reference, "kind"), safejson.text(reference, "name")
        suffix = "-" + labels.get("pod-template-hash", "")
        if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
            kind, name = "Deployment", name.removesuffix(suffix)
        return sys.intern(f"{kind}/{name}") if kind and name else ""
    return ""


class PodCache:
    """uid -> Pod. `changed` is called with the uids of pods with changed names, labels or owner."""

    def __init__(
        self,
        changed: Callable[[frozenset[str]], object] = lambda uids: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed, self._clock = changed, clock
        self._pods: dict[str, Pod] = {}
        self._gone: OrderedDict[str, tuple[float, Pod]] = OrderedDict()
        self._mirrors: dict[str, frozenset[str]] = {}  # hash -> uids of the pods that claim it
        self.refused = 0  # pods beyond PODS_MAX

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, uid: str) -> Pod | None:
        """Returns a pod that exists or was deleted recently. `uid` is the one in its cgroup's name."""
        claims = self._mirrors.get(uid, frozenset())
        if len(claims) == 1 and uid not in self._pods:
            (uid,) = claims
        pod = self._pods.get(uid)
        if pod is None and (gone := self._gone.get(uid)) is not None:
            pod = gone[1]
        return pod

    def put(self, pods: Iterable[Pod]) -> None:
        """Adds or updates pods."""
        news = set()
        for pod in pods:
            if pod.uid not in self._pods and len(self._pods) >= PODS_MAX:
                self.refused += 1
                continue
            before = self._pods.get(pod.uid)
            if before != pod:
                self._pods[pod.uid] = pod
                news |= {pod.uid} | self._claim(before, pod)
        if news:
            self._changed(frozenset(news))

    def remove(self, uids: Iterable[str]) -> None:
        """Removes deleted pods."""
        now = self._clock()
        for uid in uids:
            if (pod := self._pods.pop(uid, None)) is not None:
                self._gone[uid] = (now, pod)
        while self._gone:
            uid, (since, pod) = next(iter(self._gone.items()))
            if len(self._gone) <= _GONE_MAX and now - since < _GONE_S:
                break
            self._gone.pop(uid, None)
            if uid not in self._pods:
                self._claim(pod, None)

    def _claim(self, before: Pod | None, after: Pod | None) -> set[str]:
        """Updates the claims of a pod; returns the hashes with changed claims."""
        changed = set()
        for pod, there in ((before, False), (after, True)):
            if pod is not None and pod.mirror:
                claims = self._mirrors.get(pod.mirror, frozenset()) - {pod.uid}
                claims |= {pod.uid} if there else set()
                self._mirrors[pod.mirror] = claims
                if not claims:
                    del self._mirrors[pod.mirror]
                changed.add(pod.mirror)
        return changed

    def keep_only(self, uids: set[str]) -> None:
        """Removes the pods that the API server did not list."""
        self.remove([uid for uid in self._pods if uid not in uids])
