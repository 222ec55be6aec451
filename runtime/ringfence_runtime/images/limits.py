# SPDX-License-Identifier: Apache-2.0
"""Limits of an image's demands on the host. The caller of an import can set every number."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one import; exceeding one is a LimitError, and the import keeps nothing."""

    document_bytes: int = 4 * MIB
    """of one index, manifest or configuration"""
    layers: int = 127
    """as Docker's; overlayfs itself takes 500"""
    image_bytes: int = 128 * GIB
    """of all layers of an image, uncompressed"""
    layer_bytes: int = 64 * GIB
    """of one layer, uncompressed"""
    file_bytes: int = 32 * GIB
    """of one file"""
    entries: int = 500_000
    """headers in one layer, extended ones included: each costs an inode and some time"""
    path_bytes: int = 4095
    """of one path or link target (PATH_MAX less its NUL)"""
    depth: int = 256
    """directories in one path"""
    names_bytes: int = 128 * MIB
    """of all paths of a layer: what the unpacker may hold in memory"""
    header_bytes: int = MIB
    """of one PAX or GNU long-name header; Go's reader has the same limit"""
    xattr_bytes: int = 64 * 1024
    """of one extended attribute's value (XATTR_SIZE_MAX)"""
    ratio: int = 250
    """uncompressed bytes for each compressed one. gzip cannot pass 1032; an honest layer has 2 to 10"""
    ratio_free_bytes: int = 256 * MIB
    """as much may be unpacked at any ratio"""
