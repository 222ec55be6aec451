# SPDX-License-Identifier: Apache-2.0
"""The sources of facts about pods: the CRI socket and the watch of the API server, as configured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from ringfence import log
from ringfence.config import Config
from ringfence.containers.enrich import Source
from ringfence.containers.kubernetes.cri import Cri, sockets_of
from ringfence.containers.kubernetes.pods import PodCache
from ringfence.containers.kubernetes.source import Kubernetes
from ringfence.errors import ConfigError
from ringfence.export import families
from ringfence.export.escape import escape

if TYPE_CHECKING:
    from ringfence.containers.kubernetes.client import Client
    from ringfence.containers.kubernetes.watch import PodWatch

__all__ = ["PodSources", "api_client", "api_server", "api_url"]


def api_server(config: Config, environment: Mapping[str, str] = os.environ) -> str:
    """The URL of the API server: as configured, or from the environment that the kubelet gives
    every pod. Empty: none is known.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    if config.kubernetes_api or not host:
        return config.kubernetes_api
    port = environment.get("KUBERNETES_SERVICE_PORT_HTTPS") or environment.get("KUBERNETES_SERVICE_PORT")
    return f"https://[{host}]:{port or 443}" if ":" in host else f"https://{host}:{port or 443}"


def api_url(config: Config, environment: Mapping[str, str] = os.environ) -> str:
    """The API server to follow; empty: none. Raises ConfigError if it is required and not known."""
    if config.kubernetes_watch == "off":
        return ""
    url = api_server(config, environment)
    if config.kubernetes_watch == "on" and not url:
        raise ConfigError(
            "kubernetes.watch: no API server is known", hint="name one with --kubernetes-api, or `watch: off`"
        )
    wanted = config.kubernetes_watch == "on" or config.kubernetes_api or config.kubernetes_token.exists()
    return url if wanted else ""


def api_client(config: Config, url: str) -> Client:
    """A client of that server, with the configured credentials."""
    # TLS and HTTP take long to import: only with a cluster.
    from ringfence.containers.kubernetes.client import Client

    return Client(url, config.kubernetes_token, config.kubernetes_ca)


class PodSources:
    """`sources` are for the enrichment; `start` begins to follow the API server."""

    def __init__(self, config: Config) -> None:
        if config.kubernetes_taint and not api_server(config):
            raise ConfigError(
                "kubernetes.taint: no API server is known", hint="name one with --kubernetes-api"
            )
        self._log = log.get_logger("kubernetes")
        self.watch: PodWatch | None = None
        self.pods: PodCache | None = None
        self.cri_path: Path | None = next(iter(sockets_of(config.cri_socket)), None)
        if url := api_url(config):
            from ringfence.containers.kubernetes.watch import PodWatch

            self.pods = PodCache(self._report)
            self.watch = PodWatch(api_client(config, url), config.node_name, self.pods, self._news)

    def sources(self) -> list[Source]:
        """The sources that answer about pods: at most one."""
        cri = Cri(self.cri_path) if self.cri_path else None
        return [Kubernetes(cri, self.pods)] if cri or self.pods is not None else []

    def start(self, changed: Callable[[frozenset[str]], object]) -> None:
        """Follow. `changed` gets the uids of pods that changed, in the watch's thread."""
        self._changed = changed
        if self.watch is not None:
            self.watch.start()

    def close(self) -> None:
        """Stop following."""
        if self.watch is not None:
            self.watch.close()

    def samples(self) -> Iterator[Metric]:
        """The watch, if there is one."""
        yield from families.pod_watch(self.watch, self.pods)

    def _report(self, uids: frozenset[str]) -> None:
        self._changed(uids)

    def _news(self, text: str) -> None:
        if text:
            self._log.warning("pods are not followed; labels may be old", reason=escape(text))
        else:
            self._log.info("pods are followed again")
