# SPDX-License-Identifier: Apache-2.0
"""Docker: its API on a Unix socket (GET /containers/<id>/json), or its files without a daemon."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringfence.containers.enrich import safejson
from ringfence.containers.enrich.request import Request
from ringfence.containers.model import Enrichment, Facts
from ringfence.containers.patterns import identify

__all__ = ["Docker", "socket_path"]

SOCKET = Path("/run/docker.sock")
ROOT = Path("/var/lib/docker")
TIMEOUT_S = 1.0
_HEX64 = re.compile(r"[0-9a-f]{64}")


def socket_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the daemon's socket: DOCKER_HOST if it is a unix:// address, else the default."""
    host = environment.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix:///") else SOCKET


class Docker:
    """The facts that dockerd has about a container."""

    name = "docker"

    def __init__(
        self, path: Path | None = None, roots: Iterable[Path] = (), timeout: float = TIMEOUT_S
    ) -> None:
        self._path = path or socket_path()
        self._roots = (*roots, ROOT)
        self._timeout = timeout

    def find(self, request: Request) -> Facts | None:
        if not _HEX64.fullmatch(request.id):
            return None
        answer = self._ask(request.id)
        facts = _from_api(answer) if answer is not None else self._from_files(request.id)
        # Labels may come from the image: only a cgroup created by the kubelet confirms the pod's.
        if facts is not None and facts.pod_uid != (identify(request.cgroup_path).pod_uid or None):
            facts = replace(facts, namespace="", pod="", pod_uid="")
        return facts

    def _ask(self, identifier: str) -> Any:
        """Returns the API's response; None if the daemon does not run or does not know the container."""
        if not self._path.exists():
            return None
        from ringfence.httpclient import FAILURES, UnixConnection

        try:
            with UnixConnection(self._path, self._timeout) as connection:
                connection.request("GET", f"/containers/{identifier}/json")
                response = connection.getresponse()
                if response.status != 200:
                    return None
                body = response.read(safejson.SIZE_MAX + 1)
        except FAILURES:
            return None
        if len(body) > safejson.SIZE_MAX:
            raise safejson.Unusable(f"docker's response is larger than {safejson.SIZE_MAX} bytes")
        return safejson.parse(body)

    def _from_files(self, identifier: str) -> Facts | None:
        for root in self._roots:
            try:
                config = safejson.read(root / "containers" / identifier / "config.v2.json")
            except FileNotFoundError:
                continue
            return _from_api(config)
        return None


def _from_api(answer: Any) -> Facts:
    """Converts a response of the API, or config.v2.json, which has the same fields."""
    labels = safejson.labels(answer, "Config", "Labels")
    return Facts(
        Enrichment.DONE,
        source="docker",
        runtime="docker",
        name=safejson.text(answer, "Name").removeprefix("/"),
        image=safejson.text(answer, "Config", "Image"),
        image_id=safejson.text(answer, "Image"),
        labels=labels,
        namespace=labels.get("io.kubernetes.pod.namespace", ""),
        pod=labels.get("io.kubernetes.pod.name", ""),
        pod_uid=labels.get("io.kubernetes.pod.uid", ""),
        pid=safejson.integer(answer, "State", "Pid") or 0,
    )
