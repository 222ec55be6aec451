# SPDX-License-Identifier: Apache-2.0
"""Enrichment looks for the state of container engines below a test's own directory only."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.containers.enrich import bundles, docker, podman


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default directories of the engines are empty."""
    for name in ("RUNC_ROOTS", "CRUN_ROOTS", "CONTAINERD_TASKS"):
        monkeypatch.setattr(bundles, name, (tmp_path / "no-state",))
    for name in ("ROOTS", "RUN_ROOTS"):
        monkeypatch.setattr(podman, name, (tmp_path / "no-storage",))
    monkeypatch.setattr(docker, "ROOT", tmp_path / "no-docker")
