# SPDX-License-Identifier: Apache-2.0
"""The image's configuration (image-spec config.md), read as hostile text: checked and bounded.

Labels never have an effect (a label that ran a program as root was a CVE in 2026), and volumes are paths
in the container, never on the host (CVE-2022-23648).
"""

from __future__ import annotations

from typing import Any

from ringfence_runtime.images.digest import check_digest
from ringfence_runtime.images.documents import Node
from ringfence_runtime.images.errors import LayoutError, LimitError, show
from ringfence_runtime.images.platforms import Platform

__all__ = ["ImageConfig", "parse_config"]

MAX_TEXTS = 4096
MAX_BYTES = 1 << 20
_RESERVED = ("/proc", "/sys", "/dev")
_SIGNAL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-")


class ImageConfig:
    """The imported part of a configuration; `process` is JSON for `process.ProcessDefaults`."""

    __slots__ = ("created", "diff_ids", "platform", "process")

    def __init__(
        self, platform: Platform, created: str, diff_ids: list[str], process: dict[str, Any]
    ) -> None:
        self.platform = platform
        self.created = created
        self.diff_ids = diff_ids
        self.process = process


def parse_config(node: Node) -> ImageConfig:
    """Checks a whole configuration; raises LayoutError with the JSON path."""
    rootfs = node.node("rootfs")
    if rootfs.text("type") != "layers":
        raise rootfs.error("type", f"{show(rootfs.text('type'))} is not 'layers'")
    diff_ids = [check_digest(item, f"{rootfs.path}.diff_ids[{index}]")
                for index, item in enumerate(rootfs.items("diff_ids"))]  # fmt: skip
    config = node.node("config")
    process = {
        "entrypoint": _bounded(config, "Entrypoint"),
        "cmd": _bounded(config, "Cmd"),
        "env": _environment(config),
        "user": _short(config, "User", 256),
        "cwd": _directory(config, "WorkingDir"),
        "volumes": _volumes(config),
        "ports": [key for key in _keys(config, "ExposedPorts") if _is_port(key)],
        "labels": _labels(config),
        "stopSignal": _signal(config),
    }
    return ImageConfig(Platform.of(node), _short(node, "created", 64), diff_ids, process)


def _bounded(node: Node, key: str) -> list[str]:
    texts = node.texts(key)
    if len(texts) > MAX_TEXTS or sum(map(len, texts)) > MAX_BYTES:
        raise LimitError(f"{node.path}.{key}: too long")
    return texts


def _short(node: Node, key: str, limit: int) -> str:
    text = node.text(key)
    if len(text) > limit or not text.isprintable():
        raise node.error(key, f"{show(text)} is too long, or holds control characters")
    return text


def _environment(node: Node) -> list[str]:
    values = _bounded(node, "Env")
    for index, value in enumerate(values):
        name, equals, _ = value.partition("=")
        if not name or not equals:
            raise node.error(f"Env[{index}]", f"{show(value)} is not NAME=VALUE")
    return values


def _directory(node: Node, key: str) -> str:
    """Returns an absolute path in the container, with `..` resolved as text; it is never a host path."""
    text = node.text(key)
    if not text:
        return ""
    path = clean_path(text)
    if path is None or not text.startswith("/"):
        raise node.error(key, f"{show(text)} is not an absolute path")
    if path.split("/")[1:2] == ["proc"]:
        # CVE-2024-21626: /proc/self/fd/N as working directory was the host's, through a leaked descriptor.
        raise node.error(key, f"{show(text)} is in /proc")
    return path


def clean_path(text: str) -> str | None:
    """Returns the path without `.`, `..` and double slashes, below `/`; None if it is not a path."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not text.isprintable() or len(text.encode("utf-8", "surrogateescape")) > 4095:
        return None
    return "/" + "/".join(parts)


def _keys(node: Node, key: str) -> list[str]:
    keys = sorted(node.node(key).data)
    if len(keys) > MAX_TEXTS:
        raise LimitError(f"{node.path}.{key}: too many members")
    return keys


def _volumes(node: Node) -> list[str]:
    """Returns the mount points. `..` is refused, not resolved: it has no legitimate use."""
    volumes = []
    for text in _keys(node, "Volumes"):
        path = clean_path(text)
        if path is None or not text.startswith("/") or ".." in text.split("/"):
            raise node.error("Volumes", f"{show(text)} is not an absolute path without '..'")
        if path == "/" or f"/{path.split('/')[1]}" in _RESERVED:
            raise node.error("Volumes", f"{show(text)} would cover a directory that the runtime creates")
        volumes.append(path)
    return sorted(set(volumes))


def _is_port(text: str) -> bool:
    number, _, protocol = text.partition("/")
    return (
        number.isascii() and number.isdigit() and len(number) < 6 and protocol in ("", "tcp", "udp", "sctp")
    )


def _labels(node: Node) -> dict[str, str]:
    labels: dict[str, str] = {}
    size = 0
    for key in _keys(node, "Labels"):
        labels[key] = node.node("Labels").text(key)
        size += len(key) + len(labels[key])
    if size > MAX_BYTES:
        raise LimitError(f"{node.path}.Labels: too long")
    return labels


def _signal(node: Node) -> str:
    text = node.text("StopSignal")
    if len(text) > 16 or set(text) - _SIGNAL:
        raise LayoutError(f"{node.path}.StopSignal: {show(text)} is not a signal")
    return text
