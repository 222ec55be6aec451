# SPDX-License-Identifier: Apache-2.0
"""Platforms as images name them (Go's words): which manifest of an index is for this machine."""

from __future__ import annotations

import os

from ringfence_runtime.images.documents import Node
from ringfence_runtime.images.errors import ImageError, show

__all__ = ["Platform"]

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}
#: of containerd and Docker, and of artifacts (modules, components)
_WASI = ("wasi", "wasip1", "wasip2")
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


class Platform:
    """Operating system, architecture and variant."""

    __slots__ = ("architecture", "os", "variant")

    def __init__(self, system: str, architecture: str, variant: str = "") -> None:
        self.os = system
        self.architecture = architecture
        self.variant = variant or _DEFAULT_VARIANT.get(architecture, "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def host(cls) -> Platform:
        """This machine's."""
        machine = os.uname().machine
        return cls("linux", *_MACHINES.get(machine, (machine, "")))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/arm64`, `linux/arm/v7`."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(part.isascii() and part.isalnum() for part in parts):
            raise ImageError(f"platform {show(text)} is not os/architecture[/variant]")
        return cls(*parts)

    @classmethod
    def of(cls, node: Node) -> Platform:
        """What a descriptor or an image configuration says of itself."""
        return cls(node.text("os"), node.text("architecture"), node.text("variant"))

    @property
    def is_wasm(self) -> bool:
        """True for a module of WebAssembly, which runs on every machine (with the engine)."""
        return self.architecture == "wasm" and self.os in _WASI

    def accepts(self, other: Platform) -> bool:
        """True where an image for `other` runs here. An older variant of ARM does."""
        if self.is_wasm and self.os == "wasi" and other.is_wasm:
            return True
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return self.variant == other.variant or (self.architecture == "arm" and other.variant < self.variant)
