# SPDX-License-Identifier: Apache-2.0
"""The HTTP servers, the audit for the metrics, and the node's start-up taint. None of them handles
events.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ringfence.config import Config
from ringfence.containers.model import Container
from ringfence.daemon.health.readiness import Readiness
from ringfence.daemon.queries.audit import AuditRound
from ringfence.daemon.queries.status import Answers
from ringfence.export.http_endpoints import HealthServer, HttpServer
from ringfence.export.metrics import Part, new_registry
from ringfence.export.stream import StreamServer

__all__ = ["audit_of", "open_node", "serve"]


def serve(
    config: Config,
    stack: contextlib.ExitStack,
    parts: Sequence[Part],
    readiness: Readiness,
    answers: Answers,
    stream: StreamServer,
) -> None:
    """Serve metrics and health, and the page if it is configured. `parts` have the metrics."""
    healthy, ready = readiness.healthy, readiness.ready
    if config.http_listen:
        registry = new_registry(parts)
        http = HttpServer(config.http_listen, registry, healthy, ready, compress=config.http_gzip)
        stack.callback(http.close)
        http.start()
    if config.health_listen:
        health = HealthServer(config.health_listen, healthy, ready)
        stack.callback(health.close)
        health.start()
    if config.page_listen:
        from ringfence.export.page import PageServer

        page = PageServer(config.page_listen, answers.answer, stream.recent)
        stack.callback(page.close)
        page.start()


def audit_of(
    config: Config, stack: contextlib.ExitStack, containers: Callable[[], Sequence[Container]]
) -> AuditRound:
    """Start the audit."""
    made = AuditRound(config, containers)
    stack.callback(made.close)
    made.start()
    return made


def open_node(config: Config, stack: contextlib.ExitStack) -> None:
    """Remove the start-up taint, if one is configured."""
    if config.kubernetes_taint:
        from ringfence.daemon.queries.taint import TaintRemover

        remover = TaintRemover(config)
        stack.callback(remover.close)
        remover.start()
