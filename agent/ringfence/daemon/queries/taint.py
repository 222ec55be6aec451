# SPDX-License-Identifier: Apache-2.0
"""Removes the start-up taint from this agent's node once it is ready, so that waiting pods can be
scheduled.

This happens in a thread, with growing pauses until the API server accepts it. Nothing else of the
node is changed: the patch names the version that was read, and is made again after a conflict.
"""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

from ringfence import log
from ringfence.config import Config
from ringfence.containers.enrich import safejson
from ringfence.containers.kubernetes.client import ApiError
from ringfence.daemon.tracking.pod_sources import api_client, api_server
from ringfence.export.escape import escape
from ringfence.faults import SupervisedThread
from ringfence.httpclient import FAILURES

__all__ = ["TaintRemover"]

_FIRST, _LAST = 1.0, 60.0  # seconds between attempts


class TaintRemover:
    """Call `start` when the agent is ready. `done` is set when the node does not have the taint
    (any more).
    """

    def __init__(self, config: Config) -> None:
        """An API server is known: PodSources requires one."""
        self._client = api_client(config, api_server(config))
        self._taint, self._path = config.kubernetes_taint, f"/api/v1/nodes/{quote(config.node_name, safe='')}"
        self._stopping = threading.Event()
        self._thread = SupervisedThread("taint", self._run)
        self._log = log.get_logger("taint")
        self.done = threading.Event()

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop trying; a running request is aborted."""
        self._stopping.set()
        self._thread.stop()
        self._client.cut()
        self._thread.join(2.0)

    def _run(self) -> None:
        pause = _FIRST
        while not self._stopping.is_set():
            try:
                removed = self._remove()
            except (ApiError, safejson.Unusable, *FAILURES) as error:
                if not self._stopping.is_set():
                    self._log.warning(
                        "the taint could not be removed yet", error=escape(str(error)), again_in_seconds=pause
                    )
            else:
                self._log.info("the start-up taint was removed", taint=self._taint, removed=removed)
                self.done.set()
                return
            self._stopping.wait(pause)
            pause = min(2 * pause, _LAST)

    def _remove(self) -> bool:
        """Try once. Returns False if the node did not have the taint."""
        node = safejson.parse(self._client.get(self._path))
        version, taints = safejson.text(node, "metadata", "resourceVersion"), _taints(node)
        left = [taint for taint in taints if taint.get("key") != self._taint]
        if not version:
            raise ApiError("broken", "the answer is not a node")
        if len(left) == len(taints):
            return False
        self._client.patch(self._path, [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "replace", "path": "/spec/taints", "value": left},
        ])  # fmt: skip
        return True


def _taints(node: Any) -> list[dict[str, Any]]:
    """All taints of the node, as they are: the remaining ones are written back."""
    spec = node.get("spec") if isinstance(node, dict) else None
    taints = (spec.get("taints") or []) if isinstance(spec, dict) else None
    if not isinstance(taints, list) or not all(isinstance(taint, dict) for taint in taints):
        raise ApiError("broken", "the answer is not a node")
    return taints
