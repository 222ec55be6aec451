# SPDX-License-Identifier: Apache-2.0
"""The self-defence in the order of a start: protected objects first, then the watchdog, each
second.
"""

from __future__ import annotations

from pathlib import Path

from ringfence.daemon.defence.condemned import CondemnedContainers
from ringfence.daemon.defence.protected_objects import ProtectedObjects
from ringfence.daemon.defence.watchdog import Watchdog
from ringfence.daemon.verdicts.pipeline import VerdictPipeline

__all__ = ["Defence"]


class Defence:
    """Call `begin` before anything is attached, `attached` after; then `tick`."""

    def __init__(
        self,
        protected: ProtectedObjects,
        watchdog: Watchdog,
        condemned: CondemnedContainers,
        pipeline: VerdictPipeline,
    ) -> None:
        self._protected, self._watchdog, self._pipeline = protected, watchdog, pipeline
        self._condemned = condemned

    def begin(self) -> None:
        """Protect the objects that exist by now."""
        self._protected.begin()
        self._watchdog.begin()

    def attached(self, base: Path | None) -> None:
        """Protect the links, and the pins below `base`."""
        self._protected.attached(base)

    def tick(self) -> None:
        """One round; also at once when a container was condemned."""
        self._condemned.look()
        self._pipeline.report(self._watchdog.look().findings)
        self._protected.refresh()
