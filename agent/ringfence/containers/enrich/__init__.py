# SPDX-License-Identifier: Apache-2.0
"""Names, images, labels and posture of containers, from the files and sockets of runtimes.

No client library, no network, nothing on the event path. These facts are displayed and used to select
policies, never to attribute a task: only the kernel's records do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ringfence.containers.enrich.bundles import ContainerdBundles, CrunState, RuncState
from ringfence.containers.enrich.docker import Docker
from ringfence.containers.enrich.podman import ContainersStorage
from ringfence.containers.enrich.request import Request, Source
from ringfence.containers.enrich.worker import Answer, Worker

__all__ = ["Answer", "Request", "Source", "Worker", "default_sources"]


def default_sources(roots: Mapping[str, Path]) -> list[Source]:
    """Returns all sources, the most informative first. `roots` is `runtime.roots` of the configuration.

    Its keys are runc, crun, containerd (task directory), docker (socket or data directory), podman (storage).
    """

    def at(name: str) -> tuple[Path, ...]:
        return (roots[name],) if name in roots else ()

    docker = roots.get("docker")
    by_socket = docker if docker is not None and not docker.is_dir() else None
    return [
        Docker(by_socket, roots=() if by_socket or docker is None else (docker,)),
        ContainersStorage(at("podman")),
        ContainerdBundles(at("containerd")),
        RuncState(at("runc")),
        CrunState(at("crun")),
    ]
