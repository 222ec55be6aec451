# SPDX-License-Identifier: Apache-2.0
"""The families that name the node: its facts, and the heartbeat of its agent."""

from __future__ import annotations

import platform
import time

from prometheus_client.core import Metric

from ringfence import __version__
from ringfence.export.escape import escape
from ringfence.export.families import gauge

__all__ = ["heartbeat", "node_info"]


def heartbeat(node: str, loop_seen: float) -> Metric:
    """`loop_seen`: monotonic time at which the loop last ran; 0: it has not begun."""
    silent = time.monotonic() - loop_seen if loop_seen else 0.0
    return gauge(
        "ringfence_heartbeat_timestamp_seconds",
        "Time at which the event loop of a node's agent last ran.",
        {"node": escape(node, 253)},
        time.time() - silent,
    )


def node_info(node: str, tier: str, when_skipped: str, mode: str, digest: str) -> Metric:
    """The facts by which a fleet is compared: see docs/reference/metrics.md."""
    labels = {
        "node": escape(node, 253),
        "version": __version__,
        "kernel": escape(platform.release(), 128),
        "machine": platform.machine(),
        "tier": tier,
        "when_skipped": when_skipped,
        "mode": mode,
        "policy_digest": digest,
    }
    text = "Facts about the node and its agent: kernel, enforcement tier, mode, policy digest; always 1."
    return gauge("ringfence_node_info", text, labels, 1)
