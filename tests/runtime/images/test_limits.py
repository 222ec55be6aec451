# SPDX-License-Identifier: Apache-2.0
"""Excessive sizes: every limit ends an import early, and leaves nothing."""

from __future__ import annotations

import gzip
import json
import os
import resource
import time
from collections.abc import Callable

import pytest

from ringfence_runtime.images import ImageStore, Imported, Limits, Options, import_image
from ringfence_runtime.images.errors import LayerError, LimitError
from tests.runtime.images.layouts import Layout, digest, directory, entry, file, layer, pax, symlink

Load = Callable[..., Imported]

CASES = {
    "entries": ({"entries": 10}, [file(b"%d" % number) for number in range(11)]),
    "PAX headers count as entries": ({"entries": 10}, [pax((b"comment", b"x"), kind=b"g")] * 11),
    "one file": ({"file_bytes": 1000}, [file(b"f", bytes(1001))]),
    "one layer": ({"layer_bytes": 4096}, [file(b"%d" % number, bytes(1000)) for number in range(5)]),
    "one image": ({"image_bytes": 1000}, [file(b"a", bytes(600)), file(b"b", bytes(600))]),
    "path": ({"path_bytes": 50}, [file(b"a/" * 25 + b"b")]),
    "link target": ({"path_bytes": 50}, [symlink(b"s", b"x" * 51)]),
    "component": ({}, [pax((b"path", b"x" * 256)), file(b"f")]),
    "depth": ({"depth": 20}, [directory(b"a/" * 21)]),
    "names together": ({"names_bytes": 300}, [file(b"%090d" % number) for number in range(4)]),
    "PAX header": ({"header_bytes": 1000}, [pax((b"comment", b"x" * 1000)), file(b"f")]),
    "PAX header that claims an exabyte": ({}, [entry(b"x", b"x", size=1 << 60)]),
    "long name that claims a gigabyte": ({}, [entry(b"x", b"L", size=1 << 30)]),
    "file that claims an exabyte": ({}, [file(b"f", size=1 << 60)]),
    "attribute": ({"xattr_bytes": 10}, [pax((b"SCHILY.xattr.user.a", b"x" * 11)), file(b"f")]),
    "attributes": (
        {},
        [pax(*[(b"SCHILY.xattr.user.%d" % number, b"x") for number in range(65)]), file(b"f")],
    ),
    "document": ({"document_bytes": 100}, [file(b"f")]),
}


@pytest.mark.parametrize(("limits", "entries"), CASES.values(), ids=CASES)
def test_limit(limits: dict[str, int], entries: list[bytes], load: Load, store: ImageStore) -> None:
    """Above a limit the error is a LimitError."""
    with pytest.raises(LimitError):
        load(layer(*entries), limits=limits)
    assert [os.listdir(f"{store.root}/{name}") for name in ("layers", "tmp", "images")] == [[], [], []]


def test_honest_layer_is_under_the_same_limits(load: Load) -> None:
    """The limits of the cases above admit sizes just below them."""
    limits = {"entries": 10, "file_bytes": 1000, "layer_bytes": 20_480, "image_bytes": 10_000, "depth": 20}
    load(layer(*[file(b"%d" % number, bytes(1000)) for number in range(10)]), limits=limits)


def test_zip_bomb(store: ImageStore, new_layout: Callable[[], Layout]) -> None:
    """4 GiB of zeros in 4 MiB of gzip end at the free allowance, quickly and in little memory."""
    zeros = gzip.compress(bytes(64 << 20), 9)
    layout = new_layout()
    data = gzip.compress(file(b"zeros", size=8 << 30), 9) + zeros * 64
    descriptor = layout.image(compress="")
    path = layout.path / "blobs" / descriptor["digest"].replace(":", "/")
    manifest = json.loads(path.read_text())
    config = json.loads((layout.path / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    config["rootfs"]["diff_ids"] = [digest(b"never reached")]
    manifest["config"] = layout.document(config, manifest["config"]["mediaType"])
    manifest["layers"] = [layout.blob(data, "application/vnd.oci.image.layer.v1.tar+gzip")]
    layout.add(layout.document(manifest, descriptor["mediaType"]))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(LimitError, match="more than 250 times its size"):
        import_image(
            store, str(layout.path), Options(limits=Limits(ratio_free_bytes=32 << 20), durable=False)
        )
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert os.listdir(f"{store.root}/tmp") == []


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1100])
def test_cut_archive(cut: int, load: Load) -> None:
    """An archive that ends inside a header or a file; between two entries it is simply shorter."""
    data = layer(file(b"f", b"x" * 600), file(b"g"))[:cut]
    with pytest.raises(LayerError, match="ends inside"):
        load(data)


def test_many_layers(load: Load) -> None:
    """More layers than a mount accepts."""
    with pytest.raises(LimitError, match="layers"):
        load(*[layer(file(b"%d" % number)) for number in range(6)], limits={"layers": 5})
