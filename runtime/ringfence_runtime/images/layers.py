# SPDX-License-Identifier: Apache-2.0
"""One layer: blob in, verified directory out; or, for a known layer, only the verification."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ringfence_runtime.images.errors import LayoutError, show, store_error
from ringfence_runtime.images.facts import LayerFacts
from ringfence_runtime.images.layout import Layer
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.source import Source
from ringfence_runtime.images.streams import LayerStream, VerifiedBlob, decompress
from ringfence_runtime.images.tar import TarReader
from ringfence_runtime.images.unpack import unpack_layer
from ringfence_runtime.images.wasm import as_tar

__all__ = ["Unpacked", "unpack_blob", "verify_blob"]


class Unpacked:
    """A layer that was unpacked."""

    __slots__ = ("blob", "diff_id", "facts", "size")

    def __init__(self, diff_id: str, blob: str, size: int, facts: LayerFacts) -> None:
        self.diff_id = diff_id
        self.blob = blob
        self.size = size
        self.facts = facts

    def as_json(self) -> dict[str, Any]:
        """Returns the contents of `layer.json`; `blobs` are digests that unpacked to this diff_id."""
        return {"version": 1, "diff_id": self.diff_id, "size": self.size, "blobs": [self.blob],
                "facts": self.facts.as_json()}  # fmt: skip


@contextmanager
def _blob(source: Source, layer: Layer) -> Iterator[VerifiedBlob]:
    window = source.open(layer.path)
    if window is None:
        raise LayoutError(f"the image has no blob {show(layer.path)}")
    with window:
        yield VerifiedBlob(window, layer.digest, layer.size)


@contextmanager
def _stream(blob: VerifiedBlob, layer: Layer, limits: Limits) -> Iterator[LayerStream]:
    chunks = as_tar(blob) if layer.is_module else decompress(blob)
    try:
        yield LayerStream(chunks, blob, limits, layer.diff_id.partition(":")[0])
    finally:
        if isinstance(chunks, Generator):
            chunks.close()  # a decompressing child ends now, not when the exception is forgotten


def _finish(stream: LayerStream, blob: VerifiedBlob, layer: Layer) -> None:
    found = stream.finish()
    blob.finish()
    if found != layer.diff_id:
        raise LayoutError(
            f"layer {layer.digest} unpacks to {found}, but the configuration says {layer.diff_id}"
        )


def unpack_blob(source: Source, layer: Layer, target: str, limits: Limits, *, devices: str,
                overlay: str) -> Unpacked:  # fmt: skip
    """Unpacks into `target`/root. Raises ImageError; the caller then removes `target`."""
    try:
        os.mkdir(f"{target}/root", 0o755)
        root = os.open(f"{target}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with _blob(source, layer) as blob, _stream(blob, layer, limits) as stream:
                reader = TarReader(stream, limits)
                facts = unpack_layer(reader, root, limits, devices=devices, overlay=overlay)
                _finish(stream, blob, layer)
                return Unpacked(layer.diff_id, layer.digest, stream.count, facts)
        finally:
            os.close(root)
    except OSError as error:
        raise store_error(f"unpacking layer {layer.digest}", error) from None


def verify_blob(source: Source, layer: Layer, limits: Limits, *, known_blobs: list[str]) -> None:
    """Checks a layer that need not be unpacked. The contents of an unknown blob are verified."""
    with _blob(source, layer) as blob:
        if layer.digest in known_blobs:
            blob.finish()
            return
        with _stream(blob, layer, limits) as stream:
            _finish(stream, blob, layer)
