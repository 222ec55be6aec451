# SPDX-License-Identifier: Apache-2.0
"""From a layout to the store: selection, verification, sharing."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.images import ImageError, ImageStore, Imported, Platform
from ringfence_runtime.images import zstd as zstd_module
from ringfence_runtime.images.errors import ImageNotFoundError, LayerError, LayoutError
from tests.runtime.images.layouts import (
    INDEX,
    LAYER,
    MANIFEST,
    ONE,
    TWO,
    Layout,
    NewLayout,
    digest,
    files,
    take,
)

Load = Callable[..., Imported]


@pytest.mark.parametrize("compress", ["", "gzip"])
def test_compressions(compress: str, store: ImageStore, new_layout: NewLayout) -> None:
    """Plain and gzip layers give the same files under the same diff_id."""
    layout = new_layout()
    done = take(store, layout.add(layout.image(ONE, compress=compress)))
    assert done.image.layers == [digest(ONE)]
    assert files(store, done) == ["one"]
    assert done.image.size == 3000


def zstd_layout(layout: Layout, data: bytes, packed: bytes) -> Layout:
    """A layout whose layer is `packed`, and should unpack to `data`."""
    descriptor = layout.image(data, compress="")
    path = layout.path / "blobs" / descriptor["digest"].replace(":", "/")
    manifest = json.loads(path.read_text())
    manifest["layers"] = [layout.blob(packed, f"{LAYER}+zstd")]
    return layout.add(layout.document(manifest, MANIFEST))


@pytest.mark.needs("zstd")
def test_zstd(store: ImageStore, new_layout: NewLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """zstd layers unpack; a truncated one is an error;
    without the program the refusal says what to do.
    """
    packed = subprocess.run(["zstd", "-c"], input=ONE, capture_output=True, check=True).stdout
    assert files(store, take(store, zstd_layout(new_layout(), ONE, packed))) == ["one"]
    with pytest.raises(ImageError):
        take(store, zstd_layout(new_layout(), TWO, packed[:-20]))
    monkeypatch.setattr(zstd_module, "PATH", "/nonexistent")
    monkeypatch.setattr(zstd_module, "MODULE", "no_such_module")
    with pytest.raises(ImageError, match="zstd") as caught:
        take(store, zstd_layout(new_layout(), TWO, packed))
    assert "install the zstd program" in caught.value.hint


def test_gzip_of_many_members(store: ImageStore, new_layout: NewLayout) -> None:
    """eStargz writes one gzip member per file; all of them are the layer."""
    layout = new_layout()
    packed = b"".join(gzip.compress(ONE[at : at + 700]) for at in range(0, len(ONE), 700))
    assert files(store, take(store, zstd_layout(layout, ONE, packed))) == ["one"]


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(ONE)[:-30], gzip.compress(ONE) + b"junk", b"\x1f\x8b\x08junk"],
    ids=["cut", "junk behind it", "junk in it"],
)
def test_broken_gzip(packed: bytes, store: ImageStore, new_layout: NewLayout) -> None:
    """A gzip stream that is truncated, followed by something, or no gzip at all."""
    with pytest.raises(LayerError, match="gzip"):
        take(store, zstd_layout(new_layout(), ONE, packed))


def test_layers_are_shared(store: ImageStore, new_layout: NewLayout) -> None:
    """An existing layer is not unpacked again, whatever
    its compression; its blob is still verified.
    """
    first, second = new_layout(), new_layout()
    take(store, first.add(first.image(ONE)), name="a")
    inode = os.stat(f"{store.layer(digest(ONE))}/root/one").st_ino
    done = take(store, second.add(second.image(ONE, TWO, compress="")), name="b")
    assert done.shared == [digest(ONE)]
    assert [each.diff_id for each in done.unpacked] == [digest(TWO)]
    assert os.stat(f"{store.layer(digest(ONE))}/root/one").st_ino == inode
    assert len(os.listdir(f"{store.root}/layers")) == 2


def test_shared_layer_needs_a_matching_blob(store: ImageStore, new_layout: NewLayout) -> None:
    """An image cannot use a stored layer by giving its diff_id to a blob of its own."""
    first, second = new_layout(), new_layout()
    take(store, first.add(first.image(ONE)))
    second.add(second.image(TWO, diff_ids=[digest(ONE)]))
    with pytest.raises(LayoutError, match="unpacks to"):
        take(store, second)


def test_the_same_layer_twice(store: ImageStore, new_layout: NewLayout) -> None:
    """An image may list a layer twice (empty ones are)."""
    layout = new_layout()
    done = take(store, layout.add(layout.image(ONE, TWO, ONE)))
    assert done.image.layers == [digest(ONE), digest(TWO), digest(ONE)]
    assert len(done.unpacked) == 2


def damage_blob(layout: Layout) -> None:
    """Change one byte of the layer blob (its size stays)."""
    manifest = json.loads(
        (layout.path / "blobs" / layout.manifests[0]["digest"].replace(":", "/")).read_text()
    )
    path = layout.path / "blobs" / manifest["layers"][0]["digest"].replace(":", "/")
    data = bytearray(path.read_bytes())
    data[5] ^= 1  # gzip's time stamp: the stream unpacks to the same bytes
    path.write_bytes(data)


def damage_manifest(layout: Layout) -> None:
    """Append a blank to the manifest, and adjust the size in its descriptor."""
    path = layout.path / "blobs" / layout.manifests[0]["digest"].replace(":", "/")
    path.write_bytes(path.read_bytes() + b" ")
    layout.manifests[0]["size"] += 1
    layout.add(layout.manifests.pop())


@pytest.mark.parametrize("damage", [damage_blob, damage_manifest])
def test_wrong_digest(damage: Callable[[Layout], None], store: ImageStore, new_layout: NewLayout) -> None:
    """A blob that does not match its digest is refused, though it unpacks or parses."""
    layout = new_layout()
    layout.add(layout.image(ONE))
    damage(layout)
    with pytest.raises(LayoutError, match="damaged"):
        take(store, layout)
    assert os.listdir(f"{store.root}/layers") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 10}, "larger than the 10 bytes"),
        ({"size": 1 << 40}, "its descriptor says 1099511627776"),
        ({"size": -1}, "not a size"),
        ({"size": 1.5}, "not a size"),
        ({"digest": "sha256:" + "0" * 64}, "no blob"),
        ({"digest": "sha256:../../../../etc/passwd"}, "not a sha256"),
        ({"digest": "md5:d41d8cd98f00b204e9800998ecf8427e"}, "not a sha256"),
        ({"mediaType": LAYER + "+encrypted"}, "not a supported layer format"),
    ],
)
def test_wrong_descriptor(
    changes: dict[str, Any], message: str, store: ImageStore, new_layout: NewLayout
) -> None:
    """Sizes, digests and types of descriptors are checked."""
    layout = new_layout()
    with pytest.raises(LayoutError, match=message):
        take(store, layout.add(layout.image(ONE, layer_changes=changes)))
    assert os.listdir(f"{store.root}/tmp") == []


def test_wrong_diff_id(store: ImageStore, new_layout: NewLayout) -> None:
    """The configuration's digest of the unpacked layer is checked, and so is the number of layers."""
    layout = new_layout()
    with pytest.raises(LayoutError, match="unpacks to"):
        take(store, layout.add(layout.image(ONE, diff_ids=[digest(TWO)])))
    other = new_layout()
    with pytest.raises(LayoutError, match="1 layers, and the configuration has 2 diff_ids"):
        take(store, other.add(other.image(ONE, diff_ids=[digest(ONE)] * 2)))


def test_platform_is_selected(store: ImageStore, new_layout: NewLayout) -> None:
    """Of a multi-platform index, nested or flat, the
    image for this machine or for --platform is chosen.
    """
    layout = new_layout()
    native, foreign = Platform.host().architecture, "s390x"
    entries = [
        {**layout.image(ONE, architecture=foreign), "platform": {"os": "linux", "architecture": foreign}},
        {**layout.image(TWO), "platform": {"os": "unknown", "architecture": "unknown"}},
        {**layout.image(TWO, architecture=native), "platform": {"os": "linux", "architecture": native}},
    ]
    layout.add(layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX))
    assert take(store, layout).image.layers == [digest(TWO)]
    assert take(store, layout, platform=Platform.parse("linux/s390x")).image.layers == [digest(ONE)]
    with pytest.raises(ImageNotFoundError) as caught:
        take(store, layout, platform=Platform.parse("linux/riscv64"))
    assert "linux/s390x" in caught.value.hint


def test_image_for_another_machine(store: ImageStore, new_layout: NewLayout) -> None:
    """Without an index, the configuration's architecture decides."""
    layout = new_layout()
    layout.add(layout.image(ONE, architecture="s390x"))
    with pytest.raises(ImageNotFoundError, match="s390x"):
        take(store, layout)
    assert take(store, layout, platform=Platform.parse("linux/s390x")).image.platform == "linux/s390x"


def test_reference_is_needed_where_there_are_several(store: ImageStore, new_layout: NewLayout) -> None:
    """PATH:REF selects an image; its name in the store follows."""
    layout = new_layout()
    layout.add(layout.image(ONE), "v1").add(layout.image(TWO), "v2")
    with pytest.raises(LayoutError, match="several"):
        take(store, layout)
    done = take(store, layout, reference="v2")
    assert done.image.layers == [digest(TWO)]
    assert done.name == "layout0:v2"
    with pytest.raises(ImageNotFoundError):
        take(store, layout, reference="v3")


@pytest.mark.parametrize("name", ["../../etc/x", "a b", "a\n", "-a", "", "a" * 300])
def test_hostile_reference_names_nothing(name: str, store: ImageStore, new_layout: NewLayout) -> None:
    """An invalid reference is not used as a name; given by the user, it is an error."""
    layout = new_layout()
    done = take(store, layout.add(layout.image(ONE), name))
    assert done.name == "layout0:latest"
    if name:
        with pytest.raises(ImageError, match="invalid image name"):
            take(store, layout, name=name)


@pytest.mark.parametrize("trick", ["symlink", "fifo", "directory"])
def test_blob_that_is_no_file(trick: str, store: ImageStore, new_layout: NewLayout, outside: Path) -> None:
    """A blob that is a symlink out of the layout, a
    FIFO (which would block) or a directory is refused.
    """
    layout = new_layout()
    layout.add(layout.image(ONE))
    path = layout.path / "blobs" / layout.manifests[0]["digest"].replace(":", "/")
    shutil.copy(path, layout.path.parent / "copy")
    path.unlink()
    if trick == "symlink":
        path.symlink_to(layout.path.parent / "copy")
    elif trick == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(LayoutError, match=r"cannot be opened|not a regular file"):
        take(store, layout)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"manifests": 3}', '{"a":1,"a":2}', "[" * 100_000, "NaN"]
)
def test_broken_index(content: str, store: ImageStore, new_layout: NewLayout) -> None:
    """An invalid index is a LayoutError, never another exception."""
    layout = new_layout()
    (layout.path / "index.json").write_text(content)
    with pytest.raises(ImageError):
        take(store, layout)


def test_not_an_image(store: ImageStore, tmp_path: Path) -> None:
    """For other files the error says how to make an image."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError) as caught:
        take(store, tmp_path / "empty")
    assert "skopeo copy" in caught.value.hint
    with pytest.raises(ImageError, match="there is no file"):
        take(store, tmp_path / "nothing")
