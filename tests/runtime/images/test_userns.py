# SPDX-License-Identifier: Apache-2.0
"""User namespaces: layers seen with other owners, and a store used without the host's root."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ringfence_linux import syscalls
from ringfence_runtime.images import (
    ImageStore,
    Imported,
    Options,
    import_image,
    mounting,
    open_rootfs,
    prepare_rootfs,
    release_rootfs,
)
from tests.runtime.images.layouts import Layout, directory, file, layer
from tests.runtime.images.roots import LOWER, UPPER, mounts_below, opened
from tests.support import force

Load = Callable[..., Imported]


def need_idmapped_mounts(userns: int, path: str) -> None:
    """tmpfs supports them from 6.3 on, other filesystems from different versions."""
    tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
    try:
        syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns=userns)
    except OSError:
        force.elsewhere("this filesystem has no idmapped mounts")
    finally:
        os.close(tree)


@contextmanager
def user_namespace() -> Iterator[int]:
    """A descriptor of a user namespace in which 0 to 65535 are the host's 100000 to 165535."""
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(go, b"x")
            signal.pause()
        os._exit(1)
    os.close(go)
    try:
        assert os.read(ready, 1) == b"x"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text("0 100000 65536")
        fd = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
        yield fd
        os.close(fd)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_user_namespace(load: Load, store: ImageStore) -> None:
    """Layers are seen with the namespace's owners and not copied; its root owns what it writes."""
    done = load(layer(directory(b"./"), file(b"f", b"old", uid=7), directory(b"d", uid=9)), name="image")
    rootfs = prepare_rootfs(store, "image", "c1")
    with user_namespace() as userns:
        need_idmapped_mounts(userns, store.root)
        fd = open_rootfs(rootfs, userns=userns)
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                syscalls.setns(userns, syscalls.CLONE_NEWUSER)
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                os.fchdir(fd)
                assert [os.stat(name).st_uid for name in (".", "f", "d")] == [0, 7, 9]
                Path("d/new").write_text("1")
                os.chown("f", 8, 8)
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        os.close(fd)
    upper = Path(rootfs.upper)
    assert [os.stat(upper / name).st_uid for name in (".", "f", "d", "d/new")] == [
        100000,
        100008,
        100009,
        100000,
    ]
    assert os.stat(f"{store.layer(done.image.layers[0])}/root/f").st_uid == 7
    assert mounts_below(store.root) == []
    release_rootfs(store, "c1")
    assert os.listdir(f"{store.root}/containers") == []


def test_mapped_layers_after_a_crash(load: Load, store: ImageStore) -> None:
    """A runtime killed between mapping and mounting leaves
    mounts: release removes them, layers are unchanged.
    """
    load(LOWER, name="image")
    rootfs = prepare_rootfs(store, "image", "c1")
    with user_namespace() as userns:
        need_idmapped_mounts(userns, store.root)
        mounting._MappedLayers(rootfs, userns).__enter__()
    assert len(mounts_below(store.root)) == 1
    release_rootfs(store, "c1")
    assert mounts_below(store.root) == []
    assert os.path.exists(f"{rootfs.lower[0]}/etc/a")


def in_user_namespace(work: Callable[[], None]) -> int:
    """Run `work` as root of a user and mount namespace of its own; returns its wait status."""
    ready, mapped = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
            os.write(ready[1], b"x")
            os.read(mapped[0], 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            work()
            os._exit(0)
        os._exit(1)
    assert os.read(ready[0], 1) == b"x"
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text("0 100000 65536")
    os.write(mapped[1], b"x")
    status = os.waitpid(child, 0)[1]
    for fd in (*ready, *mapped):
        os.close(fd)
    return status


def test_store_of_a_user_namespace() -> None:
    """Without the host's root, overlayfs's marks are
    user attributes, and everything else is the same.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ringfence-test-") as name:
        base = Path(name)
        try:
            os.setxattr(base, "user.probe", b"1")
        except OSError:
            force.elsewhere("the filesystem of /var/tmp has no user attributes (tmpfs before 6.6)")
        layout = Layout(base / "layout")
        layout.add(layout.image(LOWER, UPPER))
        os.chmod(base, 0o755)
        (base / "own").mkdir()
        os.chown(base / "own", 100000, 100000)

        def work() -> None:
            store = ImageStore(str(base / "own/store"))
            assert store.overlay == "user"
            import_image(store, str(layout.path), Options(name="image", durable=False))
            with opened(prepare_rootfs(store, "image", "c1")) as root:
                assert sorted(os.listdir(root)) == ["etc", "opt", "out"]
                assert os.listdir(root / "opt") == ["new"]
                (root / "etc/b").write_text("changed")
            assert release_rootfs(store, "c1")

        assert in_user_namespace(work) == 0
