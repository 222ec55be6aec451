# SPDX-License-Identifier: Apache-2.0
"""Requests to enrichment, and the interface of a source of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ringfence.containers.model import Container, Facts

__all__ = ["Request", "Source"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the facts of a container. An empty `cgroup_path` is looked up by the cgroup's id."""

    cgroup_id: int
    id: str
    cgroup_path: str
    runtime: str
    pid: int
    start_ns: int

    @classmethod
    def of(cls, container: Container) -> Request:
        """Returns a request with all known facts that help to find the container."""
        return cls(
            container.cgroup_id,
            container.id,
            container.cgroup_path,
            container.runtime or "",
            container.pid,
            container.start_ns,
        )


class Source(Protocol):
    """A source that may know a container: a runtime's state directory, a daemon's socket."""

    name: str

    def find(self, request: Request) -> Facts | None:
        """Returns the facts; None if the container is unknown. Raises Unusable; bounded in time."""
