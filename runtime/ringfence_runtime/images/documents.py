# SPDX-License-Identifier: Apache-2.0
"""JSON documents of an image: typed access, with errors that name the document and the place."""

from __future__ import annotations

from typing import Any

from ringfence_linux import strictjson
from ringfence_runtime.images.digest import check_digest
from ringfence_runtime.images.errors import LayoutError, show

__all__ = ["Node", "parse_document"]


class Node:
    """An object of a document, and its JSON path."""

    __slots__ = ("data", "path")

    def __init__(self, data: Any, path: str) -> None:
        if not isinstance(data, dict):
            raise LayoutError(f"{path}: is not an object")
        self.data: dict[str, Any] = data
        self.path = path

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def error(self, key: str, what: str) -> LayoutError:
        """Returns the error for a member of this object."""
        plain = key.isascii() and key.isprintable() and len(key) <= 64
        return LayoutError(f"{self.path}.{key if plain else show(key)}: {what}")

    def text(self, key: str, default: str = "") -> str:
        """Returns a string without a NUL."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise self.error(key, f"{show(value)} is not a text")
        return value

    def number(self, key: str) -> int:
        """Returns a size: a non-negative integer of 63 bits."""
        value = self.data.get(key)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise self.error(key, f"{show(value)} is not a size")
        return value

    def digest(self, key: str) -> str:
        """A digest."""
        return check_digest(self.data.get(key), f"{self.path}.{key}")

    def items(self, key: str) -> list[Any]:
        """Returns a list, empty if absent."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(key, "is not a list")
        return value

    def nodes(self, key: str) -> list[Node]:
        """A list of objects."""
        return [Node(item, f"{self.path}.{key}[{index}]") for index, item in enumerate(self.items(key))]

    def texts(self, key: str) -> list[str]:
        """A list of strings without NULs."""
        values = self.items(key)
        for index, value in enumerate(values):
            if not isinstance(value, str) or "\0" in value:
                raise self.error(f"{key}[{index}]", f"{show(value)} is not a text")
        return values

    def node(self, key: str) -> Node:
        """Returns an object, empty if absent."""
        value = self.data.get(key)
        return Node({} if value is None else value, f"{self.path}.{key}")


def parse_document(data: bytes, name: str) -> Node:
    """Decodes one document: strict JSON, no duplicate members."""
    try:
        return Node(strictjson.loads(data), name)
    except ValueError as error:
        raise LayoutError(f"{name} is not valid JSON: {show(str(error))}") from None
