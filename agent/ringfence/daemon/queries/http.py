# SPDX-License-Identifier: Apache-2.0
"""HTTP servers, the audit behind the metrics, and the node's start-up taint. None of them handles events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ringfence.config import Config
from ringfence.containers.model import Container
from ringfence.daemon.queries.audit import AuditRound
from ringfence.daemon.queries.status import StatusQueries
from ringfence.export.http_endpoints import HealthServer, HttpServer
from ringfence.export.metrics import Sources, new_registry
from ringfence.export.stream import StreamServer

__all__ = ["audit_of", "open_node", "serve"]

Check = Callable[[], str]


def serve(
    config: Config,
    stack: contextlib.ExitStack,
    sources: Sources,
    healthy: Check,
    ready: Check,
    status: StatusQueries,
    stream: StreamServer,
) -> None:
    """Metrics and health, and the page where it is asked for."""
    if config.http_listen:
        registry = new_registry(sources)
        http = HttpServer(config.http_listen, registry, healthy, ready, compress=config.http_gzip)
        stack.callback(http.close)
        http.start()
    if config.health_listen:
        health = HealthServer(config.health_listen, healthy, ready)
        stack.callback(health.close)
        health.start()
    if config.page_listen:
        from ringfence.export.page import PageServer

        page = PageServer(config.page_listen, status.answer, stream.recent)
        stack.callback(page.close)
        page.start()


def audit_of(
    config: Config, stack: contextlib.ExitStack, containers: Callable[[], Sequence[Container]]
) -> AuditRound:
    """The audit, in rounds from now on."""
    made = AuditRound(config, containers)
    stack.callback(made.close)
    made.start()
    return made


def open_node(config: Config, stack: contextlib.ExitStack) -> None:
    """Take the start-up taint away, where there is to be one."""
    if config.kubernetes_taint:
        from ringfence.daemon.queries.taint import TaintRemover

        remover = TaintRemover(config)
        stack.callback(remover.close)
        remover.start()
