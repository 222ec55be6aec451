# SPDX-License-Identifier: Apache-2.0
"""Take the start-up taint from this agent's node, once it is ready: pods that waited for a guard may come.

In a thread of its own, again and again with longer pauses until the API server agrees. Nothing else of the
node is changed: the patch names the version that was read, and is made anew where another was faster.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from ringfence import log
from ringfence.config import Config

__all__ = ["TaintRemover"]

_FIRST, _LAST = 1.0, 60.0  # seconds between attempts
_TIMEOUT = 10.0
_MAX_BODY = 4 << 20


class TaintRemover:
    """`start` when the agent is ready; `done` is set when the node has no such taint (any more)."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = threading.Event()
        self._log = log.get_logger("taint")
        self.done = threading.Event()

    def start(self) -> None:
        """Begin. Returns at once."""
        threading.Thread(target=self._run, name="taint", daemon=True).start()

    def close(self) -> None:
        """Stop trying."""
        self._stopping.set()

    def _run(self) -> None:
        pause = _FIRST
        while not self._stopping.is_set():
            try:
                removed = self._remove()
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ) as error:  # it answers nonsense, or not at all
                self._log.warning("the taint stays, for now", error=str(error), again_in_seconds=pause)
            else:
                self._log.info(
                    "the node is open for pods", taint=self._config.kubernetes_taint, removed=removed
                )
                self.done.set()
                return
            self._stopping.wait(pause)
            pause = min(2 * pause, _LAST)

    def _remove(self) -> bool:
        """Once; False where there was none."""
        node = self._ask("GET")
        taints = node["spec"].get("taints") or []
        left = [taint for taint in taints if taint["key"] != self._config.kubernetes_taint]
        if len(left) == len(taints):
            return False
        self._ask("PATCH", [
            {"op": "test", "path": "/metadata/resourceVersion", "value": node["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/spec/taints", "value": left},
        ])  # fmt: skip
        return True

    def _ask(self, method: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{_server(self._config)}/api/v1/nodes/{quote(self._config.node_name, safe='')}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Accept": "application/json", "Content-Type": "application/json-patch+json"},
        )
        if self._config.kubernetes_token.exists():
            request.add_header("Authorization", f"Bearer {self._config.kubernetes_token.read_text().strip()}")
        tls = None
        if request.full_url.startswith("https:"):
            tls = ssl.create_default_context(cafile=str(self._config.kubernetes_ca))
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=tls) as answer:
            return json.loads(answer.read(_MAX_BODY))


def _server(config: Config) -> str:
    """The API server's address: configured, or as the kubelet tells every pod."""
    if config.kubernetes_api:
        return config.kubernetes_api.rstrip("/")
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
