# SPDX-License-Identifier: Apache-2.0
"""Podman and CRI-O: containers/storage on disk (overlay-containers/containers.json and userdata/config.json).

libpod's database is not read: names and images are in the storage's index, the rest is in config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringfence.containers.enrich import safejson
from ringfence.containers.enrich.oci import facts_of_config
from ringfence.containers.enrich.request import Request
from ringfence.containers.model import Facts

__all__ = ["ContainersStorage"]

ROOTS = (Path("/var/lib/containers/storage"),)
# CRI-O and Podman have the volatile copy below the run root
RUN_ROOTS = (Path("/run/containers/storage"),)
INDEX_MAX, METADATA_MAX = 4 << 20, 1 << 16
_HEX64 = re.compile(r"[0-9a-f]{64}")


class ContainersStorage:
    """The facts that containers/storage has about a container."""

    name = "podman"

    def __init__(self, roots: Iterable[Path] = (), run_roots: Iterable[Path] = ()) -> None:
        self._roots = (*roots, *ROOTS)
        self._run_roots = tuple(run_roots) or RUN_ROOTS

    def find(self, request: Request) -> Facts | None:
        if not _HEX64.fullmatch(request.id):
            return None
        for root in (*self._roots, *self._run_roots):
            directory = root / "overlay-containers"
            entry = self._entry(directory, request.id)
            config = self._config(directory / request.id / "userdata")
            if entry is not None or config is not None:
                return self._facts(request, entry, config)
        return None

    def _entry(self, directory: Path, identifier: str) -> Any:
        for index in ("containers.json", "volatile-containers.json"):
            try:
                entries = safejson.read(directory / index, size_max=INDEX_MAX)
            except FileNotFoundError:
                continue
            for entry in entries if isinstance(entries, list) else ():
                if safejson.text(entry, "id") == identifier:
                    return entry
        return None

    def _config(self, userdata: Path) -> Any:
        try:
            return safejson.read(userdata / "config.json")
        except FileNotFoundError:
            return None

    def _facts(self, request: Request, entry: Any, config: Any) -> Facts:
        """Prefers the index: Podman copies an image's annotations, chosen by its author, into the bundle."""
        facts = facts_of_config(config, source=self.name, runtime=request.runtime)
        known = _metadata(entry)
        names = [name for name in safejson.children(entry, "names") if isinstance(name, str)]
        # CRI-O's `name` is the long name of a sandbox's container; `metadata-name` is the pod's name for it.
        name = safejson.text(known, "metadata-name") or safejson.text(known, "name")
        return replace(
            facts,
            runtime=facts.runtime or "podman",
            name=name or (names[0][:256] if names else "") or facts.name,
            image=safejson.text(known, "image-name") or facts.image,
            image_id=safejson.text(known, "image-id") or safejson.text(entry, "image") or facts.image_id,
        )


def _metadata(entry: Any) -> Any:
    """Returns the engine's metadata of a container, JSON in a string; None if it is not valid."""
    text = entry.get("metadata") if isinstance(entry, dict) else None
    try:
        return safejson.parse(text) if isinstance(text, str) and len(text) <= METADATA_MAX else None
    except safejson.Unusable:
        return None
