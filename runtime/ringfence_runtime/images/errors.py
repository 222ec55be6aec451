# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with an image, a layer or the store; and the one way to show text that an image chose."""

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
    """An index, manifest or configuration that is not what the image specification allows."""


class LayerError(ImageError):
    """A layer that is damaged, or that asks for something which no layer may do."""


class LimitError(ImageError):
    """The image is larger, in some way, than the limits of this import allow."""


class StoreError(ImageError):
    """The store itself cannot be read or written."""


class FullError(StoreError):
    """The disk, the quota or the inodes ran out. Nothing of the import was kept."""


class InUseError(StoreError):
    """Containers hold the image, or another import holds the store."""


class ImageNotFoundError(NotFoundError, ImageError):
    """There is no image (or no prepared root filesystem) of this name."""


def show(text: object) -> str:
    """Quote an image's text for a message: ASCII only, so it moves no cursor and splits no line."""
    quoted = repr(text)[1:] if isinstance(text, bytes) else ascii(text)
    return quoted if len(quoted) <= SHOWN else quoted[:SHOWN] + "...'"


def store_error(what: str, error: OSError) -> StoreError:
    """The store's error for an OSError met while doing `what`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(f"{what}: {error.strerror}; nothing of it was kept",
                         hint="free space, or give the store another --image-root")  # fmt: skip
    where = f" ({show(error.filename)})" if error.filename is not None else ""
    reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    hint = ""
    if error.errno in (errno.EPERM, errno.EINVAL) and os.geteuid():
        hint = "layers have owners: this needs root, or a user namespace with a range of ids"
    return StoreError(f"{what}: {reason}{where}", hint=hint)
