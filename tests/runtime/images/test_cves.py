# SPDX-License-Identifier: Apache-2.0
"""Vulnerabilities of other image stores, one test each, named after the CVE."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_runtime.images import ImageError, ImageStore, Imported, Options, import_image, resolve_user
from ringfence_runtime.images.errors import LayerError, LayoutError
from tests.runtime.images.layouts import Layout, digest, directory, file, layer, link, pax, symlink

Load = Callable[..., Imported]
ONE = layer(file(b"one"))


def test_cve_2021_41190_ambiguous_manifest(store: ImageStore, new_layout: Callable[[], Layout]) -> None:
    """One document that is an index to one tool and a manifest to another has two meanings: refused."""
    layout = new_layout()
    descriptor = layout.image(ONE)
    path = layout.path / "blobs" / descriptor["digest"].replace(":", "/")
    manifest = json.loads(path.read_text()) | {"manifests": []}
    layout.add(layout.document(manifest, descriptor["mediaType"]))
    with pytest.raises(LayoutError, match="at once"):
        import_image(store, str(layout.path), Options(durable=False))


@pytest.mark.parametrize("volume", ["/../../../etc", "/data/../../..", "/data\0/x"])
def test_cve_2022_23648_volume_paths(volume: str, load: Load) -> None:
    """A volume of the image is never a path on the host."""
    with pytest.raises(LayoutError, match="Volumes"):
        load(ONE, config={"Volumes": {volume: {}}})


def test_cve_2024_21626_working_directory(load: Load) -> None:
    """/proc/self/fd/7 as working directory leads through a leaked descriptor to the host."""
    for text in ("/proc/self/fd/7", "//proc/self/fd/7", "/x/../proc/self/cwd"):
        with pytest.raises(LayoutError, match="WorkingDir"):
            load(ONE, config={"WorkingDir": text})


@pytest.mark.parametrize("spec", ["2147483648", "4294967296", "4294967296:0", "0:4294967296", "9" * 30])
def test_cve_2024_40635_user_overflow(spec: str, tmp_path: Path) -> None:
    """A uid beyond 31 bits is an error; in containerd it wrapped around to root."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ImageError, match="out of range"):
        resolve_user(fd, spec)
    os.close(fd)


def test_cve_2025_62518_pax_size(load: Load, store: ImageStore) -> None:
    """TARmageddon: a PAX size with a header size of 0. Data is skipped
    by the PAX size, so a file's contents are never read as entries.
    """
    inner = file(b"smuggled", b"x")
    size = (b"size", b"%d" % len(inner))
    done = load(layer(pax(size), file(b"outer.tar", size=0) + inner, file(b"after")))
    root = f"{store.layer(done.image.layers[0])}/root"
    assert sorted(os.listdir(root)) == ["after", "outer.tar"]
    assert os.stat(f"{root}/outer.tar").st_size == len(inner)


def test_cve_2018_15664_symlink_swap(load: Load, outside: Path) -> None:
    """An entry replaces a directory by a symlink, between two entries that use it as a parent."""
    entries = [
        directory(b"d"),
        file(b"d/first", b"1"),
        link(b"keep", b"d/first"),
        symlink(b"e", b"../../../../../victim"),
        file(b"e/file", b"pwned"),
    ]
    with pytest.raises(LayerError):
        load(layer(*entries))


def test_swapped_empty_directory_is_not_reached_through_an_old_descriptor(
    load: Load, store: ImageStore, outside: Path
) -> None:
    """A parent that was opened before a symlink took its name is not used afterwards."""
    done = load(
        layer(
            directory(b"t"), directory(b"d"), file(b"d/.wh..wh..opq"), symlink(b"d", b"t"), file(b"d/f", b"1")
        )
    )
    root = Path(store.layer(done.image.layers[0])) / "root"
    assert (root / "t/f").read_text() == "1"
    assert (root / "d").is_symlink()


def test_labels_are_text(load: Load) -> None:
    """Similar to CVE-2026-53488: labels that look like
    commands or options are kept as text and have no effect.
    """
    labels = {"org.example.run": "$(touch /pwned)", "io.podman.annotations.privileged": "true"}
    image = load(ONE, config={"Labels": labels}).image
    assert image.process.labels == labels
    assert image.process.args(["x"]) == ["x"]
    assert not os.path.exists("/pwned")


def test_digest_is_no_path(store: ImageStore, new_layout: Callable[[], Layout]) -> None:
    """The cause of CVE-2019-14271 and many others: a
    string of the image used as a path of the host.
    """
    layout = new_layout()
    layout.add({**layout.image(ONE), "digest": "sha256:../" + digest(ONE)[10:]})
    with pytest.raises(LayoutError, match="not a sha256"):
        import_image(store, str(layout.path), Options(durable=False))
