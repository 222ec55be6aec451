# SPDX-License-Identifier: Apache-2.0
"""Digests of the image specification (descriptor.md#digests): `sha256:` or `sha512:`, then hexadecimal."""

from __future__ import annotations

from ringfence_runtime.images.errors import LayoutError, show

__all__ = ["check_digest", "file_name", "is_digest"]

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


def is_digest(text: object) -> bool:
    """Returns True for a digest with a supported algorithm."""
    if not isinstance(text, str):
        return False
    algorithm, _, value = text.partition(":")
    return len(value) == _LENGTHS.get(algorithm) and not set(value) - _HEX


def check_digest(text: object, where: str) -> str:
    """Returns `text` if it is a digest, which then contains no character that is special in a path."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise LayoutError(f"{where}: {show(text)} is not a sha256 or sha512 digest")


def file_name(digest: str) -> str:
    """Returns a digest as one path component."""
    return digest.replace(":", "-")
