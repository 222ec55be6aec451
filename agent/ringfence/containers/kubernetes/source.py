# SPDX-License-Identifier: Apache-2.0
"""The CRI socket and the API server, combined to one source of enrichment."""

from __future__ import annotations

from ringfence.containers.enrich.request import Request
from ringfence.containers.kubernetes.cri import Cri, CriContainer, CriError
from ringfence.containers.kubernetes.pods import Pod, PodCache
from ringfence.containers.model import Enrichment, Facts
from ringfence.containers.patterns import identify

__all__ = ["Kubernetes"]

_RUNTIMES = {"containerd": "containerd", "cri-o": "cri-o", "docker": "docker"}


class Kubernetes:
    """Facts about containers in a pod's cgroup; the cgroup's path decides which pod it is."""

    name = "kubernetes"

    def __init__(self, cri: Cri | None, pods: PodCache | None) -> None:
        self._cri, self._pods = cri, pods

    def find(self, request: Request) -> Facts | None:
        """Returns the facts of pod and container. Raises CriError if neither source could be queried."""
        uid = identify(request.cgroup_path).pod_uid
        if not uid:
            return None
        pod = self._pods.get(uid) if self._pods is not None else None
        container: CriContainer | None = None
        try:
            container = self._cri.find(request.id) if self._cri is not None else None
        except CriError:
            if pod is None:
                raise
        if container is not None and container.pod_uid not in ("", uid):
            container = None  # the response names another pod: not trusted
        names = (container.namespace, container.pod) if container and container.pod else None
        if names and pod and names != (pod.namespace, pod.name):
            pod = None  # the container was started under the runtime's names
        return _facts(uid, pod, container) if pod or container else None


def _facts(uid: str, pod: Pod | None, container: CriContainer | None) -> Facts:
    """Merges the facts. Labels are those of the API server, which knows later changes."""
    labels = pod.labels if pod else dict(container.labels) if container else {}
    return Facts(
        Enrichment.DONE,
        source="kubernetes",
        runtime=_RUNTIMES.get(container.runtime, "") if container else "",
        name=container.name if container else "",
        image=container.image if container else "",
        image_digest=container.image_digest if container else "",
        labels=labels,
        cluster_labels=labels,
        namespace=pod.namespace if pod else container.namespace if container else "",
        pod=pod.name if pod else container.pod if container else "",
        pod_uid=uid,
        owner=pod.owner if pod else "",
    )
