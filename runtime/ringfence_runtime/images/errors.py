# SPDX-License-Identifier: Apache-2.0
"""Errors of images, layers and the store; and the function that shows an image's text."""

from __future__ import annotations

import errno
import os

from ringfence_runtime.errors import Error, NotFoundError

__all__ = [
    "FullError",
    "ImageError",
    "ImageNotFoundError",
    "InUseError",
    "LayerError",
    "LayoutError",
    "LimitError",
    "StoreError",
    "show",
    "store_error",
]

SHOWN = 200  # characters of hostile text in one message


class ImageError(Error):
    """The root of this package's errors."""


class LayoutError(ImageError):
    """An index, manifest or configuration that the image specification does not allow."""


class LayerError(ImageError):
    """A layer that is damaged, or that contains something forbidden."""


class LimitError(ImageError):
    """The image exceeds a limit of this import."""


class StoreError(ImageError):
    """The store itself cannot be read or written."""


class FullError(StoreError):
    """The disk, the quota or the inodes are exhausted. Nothing of the import was kept."""


class InUseError(StoreError):
    """Containers use the image, or another import uses the store."""


class ImageNotFoundError(NotFoundError, ImageError):
    """No image (or no prepared root filesystem) has this name."""


def show(text: object) -> str:
    """Quotes an image's text for a message: ASCII only, so it cannot control a terminal or split a line."""
    quoted = repr(text)[1:] if isinstance(text, bytes) else ascii(text)
    return quoted if len(quoted) <= SHOWN else quoted[:SHOWN] + "...'"


def store_error(what: str, error: OSError) -> StoreError:
    """Returns the store's error for an OSError during `what`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(f"{what}: {error.strerror}; nothing of it was kept",
                         hint="free space, or use another --image-root for the store")  # fmt: skip
    where = f" ({show(error.filename)})" if error.filename is not None else ""
    reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    hint = ""
    if error.errno in (errno.EPERM, errno.EINVAL) and os.geteuid():
        hint = "layers have owners: this needs root, or a user namespace with a range of ids"
    return StoreError(f"{what}: {reason}{where}", hint=hint)
