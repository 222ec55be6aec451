# SPDX-License-Identifier: Apache-2.0
"""A tiny writer of layers and layouts, including ones that no real tool writes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ringfence_runtime.images import ImageStore, Imported, Options, import_image

__all__ = [
    "END",
    "ONE",
    "TWO",
    "Layout",
    "NewLayout",
    "digest",
    "directory",
    "entry",
    "file",
    "files",
    "layer",
    "link",
    "pax",
    "records",
    "symlink",
    "take",
]

END = bytes(1024)
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data: bytes) -> str:
    """Returns the sha256 digest of `data`, as descriptors write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def octal(value: int, width: int) -> bytes:
    """Returns a header's number: octal with a NUL, or base 256 where that is too narrow."""
    text = b"%0*o\0" % (width - 1, value)
    return text if len(text) == width else b"\x80" + value.to_bytes(width - 1, "big")


def entry(
    name: bytes,
    kind: bytes = b"0",
    data: bytes = b"",
    *,
    link: bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_000_000,
    size: int | None = None,
    device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    raw_size: bytes | None = None,
) -> bytes:
    """Returns one header with its data, padded. Names over 100 bytes are cut: use `pax` for those."""
    length = octal(len(data) if size is None else size, 12) if raw_size is None else raw_size
    head = name[:100].ljust(100, b"\0") + octal(mode, 8) + octal(uid, 8) + octal(gid, 8) + length
    head += octal(mtime, 12) + b" " * 8 + kind + link[:100].ljust(100, b"\0") + magic.ljust(8, b"\0")
    head += bytes(64) + octal(device[0], 8) + octal(device[1], 8) + prefix.ljust(155, b"\0") + bytes(12)
    head = head[:148] + b"%06o\0 " % sum(head) + head[156:]
    assert len(head) == 512
    return head + data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **options: Any) -> bytes:
    """A regular file."""
    return entry(name, b"0", data, **options)


def directory(name: bytes, mode: int = 0o755, **options: Any) -> bytes:
    """A directory."""
    return entry(name, b"5", mode=mode, **options)


def symlink(name: bytes, target: bytes, **options: Any) -> bytes:
    """A symlink."""
    return entry(name, b"2", link=target, mode=0o777, **options)


def link(name: bytes, target: bytes, **options: Any) -> bytes:
    """A hardlink."""
    return entry(name, b"1", link=target, **options)


def records(values: Iterable[tuple[bytes, bytes]]) -> bytes:
    """PAX records."""
    out = b""
    for key, value in values:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        out += b"%d" % length + body
    return out


def pax(*values: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header for the entry that follows."""
    return entry(b"PaxHeaders/x", kind, records(values))


def layer(*entries: bytes) -> bytes:
    """A complete tar."""
    return b"".join(entries) + END


class Layout:
    """An OCI layout that is being written. The arguments
    of `add` may be wrong; by default all are right.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifests: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Write a blob; returns its descriptor."""
        name = digest(data)
        (self.path / "blobs" / name.replace(":", "/")).write_bytes(data)
        return {"mediaType": kind, "digest": name, "size": len(data)}

    def document(self, value: Any, kind: str) -> dict[str, Any]:
        """Write a JSON blob."""
        return self.blob(json.dumps(value).encode(), kind)

    def image(
        self,
        *layers: bytes,
        compress: str = "gzip",
        config: dict[str, Any] | None = None,
        architecture: str = "amd64",
        diff_ids: list[str] | None = None,
        layer_changes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write an image; returns the descriptor of its manifest."""
        descriptors = []
        for data in layers:
            packed = {"gzip": lambda data: gzip.compress(data, 1, mtime=0), "": bytes}[compress](data)
            suffix = f"+{compress}" if compress else ""
            descriptors.append({**self.blob(packed, LAYER + suffix), **(layer_changes or {})})
        ids = [digest(data) for data in layers] if diff_ids is None else diff_ids
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.document(document, CONFIG),
            "layers": descriptors,
        }
        return self.document(manifest, MANIFEST)

    def add(self, descriptor: dict[str, Any], name: str = "", **more: Any) -> Layout:
        """List a manifest in the index, and write the index."""
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        self.manifests.append({**descriptor, "annotations": annotations, **more})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}
        (self.path / "index.json").write_text(json.dumps(index))
        return self


NewLayout = Callable[[], Layout]
ONE = layer(file(b"one", b"1" * 3000))
TWO = layer(file(b"two", b"2" * 3000))


def take(store: ImageStore, layout: Layout | Path, **options: Any) -> Imported:
    """Imports without syncing."""
    path = layout.path if isinstance(layout, Layout) else layout
    return import_image(store, str(path), Options(**{"durable": False, **options}))


def files(store: ImageStore, done: Imported) -> list[str]:
    """File names of all layers."""
    return [name for each in done.image.layers for name in os.listdir(f"{store.layer(each)}/root")]
