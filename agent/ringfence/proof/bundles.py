# SPDX-License-Identifier: Apache-2.0
"""Bundles with one anomaly that a detector must report, and their nearest benign counterparts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ringfence.proof.image import make_root
from ringfence.proof.target_container import Config, privileged_config

__all__ = ["BUNDLES", "bundle"]


def _image_link(config: Config, *, odd: bool) -> None:
    root = Path(config["root"]["path"])
    (root / "dev").rmdir()
    (root / "elsewhere").mkdir()
    (root / ("dev" if odd else "device")).symlink_to("elsewhere")


def _spec_sysctl(config: Config, *, odd: bool) -> None:
    # Smuggled as in CVE-2022-0811, in a namespaced sysctl that accepts any text.
    config["linux"]["sysctl"] = {"kernel.domainname": "a+kernel.core_pattern=core" if odd else "a.example"}


def _spec_loader(config: Config, *, odd: bool) -> None:
    config["process"]["env"].append(f"LD_PRELOAD={'/proc/self/cwd' if odd else '/usr/lib'}/x.so")


def _spec_text(config: Config, *, odd: bool) -> None:
    config["annotations"]["org.opencontainers.image.title"] = "$(id)" if odd else "a title (of mine)"


def _host_root(config: Config, *, odd: bool) -> None:
    source = "/" if odd else "/usr/share"
    config["mounts"].append(
        {"destination": "/host", "type": "bind", "source": source, "options": ["bind", "ro"]}
    )


def _mounted_root(config: Config, *, odd: bool) -> None:
    """A hook of the host mounts a directory that the configuration does not contain.

    As when a hook follows a link that the image provides (CVE-2024-0132).
    """
    source = "/" if odd else "/usr/share"
    root = Path(config["root"]["path"])
    (root / "hooked").mkdir()
    # A hook reads the state on its standard input; it contains "pid": 123
    script = (
        f"pid=$(grep -o '\"pid\": *[0-9]*' | grep -o '[0-9]*'); "
        f"exec nsenter --target $pid --mount mount --bind {source} {root}/hooked"
    )
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}


def _few_processes(config: Config, *, odd: bool) -> None:
    config["linux"]["resources"]["pids"] = {"limit": 32}


def _plain(config: Config, *, odd: bool) -> None:
    """The bundle has no anomaly: the behaviour of the container is the attack."""


BUNDLES: Mapping[str, Callable[..., None]] = {
    "image-link": _image_link,
    "spec-sysctl": _spec_sysctl,
    "spec-loader": _spec_loader,
    "spec-text": _spec_text,
    "host-root": _host_root,
    "mounted-root": _mounted_root,
    "few-processes": _few_processes,
    "plain": _plain,
}


def bundle(kind: str, directory: Path, *, odd: bool) -> Config:
    """Returns the configuration of a container with its own root filesystem in `directory`."""
    config = privileged_config(make_root(directory / "root"), None)
    BUNDLES[kind](config, odd=odd)
    return config
