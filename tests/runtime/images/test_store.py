# SPDX-License-Identifier: Apache-2.0
"""The store: names, removal, references, and the state after crashes, races and a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.images import (
    ImageError,
    ImageStore,
    Imported,
    Options,
    import_image,
    importer,
    prepare_rootfs,
    release_rootfs,
)
from ringfence_runtime.images.errors import FullError, ImageNotFoundError, InUseError, StoreError
from tests.runtime.images.layouts import Layout, file, layer
from tests.support.waiting import wait_for

Load = Callable[..., Imported]
NewLayout = Callable[[], Layout]
ONE, TWO, THREE = (layer(file(name, name * 100)) for name in (b"one", b"two", b"three"))


def contents(store: ImageStore) -> list[int]:
    """Returns the numbers of images, layers, containers and leftovers."""
    return [len(os.listdir(f"{store.root}/{name}")) for name in ("images", "layers", "containers", "tmp")]


def test_find_by_name_digest_and_prefix(load: Load, store: ImageStore) -> None:
    """`name` means `name:latest`; a digest or a prefix of it is accepted as well."""
    digest = load(ONE, name="app").image.digest
    for name in ("app", "app:latest", digest, digest[7:20]):
        assert store.find(name).digest == digest
    for name in ("other", "app:2", "0" * 12, "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFoundError):
            store.find(name)


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/passwd", "a b", "a\0", "x\x1b[1m"])
def test_hostile_names(name: str, store: ImageStore) -> None:
    """An invalid name is refused before it becomes part of a path."""
    with pytest.raises(ImageError, match="invalid image name"):
        store.find(name)


def test_name_moves(load: Load, store: ImageStore) -> None:
    """Importing another image under a name moves it;
    the old image stays, unnamed, until it is removed.
    """
    old = load(ONE, name="app").image.digest
    new = load(TWO, name="app").image.digest
    assert store.find("app").digest == new
    assert [(image.digest, image.names) for image in store.images()] == [(new, ["app:latest"]), (old, [])]
    store.remove(old)
    assert contents(store) == [1, 1, 0, 0]


def test_remove_keeps_shared_layers(load: Load, store: ImageStore) -> None:
    """A layer is removed with the last image that has it."""
    load(ONE, TWO, name="a")
    load(ONE, THREE, name="b")
    removed = store.remove("a")
    assert (removed.names, len(removed.layers), removed.bytes) == (["a:latest"], 1, 300)
    assert contents(store) == [1, 2, 0, 0]
    assert len(store.remove("b").layers) == 2
    assert contents(store) == [0, 0, 0, 0]


def test_remove_one_of_two_names(load: Load, store: ImageStore) -> None:
    """Removing a name keeps the image under its other names."""
    load(ONE, name="a")
    load(ONE, name="b")
    assert store.remove("a").layers == []
    assert store.find("b").names == ["b:latest"]


def test_an_image_used_by_containers_is_kept(load: Load, store: ImageStore) -> None:
    """An image in use is not removed; with force it is, and its layers with the last container."""
    load(ONE, name="a")
    prepare_rootfs(store, "a", "c1")
    prepare_rootfs(store, "a", "c2")
    with pytest.raises(InUseError, match="c1, c2"):
        store.remove("a")
    store.remove("a", force=True)
    assert contents(store) == [0, 1, 2, 0]
    release_rootfs(store, "c1")
    assert contents(store) == [0, 1, 1, 0]
    release_rootfs(store, "c2")
    assert contents(store) == [0, 0, 0, 0]


def test_second_import_waits_or_is_an_error(load: Load, store: ImageStore) -> None:
    """While one import locks the store, another gets an error; a container can still be prepared."""
    load(ONE, name="a")
    with store.import_lock(wait=False):
        with pytest.raises(InUseError, match="another import"):
            load(TWO, wait=False)
        prepare_rootfs(store, "a", "c1")
        release_rootfs(store, "c1")


IMPORT = "import sys; from ringfence_runtime.images.cli import main; sys.exit(main(sys.argv[1:]))"


def run(store: ImageStore, *argv: str, code: str = IMPORT) -> subprocess.Popen[bytes]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-c", code, "--image-root", store.root, *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_parallel_imports(store: ImageStore, new_layout: NewLayout) -> None:
    """Four concurrent imports of images that share a
    layer: all succeed, with one copy of the layer.
    """
    children = []
    for number in range(4):
        layout = new_layout()
        layout.add(layout.image(ONE, layer(file(b"own%d" % number))))
        children.append(run(store, "import", str(layout.path), "--name", f"i{number}"))
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    assert contents(store) == [4, 5, 0, 0]


KILLED = """
import os, signal, sys
step, count = int(sys.argv.pop(1)), 0
def hook(name, args):
    global count
    if name in ("os.mkdir", "os.rename", "os.chmod", "os.link", "os.remove", "os.setxattr"):
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from ringfence_runtime.images.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_killed_at_every_step(store: ImageStore, new_layout: NewLayout) -> None:
    """An import killed before any of its changes leaves
    a working store, and nothing after the next sweep.
    """
    layout = new_layout()
    layout.add(layout.image(ONE, TWO))
    kept = new_layout()
    kept.add(kept.image(ONE, THREE))
    import_image(store, str(kept.path), Options(name="kept", durable=False))
    for step in range(1, 60):
        command = [sys.executable, "-c", KILLED, str(step), "--image-root", store.root, "import"]
        child = subprocess.run(
            [*command, str(layout.path), "--name", "new"], capture_output=True, check=False
        )
        # Everything listed is complete.
        for image in store.images():
            assert all(os.path.exists(f"{store.layer(each)}/layer.json") for each in image.layers)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        store.sweep()
        assert os.listdir(f"{store.root}/tmp") == []
        for image in store.images():
            if "kept:latest" not in image.names:
                store.remove(image.digest)
        assert contents(store) == [1, 2, 0, 0]
    else:
        pytest.fail("the import never ended by itself")
    assert step > 8
    assert len(store.find("new").layers) == 2


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A private filesystem of 512 KiB and 64 inodes."""
    path = tmp_path / "small"
    path.mkdir()
    syscalls.mount("tmpfs", str(path), "tmpfs", 0, "size=512k,nr_inodes=64,mode=700")
    yield path
    syscalls.umount2(str(path), syscalls.MNT_DETACH)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_full_disk(what: str, small: Path, new_layout: NewLayout) -> None:
    """A full disk is reported, the import is undone, and a smaller image fits afterwards."""
    store = ImageStore(str(small / "store"))
    big = (
        layer(file(b"big", bytes(600 << 10)))
        if what == "bytes"
        else layer(*[file(b"%d" % n) for n in range(99)])
    )
    layout, fits = new_layout(), new_layout()
    layout.add(layout.image(ONE, big))
    fits.add(fits.image(ONE))
    with pytest.raises(FullError) as caught:
        import_image(store, str(layout.path), Options(durable=False))
    assert "No space left" in caught.value.message
    assert contents(store) == [0, 0, 0, 0]
    import_image(store, str(fits.path), Options(name="fits"))
    assert contents(store) == [1, 1, 0, 0]


def test_full_disk_while_committing(load: Load, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are in place, and the image's record cannot
    be written: the next sweep removes the layers.
    """

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "_sync_directory", full)
        patch.setattr(importer, "_record", full)
        with pytest.raises(FullError):
            load(ONE)
    assert store.images() == []
    store.sweep()
    assert contents(store) == [0, 0, 0, 0]


def test_damaged_record(load: Load, store: ImageStore) -> None:
    """An invalid JSON record is an error that says what to do."""
    load(ONE, name="a")
    (entry,) = Path(store.root, "images").iterdir()
    entry.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        store.images()


def test_store_is_private(store: ImageStore, tmp_path: Path) -> None:
    """Layers hold setuid programs of other systems: other users
    may not reach them; a foreign directory is refused as a store.
    """
    assert os.stat(store.root).st_mode & 0o777 == 0o700
    os.chmod(store.root, 0o755)
    ImageStore(store.root)
    assert os.stat(store.root).st_mode & 0o777 == 0o700
    (tmp_path / "foreign").mkdir()
    os.chown(tmp_path / "foreign", 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        ImageStore(str(tmp_path / "foreign"))
    (tmp_path / "link").symlink_to(tmp_path / "foreign")
    with pytest.raises(StoreError):
        ImageStore(str(tmp_path / "link"))


def test_import_ends_when_its_holder_is_killed(store: ImageStore, load: Load) -> None:
    """The lock of a killed import is released at once."""
    code = (
        "import sys, time; from ringfence_runtime.images import ImageStore\n"
        "with ImageStore(sys.argv[2]).import_lock(wait=True): print('locked', flush=True); time.sleep(600)"
    )
    child = run(store, code=code)
    assert child.stdout is not None
    assert child.stdout.readline() == b"locked\n"
    with pytest.raises(InUseError):
        load(ONE, wait=False)
    child.kill()
    child.communicate()
    wait_for(lambda: load(ONE, wait=False) is not None, "the lock is free")
