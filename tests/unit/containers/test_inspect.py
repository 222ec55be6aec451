# SPDX-License-Identifier: Apache-2.0
"""Bundles of attackers, and ordinary ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ringfence.containers.enrich.inspect import inspect_bundle, inspect_root
from tests.unit.containers.test_enrich_files import CONFIG

HOOKS = {"createContainer": [{"path": "/usr/bin/nvidia-ctk"}]}


def config(**changes: Any) -> dict[str, Any]:
    """An ordinary configuration with changed keys."""
    return {**copy.deepcopy(CONFIG), **changes}


def found(document: Any, bundle: str = "/nowhere") -> list[str]:
    """Returns the detectors that it triggers."""
    return [suspicion.detector for suspicion in inspect_bundle(document, bundle)]


def test_an_ordinary_bundle_is_not_suspicious(tmp_path: Path) -> None:
    """Own sysctls, an allocator by LD_PRELOAD without hooks, hooks without LD_PRELOAD, a plain image."""
    (tmp_path / "root/dev").mkdir(parents=True)
    (tmp_path / "root/bin").symlink_to("usr/bin")
    linux = {"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net/core/somaxconn": "9"}}
    env = ["PATH=/bin", "LD_PRELOAD=/usr/lib/libjemalloc.so.2", "LD_LIBRARY_PATH=/opt/lib"]
    assert found(config(linux=linux, process={"env": env}, root={"path": "root"}), str(tmp_path)) == []
    assert found(config(hooks=HOOKS, process={"env": ["LD_LIBRARY_PATH=/usr/local/cuda/lib64"]})) == []


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "dev/null", "dev/console", "dev/pts", "dev/ptmx"])
def test_a_link_where_the_runtime_writes(tmp_path: Path, name: str) -> None:
    """Rows 36, 37, 39: the suspicion has the link and its target; the link is not followed."""
    link = tmp_path / "root" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc")
    (suspicion,) = inspect_bundle(config(root={"path": "root"}), str(tmp_path))
    assert suspicion == ("image-link", f"/{name} -> /etc")


def test_nothing_below_a_link_is_examined(tmp_path: Path) -> None:
    """`dev` leads to the host's /dev, where links are legitimate and not from the image."""
    (tmp_path / "dev").symlink_to("/dev")
    assert [s.what for s in inspect_root(tmp_path)] == ["/dev -> /dev"]


@pytest.mark.parametrize(
    "sysctl",
    [
        {"kernel.core_pattern": "|/x"},
        {"kernel/modprobe": "/x"},
        {"vm.overcommit_memory": "1"},
        {"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/var/x"},
    ],
)
def test_a_sysctl_of_the_node(sysctl: dict[str, str]) -> None:
    """Row 40, the last one as in CVE-2022-0811."""
    assert found(config(linux={"sysctl": sysctl})) == ["spec-sysctl"]


@pytest.mark.parametrize(
    ("env", "hooks"),
    [("LD_PRELOAD=/proc/self/cwd/poc.so", {}), ("LD_PRELOAD=/x.so", HOOKS), ("LD_AUDIT=/x.so", HOOKS)],
)
def test_loader_variables_for_hooks(env: str, hooks: dict[str, Any]) -> None:
    """Row 43."""
    assert found(config(process={"env": [env]}, hooks=hooks)) == ["spec-loader"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mounts": [{"source": "/var/lib/x/../../../etc", "destination": "/v"}]},
        {"mounts": [{"source": "/x", "destination": "/v/../../etc"}]},
        {"annotations": {"org.opencontainers.image.title": "$(touch /x)"}},
        {"annotations": {"maintainer": "me\x1b[2J"}},
    ],
)
def test_text_with_parent_directories_or_commands(changes: dict[str, Any]) -> None:
    """Row 41."""
    assert found(config(**changes)) == ["spec-text"]


def test_a_manifest_in_an_annotation_is_legitimate() -> None:
    """CRI-O copies whole manifests, with the commands of their probes."""
    manifest = {
        "kubectl.kubernetes.io/last-applied-configuration": '{"command": ["sh", "-c", "echo $(date)"]}\n'
    }
    assert found(config(annotations=manifest)) == []


@pytest.mark.parametrize(
    "document", [None, [], "x", {"linux": 3, "process": [], "hooks": 7, "root": {"path": 1}}]
)
def test_any_document_raises_nothing(document: Any) -> None:
    """A bundle is untrusted data."""
    assert found(document) == []
