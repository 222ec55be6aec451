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
from ringfence_runtime.images.errors import ImageNotFoundError, LayoutError
from ringfence_runtime.images.reference import split_reference
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


def docker_archive(path: Path, *images: tuple[list[str] | None, bytes]) -> Path:
    """The output of `docker save` of images with these names, each with one layer, in two places."""
    manifest: list[dict[str, object]] = []
    members: dict[str, bytes] = {}
    for number, (names, data) in enumerate(images):
        rootfs = {"type": "layers", "diff_ids": [digest(data)] * 2}
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
        name = f"{digest(config)[7:]}.json"
        layers = [f"{number}/layer.tar", f"{number}/again.tar"]
        members |= {name: config, layers[0]: data}
        manifest.append({"Config": name, "RepoTags": names, "Layers": layers})
    members["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for number in range(len(images)):
            info = tarfile.TarInfo(f"{number}/again.tar")
            info.type, info.linkname = tarfile.SYMTYPE, f"../{number}/layer.tar"
            archive.addfile(info)
    return path


AMD64 = Platform("linux", "amd64")


def test_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    """The output of `docker save`, with a layer that is a symlink to another."""
    done = take(store, docker_archive(tmp_path / "docker.tar", (["app:1"], ONE)), platform=AMD64)
    assert done.name == "app:1"
    assert files(store, done) == ["one", "one"]


def test_one_of_several_images_of_a_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    """By its whole name, by a name that engines complete, by its place; the error lists them."""
    path = docker_archive(
        tmp_path / "saved.tar",
        (["docker.io/library/a:latest", "b:2"], ONE),
        (None, TWO),
        (["localhost/c:1"], TWO),
    )
    with pytest.raises(LayoutError, match="several images") as caught:
        take(store, path, platform=AMD64)
    assert caught.value.hint == "name one, as in PATH:NAME: 'docker.io/library/a:latest', @1, 'localhost/c:1'"
    for reference, name, held in (
        ("docker.io/library/a:latest", "docker.io/library/a:latest", ONE),
        ("a", "docker.io/library/a:latest", ONE),
        ("b:2", "b:2", ONE),
        ("c:1", "localhost/c:1", TWO),
        ("@1", "saved:latest", TWO),
    ):
        done = take(store, path, platform=AMD64, reference=reference)
        assert (done.name, done.image.layers) == (name, [digest(held)] * 2), reference
    with pytest.raises(ImageNotFoundError):
        take(store, path, platform=AMD64, reference="@3")
    path = docker_archive(tmp_path / "b.tar", (None, ONE), (None, TWO))
    with pytest.raises(LayoutError, match="several images") as caught:
        take(store, path, platform=AMD64)
    assert caught.value.hint == "choose one by its place: PATH:@0 to PATH:@1"


def test_images_of_a_layout_with_whole_names(store: ImageStore, new_layout: NewLayout) -> None:
    """containerd and `docker save` of its store: the reference is the tag alone, the same for all."""
    layout = new_layout()
    for name, data in (("docker.io/library/a:latest", ONE), ("docker.io/library/b:latest", TWO)):
        said = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"}
        layout.add({**layout.image(data), "platform": {"os": "linux", "architecture": "amd64"}})
        layout.manifests[-1]["annotations"] = said
    layout.add(layout.image(ONE, TWO), "other")
    with pytest.raises(LayoutError, match="several images") as caught:
        take(store, layout)
    assert "'docker.io/library/a:latest', 'docker.io/library/b:latest', 'other'" in caught.value.hint
    with pytest.raises(LayoutError, match="several images"):
        take(store, layout, reference="latest")
    done = take(store, layout, reference="b", platform=AMD64)
    assert (done.name, done.image.layers) == ("docker.io/library/b:latest", [digest(TWO)])
    assert take(store, layout, reference="@0", platform=AMD64).image.layers == [digest(ONE)]


def test_images_without_a_name_are_not_guessed(store: ImageStore, new_layout: NewLayout) -> None:
    """Several for one platform: none of them is the one that is meant."""
    layout = new_layout()
    layout.add(layout.image(ONE)).add(layout.image(TWO))
    with pytest.raises(LayoutError, match="several images") as caught:
        take(store, layout)
    assert caught.value.hint == "choose one by its place: PATH:@0 to PATH:@1"
    assert take(store, layout, reference="@1").image.layers == [digest(TWO)]


@pytest.mark.parametrize(
    ("text", "path", "reference"),
    [
        ("a.tar", "a.tar", ""),
        ("a.tar:docker.io/library/x:1", "a.tar", "docker.io/library/x:1"),
        ("a.tar:@1", "a.tar", "@1"),
        ("d:1/b.tar:localhost:5000/x", "d:1/b.tar", "localhost:5000/x"),
        ("d:1/b.tar", "d:1/b.tar", ""),
        ("none/c.tar:x:1", "none/c.tar", "x:1"),
    ],
)
def test_a_path_and_a_reference_are_separated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str, reference: str
) -> None:
    """Both may contain slashes and colons."""
    monkeypatch.chdir(tmp_path)
    Path("d:1").mkdir()
    Path("d:1/b.tar").touch()
    Path("a.tar").touch()
    assert split_reference(text) == (path, reference)


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
