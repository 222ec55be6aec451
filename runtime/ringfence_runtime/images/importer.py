# SPDX-License-Identifier: Apache-2.0
"""Imports an image: select, verify, unpack to a temporary directory, sync, rename.

Nothing is visible before the renames. Sync policy: one syncfs(2) of the store's filesystem after all
layers are written and before the first rename, then fsync of the JSON records and of the directories of
the renames. So everything with a final name is complete after a power cut. `durable=False` omits all
syncs (for a store that can be created again).
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from ringfence_linux import syscalls
from ringfence_runtime.images.digest import file_name
from ringfence_runtime.images.errors import ImageError, LimitError, show, store_error
from ringfence_runtime.images.layers import Unpacked, unpack_blob, verify_blob
from ringfence_runtime.images.layout import Layer, Manifest, read_manifest
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.platforms import Platform
from ringfence_runtime.images.records import Image, check_name, read_json, usable_name, write_json
from ringfence_runtime.images.source import Source, open_source
from ringfence_runtime.images.store import ImageStore
from ringfence_runtime.images.tree import remove_tree

__all__ = ["Imported", "Options", "import_image"]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an import."""

    name: str = ""
    """of the image in the store; else the layout's own reference, else the name of the directory or file"""
    reference: str = ""
    """which image of a layout that holds several (`org.opencontainers.image.ref.name`, RepoTag)"""
    platform: Platform | None = None
    """None: this machine's"""
    devices: str = "refuse"
    """device nodes in layers: refuse, skip or make"""
    limits: Limits = field(default_factory=Limits)
    durable: bool = True
    wait: bool = True
    """for another import that is under way; else InUseError"""


@dataclass(slots=True)
class Imported:
    """The result of an import."""

    image: Image
    name: str
    unpacked: list[Unpacked] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    """diff_ids of layers that were there already (their blobs were verified all the same)"""


def import_image(store: ImageStore, path: str, options: Options | None = None) -> Imported:
    """Imports the image at `path`. Raises ImageError; the store is then unchanged."""
    options = options or Options()
    source = open_source(path, options.limits)
    try:
        manifest = read_manifest(
            source, options.limits, reference=options.reference, platform=options.platform
        )
        name = _name(options, manifest, source)
        with store.import_lock(wait=options.wait):
            store.sweep_temporary()
            return _Import(store, source, manifest, options).run(name)
    except OSError as error:
        raise store_error(f"import of {show(path)}", error) from None
    finally:
        source.close()


def _name(options: Options, manifest: Manifest, source: Source) -> str:
    if options.name:
        return check_name(options.name)
    stem = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in source.name.lower())
    stem = stem.strip("-") or "image"
    reference = manifest.reference
    if not reference or not usable_name(reference):
        return check_name(stem)
    # In a layout the reference is often only a tag.
    return check_name(reference) if set(reference) & set("/:") else check_name(f"{stem}:{reference}")


class _Import:
    def __init__(self, store: ImageStore, source: Source, manifest: Manifest, options: Options) -> None:
        self.store = store
        self.source = source
        self.manifest = manifest
        self.options = options
        self.staging = f"{store.root}/tmp/import-{secrets.token_hex(8)}"
        self.unpacked: dict[str, Unpacked] = {}
        self.shared: dict[str, dict[str, object]] = {}
        self.bytes = 0

    def run(self, name: str) -> Imported:
        os.mkdir(self.staging, 0o700)
        try:
            for layer in self.manifest.layers:
                self._layer(layer)
            if self.options.durable and self.unpacked:
                _syncfs(self.store.root)
            return self._commit(name)
        finally:
            self._drop_staging()

    def _drop_staging(self) -> None:
        fd = os.open(os.path.dirname(self.staging), os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove_tree(fd, os.path.basename(self.staging))
        finally:
            os.close(fd)

    def _layer(self, layer: Layer) -> None:
        limits = self.options.limits
        known = read_json(f"{self.store.layer(layer.diff_id)}/layer.json")
        if known is None and layer.diff_id in self.unpacked:
            known = self.unpacked[layer.diff_id].as_json()
        if known is None:
            target = f"{self.staging}/{file_name(layer.diff_id)}"
            os.mkdir(target, 0o700)
            done = unpack_blob(self.source, layer, target, limits, devices=self.options.devices,
                               overlay=self.store.overlay)  # fmt: skip
            write_json(f"{target}/layer.json", done.as_json(), durable=False)
            self.unpacked[layer.diff_id] = done
            known = done.as_json()
        else:
            verify_blob(self.source, layer, limits, known_blobs=known["blobs"])
            if layer.diff_id not in self.unpacked:
                self.shared[layer.diff_id] = known
                if layer.digest not in known["blobs"]:
                    known["blobs"].append(layer.digest)
        self.bytes += known["facts"]["bytes"]
        if self.bytes > limits.image_bytes:
            raise LimitError(f"the image has more than {limits.image_bytes} bytes")
        _check_devices(layer.diff_id, known["facts"], self.options.devices)

    def _commit(self, name: str) -> Imported:
        store, manifest = self.store, self.manifest
        config = manifest.config
        data = {
            "manifest": manifest.digest, "config": manifest.config_digest,
            "layers": [layer.diff_id for layer in manifest.layers], "platform": str(config.platform),
            "created": config.created, "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "size": self.bytes, "process": config.process}  # fmt: skip
        durable = self.options.durable
        with store.lock():
            for diff_id in self.unpacked:
                os.rename(f"{self.staging}/{file_name(diff_id)}", store.layer(diff_id))
            for diff_id, known in self.shared.items():
                write_json(f"{store.layer(diff_id)}/layer.json", known, durable=durable)
            _record(store, data, name, durable=durable)
            if durable:
                for directory in ("layers", "images", ""):
                    _sync_directory(f"{store.root}/{directory}")
        image = store.find(manifest.digest)
        return Imported(image, name, list(self.unpacked.values()), list(self.shared))


def _check_devices(diff_id: str, facts: dict[str, Any], devices: str) -> None:
    """Checks a shared layer that was unpacked with another import's choice for devices."""
    if devices != "make" and facts["devices"]:
        raise ImageError(
            f"layer {diff_id} of the store contains device nodes", hint="--devices make allows them"
        )
    if devices == "make" and facts["devices_skipped"]:
        raise ImageError(
            f"layer {diff_id} of the store was imported without its device nodes",
            hint="remove the images that have it first",
        )


def _record(store: ImageStore, data: dict[str, Any], name: str, *, durable: bool) -> None:
    write_json(f"{store.root}/images/{file_name(data['manifest'])}.json", data, durable=durable)
    write_json(f"{store.root}/names.json", {**store.names(), name: data["manifest"]}, durable=durable)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _syncfs(path: str) -> None:
    """Syncs one filesystem, or all if the C library has no syncfs; raises on a write error."""
    try:
        syncfs = syscalls.load_library("libc.so.6", {"syncfs": ("i", "i")})["syncfs"]
    except (OSError, AttributeError):
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(fd):  # type: ignore[operator]
            raise OSError(5, "the disk reported an error during sync", path)
    finally:
        os.close(fd)
