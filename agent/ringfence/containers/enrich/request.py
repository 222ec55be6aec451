# SPDX-License-Identifier: Apache-2.0
"""What enrichment is asked, and what a source of facts looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ringfence.containers.model import Container, Facts

__all__ = ["Request", "Source"]


@dataclass(frozen=True, slots=True)
class Request:
    """One container to ask for. An empty `cgroup_path` is looked up by the cgroup's id first."""

    cgroup_id: int
    id: str
    cgroup_path: str
    runtime: str
    pid: int
    start_ns: int

    @classmethod
    def of(cls, container: Container) -> Request:
        """All that is known of a container that helps to find it."""
        return cls(
            container.cgroup_id,
            container.id,
            container.cgroup_path,
            container.runtime or "",
            container.pid,
            container.start_ns,
        )


class Source(Protocol):
    """Somebody who may know a container: a runtime's state directory, a daemon's socket."""

    name: str

    def find(self, request: Request) -> Facts | None:
        """What it knows; None: it does not know this container. Raises Unusable; bounded in time."""
