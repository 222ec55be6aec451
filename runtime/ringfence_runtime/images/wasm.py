# SPDX-License-Identifier: Apache-2.0
"""WebAssembly as an image: a module that is the only layer of an OCI artifact, or a file of its own.

The store keeps directories. So the module becomes the file MODULE of a layer, by a tar that is made while the
module is read. The layer's diff_id is the digest of that tar: it is no other module's, and no image's.

Source: CNCF TAG Runtime, "Wasm OCI Artifact layout"; bytecodealliance/rust-oci-wasm, src/config.rs
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator

from ringfence_runtime.images.config import ImageConfig
from ringfence_runtime.images.documents import Node
from ringfence_runtime.images.errors import LayoutError, LimitError, show
from ringfence_runtime.images.layout import Layer, Manifest
from ringfence_runtime.images.platforms import Platform
from ringfence_runtime.images.source import ModuleFile, Source
from ringfence_runtime.images.streams import CHUNK, VerifiedBlob
from ringfence_runtime.launch.wasm import MAGIC, MOST_BYTES

__all__ = ["MODULE", "as_tar", "read_artifact", "read_module_file"]

_LAYER_TYPE = "application/wasm"
#: the program of an artifact's container
MODULE = "/app.wasm"
_COMPONENT = b"\r\0\1\0"  # version and layer of a component; a module's are 1 and 0


def as_tar(blob: VerifiedBlob) -> Iterator[bytes]:
    """Yields a tar with the blob as its only file: the same bytes for the same blob."""
    entry = tarfile.TarInfo(MODULE[1:])
    entry.size, entry.mode = blob.size, 0o444
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    while chunk := blob.read(CHUNK):
        yield chunk
    yield bytes(-blob.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def read_artifact(manifest: Node, config: Node, source: Source, path: str) -> tuple[ImageConfig, list[Layer]]:
    """Returns the configuration and the only layer of an artifact."""
    platform = Platform.of(config)
    if not platform.is_wasm:
        raise LayoutError(f"{config.path}: {show(str(platform))} is not a platform of WebAssembly")
    layers = manifest.nodes("layers")
    if len(layers) != 1:
        raise LayoutError(f"{manifest.path}: {len(layers)} layers; an artifact of one module can be imported")
    if layers[0].text("mediaType") != _LAYER_TYPE:
        raise LayoutError(f"{layers[0].path}: {show(layers[0].text('mediaType'))} is not {_LAYER_TYPE}")
    digest = layers[0].digest("digest")
    if "layerDigests" in config and config.texts("layerDigests") != [digest]:
        raise LayoutError(f"{config.path}.layerDigests: names other layers than the manifest")
    layer, _ = _layer(source, path, digest, layers[0].number("size"))
    return _config(platform, layer, config.text("created")[:64]), [layer]


def read_module_file(source: ModuleFile) -> Manifest:
    """Returns the image that a file with a module is. Its digest is the file's."""
    layer, head = _layer(source, "", source.digest(), source.size)
    platform = Platform("wasip2" if head[4:8] == _COMPONENT else "wasip1", "wasm")
    return Manifest(layer.digest, layer.digest, _config(platform, layer, ""), [layer], "")


def _layer(source: Source, path: str, digest: str, size: int) -> tuple[Layer, bytes]:
    """Reads the module once, for the digest of its layer. Returns its first bytes, too."""
    if size > MOST_BYTES:
        raise LimitError(f"the module has {size} bytes; at most {MOST_BYTES} can be executed")
    window = source.open(path)
    if window is None:
        raise LayoutError(f"the layout has no blob {digest}")
    whole, head = hashlib.sha256(), b""
    with window:
        blob = VerifiedBlob(window, digest, size)
        for number, chunk in enumerate(as_tar(blob)):
            whole.update(chunk)
            head = chunk[:8] if number == 1 else head
        blob.finish()
    if not head.startswith(MAGIC):
        raise LayoutError(f"blob {digest} is not a WebAssembly module")
    return Layer(path, digest, size, f"sha256:{whole.hexdigest()}", is_module=True), head


def _config(platform: Platform, layer: Layer, created: str) -> ImageConfig:
    process = {
        "entrypoint": [MODULE], "cmd": [], "env": [], "user": "", "cwd": "", "volumes": [], "ports": [],
        "labels": {}, "stopSignal": "",
    }  # fmt: skip
    return ImageConfig(platform, created if created.isprintable() else "", [layer.diff_id], process)
