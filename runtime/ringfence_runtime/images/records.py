# SPDX-License-Identifier: Apache-2.0
"""What the store keeps of an image and of a layer, as JSON files; and the names that images may have."""

from __future__ import annotations

import os

from ringfence_linux import strictjson
from ringfence_linux.atomicfile import replace_file
from ringfence_runtime.images.errors import ImageError, StoreError, show
from ringfence_runtime.images.process import ProcessDefaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Image", "check_name", "read_json", "usable_name", "write_json"]

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Image:
    """One image of the store."""

    __slots__ = (
        "config_digest",
        "created",
        "data",
        "digest",
        "imported",
        "layers",
        "names",
        "platform",
        "size",
    )

    def __init__(self, data: dict[str, Any], names: list[str]) -> None:
        self.data = data
        self.names = names
        self.digest: str = data["manifest"]
        self.config_digest: str = data["config"]
        self.layers: list[str] = data["layers"]
        """diff_ids, lowest first"""
        self.platform: str = data["platform"]
        self.created: str = data["created"]
        self.imported: str = data["imported"]
        self.size: int = data["size"]
        """bytes of the files in all layers"""

    @property
    def is_wasm(self) -> bool:
        """True if its program is a module of WebAssembly, by its platform."""
        return self.platform.split("/")[1:2] == ["wasm"]

    @property
    def process(self) -> ProcessDefaults:
        """What its containers run by default."""
        return ProcessDefaults(self.data["process"])


def usable_name(name: str) -> bool:
    """True for a name made of the letters of image references, which mean nothing to a shell or a path."""
    return (
        bool(name)
        and len(name) <= 255
        and not set(name) - _LETTERS
        and name[0].isalnum()
        and ".." not in name
    )


def check_name(name: str) -> str:
    """Return a usable name; `name` alone means `name:latest`."""
    if not usable_name(name):
        raise ImageError(f"invalid image name {show(name)}",
                         hint="letters, digits and . _ - / : @ + are allowed, 255 at most")  # fmt: skip
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def read_json(path: str) -> Any:
    """A file of the store's own; None where there is none."""
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    try:
        data = b""
        while part := os.read(fd, 1 << 20):
            data += part
    finally:
        os.close(fd)
    try:
        return strictjson.loads(data)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}", hint="remove the image and import it again") from None


def write_json(path: str, value: Any, *, durable: bool = True) -> None:
    """A file of the store's own, whole or as it was before."""
    replace_file(path, strictjson.dumps(value), durable=durable)
