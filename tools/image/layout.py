# SPDX-License-Identifier: Apache-2.0
"""A root filesystem as an OCI image layout (image-spec 1.1): one layer, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.packaging import ARCHITECTURES

__all__ = ["archive", "write_layout"]

_MEDIA = "application/vnd.oci.image."


class _Hashed(io.RawIOBase):
    """Writes through, and keeps the digest."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return int(self._target.write(data))


def write_layout(
    root: Path, layout: Path, reference: str, labels: Mapping[str, str], architecture: str = ""
) -> dict[str, Any]:
    """Write the layout; sizes and digest of the image. `architecture`: OCI's name; empty: this machine's."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _layer(root, blobs)
    config = _blob(blobs, _config(diff_id, labels, architecture))
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}manifest.v1+json",
        "config": {"mediaType": f"{_MEDIA}config.v1+json", **config},
        "layers": [{"mediaType": f"{_MEDIA}layer.v1.tar+gzip", **layer}],
    }
    found = _blob(blobs, manifest)
    annotations = {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference}
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": f"{_MEDIA}manifest.v1+json", **found, "annotations": annotations}],
    }
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return {"digest": found["digest"], "compressed": layer["size"]}


def archive(layout: Path, target: Path) -> None:
    """The layout as one tar file, which `ctr images import` and `docker load` take."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, str(path.relative_to(layout)), recursive=False, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    return member


def _layer(root: Path, blobs: Path) -> tuple[dict[str, Any], str]:
    part = blobs / "layer.part"
    with part.open("wb") as file:
        packed = _Hashed(file)
        with gzip.GzipFile("", "wb", 6, packed, mtime=0) as zipped:
            plain = _Hashed(zipped)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(root.rglob("*")):
                    tar.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)
    digest = packed.digest.hexdigest()
    part.rename(blobs / digest)
    size = (blobs / digest).stat().st_size
    return {"digest": f"sha256:{digest}", "size": size}, f"sha256:{plain.digest.hexdigest()}"


def _blob(blobs: Path, value: Any) -> dict[str, Any]:
    data = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _config(diff_id: str, labels: Mapping[str, str], architecture: str) -> dict[str, Any]:
    return {
        "architecture": architecture or ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/ringfence"],
            "Cmd": ["agent"],
            "Env": ["PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "WorkingDir": "/",
            "Labels": dict(labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "tools/image"}],
    }
