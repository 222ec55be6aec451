# SPDX-License-Identifier: Apache-2.0
"""What the CRI socket and the API server know of a container, as one source of enrichment."""

from __future__ import annotations

from ringfence.containers.enrich.request import Request
from ringfence.containers.kubernetes.cri import Cri, CriContainer, CriError
from ringfence.containers.kubernetes.pods import Pod, PodCache
from ringfence.containers.model import Enrichment, Facts
from ringfence.containers.patterns import identify

__all__ = ["Kubernetes"]

_RUNTIMES = {"containerd": "containerd", "cri-o": "cri-o", "docker": "docker"}


class Kubernetes:
    """Asked only for containers whose cgroup lies in a pod's; the cgroup's word on which pod counts."""

    name = "kubernetes"

    def __init__(self, cri: Cri | None, pods: PodCache | None) -> None:
        self._cri, self._pods = cri, pods

    def find(self, request: Request) -> Facts | None:
        """Pod and container. Raises CriError where neither could be asked."""
        uid = identify(request.cgroup_path).pod_uid
        if not uid:
            return None
        pod = self._pods.get(uid) if self._pods is not None else None
        told: CriContainer | None = None
        try:
            told = self._cri.find(request.id) if self._cri is not None else None
        except CriError:
            if pod is None:
                raise
        if told is not None and told.pod_uid not in ("", uid):
            told = None  # another pod's: whoever says so is not believed
        named = told is not None and bool(told.pod)
        if named and told and pod and (told.namespace, told.pod) != (pod.namespace, pod.name):
            pod = None  # what runs here was started under the runtime's names
        return _facts(uid, pod, told) if pod or told else None


def _facts(uid: str, pod: Pod | None, told: CriContainer | None) -> Facts:
    """The API server's word on labels counts: it knows what changed since the pod was made."""
    labels = pod.labels if pod else dict(told.labels) if told else {}
    return Facts(
        Enrichment.DONE,
        source="kubernetes",
        runtime=_RUNTIMES.get(told.runtime, "") if told else "",
        name=told.name if told else "",
        image=told.image if told else "",
        image_digest=told.image_digest if told else "",
        labels=labels,
        namespace=pod.namespace if pod else told.namespace if told else "",
        pod=pod.name if pod else told.pod if told else "",
        pod_uid=uid,
        owner=pod.owner if pod else "",
    )
