# SPDX-License-Identifier: Apache-2.0
"""The formats of images: layouts in a tar, docker archives, and the output of real tools."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from ringfence_runtime.images import ImageStore, Platform
from ringfence_runtime.images.errors import LayoutError
from tests.runtime.images.layouts import ONE, TWO, NewLayout, digest, files, take


def test_layout_as_tar(store: ImageStore, new_layout: NewLayout, tmp_path: Path) -> None:
    """A layout in a tar needs no unpacking, whatever the order of its files."""
    layout = new_layout()
    layout.add(layout.image(ONE, TWO))
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as archive:
        for each in sorted(layout.path.rglob("*"), reverse=True):
            archive.add(each, f"./{each.relative_to(layout.path)}", recursive=False)
    assert sorted(files(store, take(store, path))) == ["one", "two"]
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(LayoutError, match="compressed as a whole"):
        take(store, packed)


def test_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    """The output of `docker save`, with a layer that is a symlink to another."""
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(ONE)] * 2}}
    ).encode()
    name = f"{digest(config)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": ["app:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    path = tmp_path / "docker.tar"
    with tarfile.open(path, "w") as archive:
        for member, data in (
            (name, config),
            ("a/layer.tar", ONE),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("b/layer.tar")
        info.type, info.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        archive.addfile(info)
    done = take(store, path, platform=Platform("linux", "amd64"))
    assert done.name == "app:1"
    assert files(store, done) == ["one", "one"]


@pytest.mark.needs("umoci", "skopeo")
def test_layouts_written_by_umoci_and_skopeo(store: ImageStore, tmp_path: Path) -> None:
    """Real layouts, as a directory, an oci-archive and
    a docker-archive: same files, one shared layer.
    """
    layout, bundle = tmp_path / "real", tmp_path / "bundle"
    image = f"{layout}:latest"

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True, cwd=tmp_path)

    run("umoci", "init", "--layout", str(layout))
    run("umoci", "new", "--image", image)
    run("umoci", "unpack", "--image", image, str(bundle))
    (bundle / "rootfs/etc").mkdir()
    (bundle / "rootfs/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    os.symlink("passwd", bundle / "rootfs/etc/link")
    run("umoci", "repack", "--refresh-bundle", "--image", image, str(bundle))
    (bundle / "rootfs/etc/link").unlink()
    run("umoci", "repack", "--image", image, str(bundle))
    run("umoci", "config", "--image", image, "--config.cmd", "/bin/true", "--config.workingdir", "/etc")
    run("skopeo", "copy", f"oci:{image}", f"oci-archive:{tmp_path}/a.tar:latest")
    run("skopeo", "copy", f"oci:{image}", f"docker-archive:{tmp_path}/d.tar:name:tag")
    done = take(store, layout)
    assert done.image.process.cmd == ["/bin/true"]
    assert done.image.process.cwd == "/etc"
    assert len(done.image.layers) == 2
    assert sorted(os.listdir(f"{store.layer(done.image.layers[0])}/root/etc")) == ["link", "passwd"]
    for path, name in ((tmp_path / "a.tar", "a:latest"), (tmp_path / "d.tar", "name:tag")):
        again = take(store, path)
        # skopeo names a docker-archive with the default registry of a bare name.
        assert again.name.endswith(name)
        assert again.image.layers == done.image.layers
        assert again.unpacked == []
