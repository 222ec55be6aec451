# SPDX-License-Identifier: Apache-2.0
"""WebAssembly modules as images: files, artifacts, and images of a platform of WebAssembly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.images import ImageStore, Platform
from ringfence_runtime.images.errors import ImageNotFoundError, LayoutError, LimitError
from tests.runtime.images.layouts import (
    CONFIG,
    MANIFEST,
    ONE,
    TWO,
    Layout,
    NewLayout,
    digest,
    entry,
    files,
    take,
)

# the shortest module there is, and one with a custom section
EMPTY = b"\0asm\1\0\0\0"
OTHER = EMPTY + b"\0\5\4name"
COMPONENT = b"\0asm\r\0\1\0"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"


def artifact(
    layout: Layout, *modules: bytes, kind: str = "application/wasm", **changes: Any
) -> dict[str, Any]:
    """Writes an artifact as its specification says, with changes of its configuration."""
    layers = [layout.blob(data, kind) for data in modules]
    config = {"created": "2026-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip1",
              "layerDigests": [layer["digest"] for layer in layers], **changes}  # fmt: skip
    described = layout.document(config, WASM_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    return layout.document(manifest, MANIFEST)


def program(store: ImageStore, name: str) -> bytes:
    """Returns the file that a container of this image executes."""
    image = store.find(name)
    [path] = image.process.args()
    [layer] = image.layers
    return Path(f"{store.layer(layer)}/root{path}").read_bytes()


def test_a_file_is_an_image(store: ImageStore, tmp_path: Path) -> None:
    """Its digest is the file's; its name is the file's; modules and components are different platforms."""
    for number, data in enumerate((EMPTY, OTHER, COMPONENT)):
        path = tmp_path / f"app{number}.wasm"
        path.write_bytes(data)
        done = take(store, path)
        assert (done.name, done.image.digest) == (f"app{number}:latest", digest(data))
        assert done.image.is_wasm
        assert program(store, done.name) == data
        assert done.image.platform == ("wasip2/wasm" if data is COMPONENT else "wasip1/wasm")
    again = take(store, path)
    assert not again.unpacked


def test_an_artifact_is_an_image(store: ImageStore, new_layout: NewLayout) -> None:
    """The module is the program. The same module in a file is the same layer."""
    layout = new_layout()
    done = take(store, layout.add(artifact(layout, OTHER), "tag"), name="artifact")
    assert program(store, "artifact") == OTHER
    assert (done.image.platform, done.image.created) == ("wasip1/wasm", "2026-01-01T00:00:00Z")
    (layout.path / "same.wasm").write_bytes(OTHER)
    assert take(store, layout.path / "same.wasm").shared == done.image.layers


@pytest.mark.parametrize(
    ("modules", "changes", "message"),
    [
        ([EMPTY, OTHER], {}, "2 layers"),
        ([], {}, "0 layers"),
        ([EMPTY], {"layerDigests": [digest(OTHER)]}, "other layers than the manifest"),
        ([EMPTY], {"os": "linux"}, "'linux/wasm' is not a platform of WebAssembly"),
        ([EMPTY], {"architecture": "amd64"}, "is not a platform of WebAssembly"),
        ([EMPTY], {"kind": "application/vnd.oci.image.layer.v1.tar"}, "is not application/wasm"),
        ([ONE], {}, "is not a WebAssembly module"),
        ([b""], {}, "is not a WebAssembly module"),
    ],
)
def test_a_wrong_artifact_is_refused(
    modules: list[bytes], changes: dict[str, Any], message: str, store: ImageStore, new_layout: NewLayout
) -> None:
    """With the reason, and nothing is kept."""
    layout = new_layout()
    with pytest.raises(LayoutError, match=message):
        take(store, layout.add(artifact(layout, *modules, **changes)))
    assert not store.names()


def test_a_damaged_module_is_refused(store: ImageStore, new_layout: NewLayout) -> None:
    """The blob is verified, whether it is known or not."""
    layout = new_layout()
    layout.add(artifact(layout, OTHER))
    for data in (OTHER[:-1] + b"x", OTHER[:-1], OTHER + b"x"):
        (layout.path / "blobs" / digest(OTHER).replace(":", "/")).write_bytes(data)
        with pytest.raises(LayoutError, match=r"damaged|larger|bytes"):
            take(store, layout)


def test_a_module_that_cannot_be_executed_is_refused_at_the_import(store: ImageStore, tmp_path: Path) -> None:
    """The runtime executes 64 MiB at most."""
    path = tmp_path / "large.wasm"
    with path.open("wb") as file:
        file.write(EMPTY)
        file.truncate((64 << 20) + 1)
    with pytest.raises(LimitError, match="at most 67108864"):
        take(store, path)


def test_a_layer_of_an_image_is_never_taken_for_a_module(store: ImageStore, new_layout: NewLayout) -> None:
    """Bytes that are both keep their two meanings: a module's layer is named by the tar around it."""
    tar = entry(EMPTY, b"5") + ONE  # a directory without a name, which is the root
    layout = new_layout()
    image = take(store, layout.add(layout.image(tar)), name="image")
    assert files(store, image) == ["one"]
    second = new_layout()
    done = take(store, second.add(artifact(second, tar)), name="module")
    assert image.image.layers == [digest(tar)] != done.image.layers
    assert program(store, "module") == tar


def test_an_index_prefers_this_machines_image(store: ImageStore, new_layout: NewLayout) -> None:
    """A module runs on every machine, so it is taken if there is none for this one, or by its platform."""
    layout = new_layout()
    native = {"platform": {"os": "linux", "architecture": Platform.host().architecture}}
    foreign = {"platform": {"os": "linux", "architecture": "s390x"}}
    wasm = {"platform": {"os": "wasi", "architecture": "wasm"}}
    image = layout.image(TWO, architecture=Platform.host().architecture)
    layout.add(artifact(layout, OTHER), "app", **wasm).add(image, "app", **native)
    assert files(store, take(store, layout)) == ["two"]
    assert program(store, take(store, layout, platform=Platform.parse("wasi/wasm"), name="m").name) == OTHER
    layout.manifests[1] |= foreign
    layout.add(layout.image(ONE, architecture="s390x"), "app", **foreign)
    assert take(store, layout).image.is_wasm
    with pytest.raises(ImageNotFoundError, match="does not exist for linux/arm64"):
        take(store, layout, platform=Platform.parse("linux/arm64"))


def test_an_image_for_wasi_is_one_of_modules(store: ImageStore, new_layout: NewLayout) -> None:
    """As Docker makes them: ordinary layers, and the platform wasi/wasm."""
    layout = new_layout()
    document = {"architecture": "wasm", "os": "wasi", "config": {"Entrypoint": ["/one"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(ONE)]}}  # fmt: skip
    layers = [layout.blob(ONE, "application/vnd.oci.image.layer.v1.tar")]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
                "config": layout.document(document, CONFIG)}  # fmt: skip
    done = take(store, layout.add(layout.document(manifest, MANIFEST)))
    assert done.image.is_wasm
    assert json.dumps(done.image.platform) == '"wasi/wasm"'
