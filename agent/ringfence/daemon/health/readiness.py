# SPDX-License-Identifier: Apache-2.0
"""Whether the agent is ready, and whether its loop turns: the answers of /readyz and /healthz."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import Metric

from ringfence.export import families
from ringfence.export.node_facts import heartbeat
from ringfence.export.stats import Stats

__all__ = ["Readiness"]

_HEALTHY = 10.0  # seconds in which the loop must have turned


class Readiness:
    """Written by the agent's main thread, read by any thread."""

    def __init__(self, stats: Stats, mode: str, node: str) -> None:
        """`mode` is the configured one, `node` the node's name."""
        self._stats, self._mode, self._node = stats, mode, node
        self._waiting_for = "the kernel"

    def wait_for(self, what: str) -> None:
        """The agent is not ready before this is done; empty: it is ready."""
        self._waiting_for = what

    def ready(self) -> str:
        """Empty if programs are attached and policies are in the kernel, otherwise what is
        missing.
        """
        return f"not ready: waiting for {self._waiting_for}" if self._waiting_for else ""

    def healthy(self) -> str:
        """Empty while the loop turns."""
        silent = time.monotonic() - self._stats.loop_seen
        return "" if self._waiting_for or silent < _HEALTHY else f"the loop has not turned for {silent:.0f} s"

    def samples(self) -> Iterator[Metric]:
        """The agent as a whole."""
        yield heartbeat(self._node, self._stats.loop_seen)
        yield from families.agent(self._stats, self._mode, ready=not self._waiting_for)
