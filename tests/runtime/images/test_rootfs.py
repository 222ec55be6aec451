# SPDX-License-Identifier: Apache-2.0
"""Root filesystems: what a container sees and leaves, and that its layers stay unchanged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.images import (
    ImageError,
    ImageStore,
    Imported,
    load_rootfs,
    mounting,
    prepare_rootfs,
    release_rootfs,
)
from ringfence_runtime.images.errors import ImageNotFoundError, InUseError
from tests.runtime.images.layouts import file, layer
from tests.runtime.images.roots import LOWER, UPPER, mounts_below, opened

Load = Callable[..., Imported]


@pytest.mark.parametrize("way", ["by parts", "by mount(2)"])
def test_layers_merge(way: str, load: Load, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upper entries win, whiteouts hide, an opaque directory
    hides those below, the root has the top layer's mode.
    """
    if way != "by parts":
        monkeypatch.setattr(mounting, "_overlay", mounting._overlay_by_mount)
    load(LOWER, UPPER, name="image")
    with opened(prepare_rootfs(store, "image", "c1")) as root:
        assert sorted(os.listdir(root)) == ["etc", "opt", "out"]
        assert sorted(os.listdir(root / "etc")) == ["b", "c"]
        assert os.listdir(root / "opt") == ["new"]
        assert (root / "etc/b").read_text() == "lower b"
        status = os.stat(f"{root}/.")
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o711, 9)
        (root / "etc/b").write_text("changed")
        (root / "etc/c").unlink()
    assert (Path(store.layer(load(LOWER, UPPER).image.layers[0])) / "root/etc/b").read_text() == "lower b"
    assert mounts_below(store.root) == []


def test_containers_do_not_see_each_other(load: Load, store: ImageStore) -> None:
    """Two containers of one image share layers, and neither sees the other's writes."""
    load(LOWER, name="image")
    with (
        opened(prepare_rootfs(store, "image", "c1")) as one,
        opened(prepare_rootfs(store, "image", "c2")) as two,
    ):
        (one / "etc/mine").write_text("1")
        assert not (two / "etc/mine").exists()
        assert load_rootfs(store, "c1").lower == load_rootfs(store, "c2").lower


def test_read_only_and_nodev(load: Load, store: ImageStore) -> None:
    """A read-only root refuses writes; devices made in a root filesystem cannot be opened."""
    load(LOWER, name="image")
    with opened(prepare_rootfs(store, "image", "ro", read_only=True)) as root, pytest.raises(OSError):
        (root / "x").write_text("")
    with opened(prepare_rootfs(store, "image", "rw")) as root:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with pytest.raises(PermissionError):
            (root / "null").read_bytes()


def test_release_removes_everything(load: Load, store: ImageStore) -> None:
    """A container's writes are removed, and a second release finds nothing to do."""
    load(LOWER, name="image")
    with opened(prepare_rootfs(store, "image", "c1")) as root:
        (root / "etc/x").write_text("1")
    assert release_rootfs(store, "c1") is True
    assert release_rootfs(store, "c1") is False
    assert [os.listdir(f"{store.root}/{name}") for name in ("containers", "tmp")] == [[], []]
    with pytest.raises(ImageNotFoundError):
        load_rootfs(store, "c1")


def test_release_unmounts(load: Load, store: ImageStore) -> None:
    """A crash between mount and delete leaves a mount at `merged`; release removes it."""
    load(LOWER, name="image")
    rootfs = prepare_rootfs(store, "image", "c1")
    mounting.mount_rootfs(rootfs, rootfs.merged)
    assert os.path.exists(f"{rootfs.merged}/etc/a")
    release_rootfs(store, "c1")
    assert mounts_below(store.root) == []
    assert os.listdir(f"{store.root}/containers") == []


def test_release_never_empties_what_is_mounted(store: ImageStore, outside: Path) -> None:
    """A directory that is bound at `merged` (on the same
    filesystem: ismount() does not see it) stays complete.
    """
    rootfs = prepare_rootfs(store, str(outside), "c1")
    mounting.mount_rootfs(rootfs, rootfs.merged)
    mounting.mount_rootfs(rootfs, rootfs.merged)
    assert os.listdir(rootfs.merged) == ["file"]
    release_rootfs(store, "c1")
    assert mounts_below(store.root) == []


def test_removal_stops_at_a_mount(store: ImageStore, outside: Path) -> None:
    """Where something is mounted in a tree that is removed, the mounted files are not changed."""
    rootfs = prepare_rootfs(store, str(outside), "c1")
    place = Path(rootfs.merged).parent / "deep/er"
    place.mkdir(parents=True)
    mounting.mount_rootfs(rootfs, str(place))
    try:
        with pytest.raises(ImageError, match="cross-device"):
            release_rootfs(store, "c1")
    finally:
        for line in mounts_below(store.root):
            syscalls.umount2(line.split()[4], syscalls.MNT_DETACH)
    store.sweep()
    assert os.listdir(f"{store.root}/tmp") == []


def test_release_of_a_bottomless_tree(load: Load, store: ImageStore) -> None:
    """Directories nested deeper than PATH_MAX, the recursion limit and the descriptor table are removed."""
    load(LOWER, name="image")
    upper = prepare_rootfs(store, "image", "c1").upper
    fd = os.open(upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir(b"deep" * 10, dir_fd=fd)
        inner = os.open(b"deep" * 10, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    release_rootfs(store, "c1")
    assert os.listdir(f"{store.root}/tmp") == []


def test_release_does_not_follow_symlinks(load: Load, store: ImageStore, outside: Path) -> None:
    """A container's symlinks are removed, not their targets."""
    load(LOWER, name="image")
    upper = Path(prepare_rootfs(store, "image", "c1").upper)
    (upper / "link").symlink_to(outside)
    (upper / "dir").mkdir()
    (upper / "dir/link").symlink_to(outside)
    release_rootfs(store, "c1")
    assert os.listdir(f"{store.root}/tmp") == []


def test_one_root_filesystem_a_container(load: Load, store: ImageStore) -> None:
    """A second prepare with the same id is refused; after a crash during the first it is not."""
    load(LOWER, name="image")
    prepare_rootfs(store, "image", "c1")
    with pytest.raises(InUseError):
        prepare_rootfs(store, "image", "c1")
    os.makedirs(f"{store.root}/containers/half/upper")
    prepare_rootfs(store, "image", "half")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\n", "a" * 256])
def test_hostile_container_id(name: str, load: Load, store: ImageStore) -> None:
    """An id becomes a directory name, so it may not be a path."""
    load(LOWER, name="image")
    for call in (lambda: prepare_rootfs(store, "image", name), lambda: release_rootfs(store, name)):
        with pytest.raises(ImageError, match="invalid container id"):
            call()


def test_opaque_root(load: Load, store: ImageStore) -> None:
    """A layer that hides all below it: the kernel ignores
    the mark on a layer's root, so the store handles it.
    """
    load(LOWER, layer(file(b".wh..wh..opq"), file(b"only")), name="image")
    with opened(prepare_rootfs(store, "image", "c1")) as root:
        assert os.listdir(root) == ["only"]


def test_layer_listed_twice(load: Load, store: ImageStore) -> None:
    """overlayfs refuses the same directory twice; the result is as if it accepted it."""
    again = layer(file(b"f", b"again"))
    load(again, layer(file(b".wh.f"), file(b"g")), again, name="image")
    with opened(prepare_rootfs(store, "image", "c1")) as root:
        assert sorted(os.listdir(root)) == ["f", "g"]


def test_many_layers_mount(load: Load, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """127 layers mount both ways, though their paths fill more than a page of options."""
    load(*[layer(file(b"%d" % number)) for number in range(127)], name="image")
    rootfs = prepare_rootfs(store, "image", "c1")
    with opened(rootfs) as root:
        assert len(os.listdir(root)) == 127
    monkeypatch.setattr(mounting, "_overlay", mounting._overlay_by_mount)
    with opened(rootfs) as root:
        assert len(os.listdir(root)) == 127


def test_image_without_layers(load: Load, store: ImageStore) -> None:
    """The root is empty and writable."""
    load(name="empty")
    with opened(prepare_rootfs(store, "empty", "c1")) as root:
        assert os.listdir(root) == []
        (root / "x").write_text("1")


def test_directory_and_host(store: ImageStore, tmp_path: Path) -> None:
    """A plain directory is bound unchanged; the host's
    root is read-only, and hides secrets and sockets.
    """
    (tmp_path / "dir").mkdir()
    with opened(prepare_rootfs(store, str(tmp_path / "dir"), "c1")) as root:
        (root / "x").write_text("1")
    assert (tmp_path / "dir/x").exists()
    host = prepare_rootfs(store, "host", "c2")
    assert host.read_only
    assert "/run" in host.scratch
    assert {"/root", "/etc/shadow", store.root} <= set(host.masked)
    for path in host.masked:
        assert not os.path.islink(path)
    shown = [
        os.path.join(directory, name)
        for directory, _, names in os.walk("/etc")
        for name in names
        if not any(f"{directory}/".startswith(f"{masked}/") for masked in host.masked)
    ]
    hidden = [path for path in shown if not os.lstat(path).st_mode & 0o004]
    assert set(hidden) <= set(host.masked)
    with opened(host) as root, pytest.raises(OSError, match="Read-only"):
        (root / "ringfence-was-here").write_text("")
    with pytest.raises(ImageError, match="host's root"):
        prepare_rootfs(store, "/", "c3")
    assert release_rootfs(store, "c1")
    assert (tmp_path / "dir/x").exists()
