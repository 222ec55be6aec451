# SPDX-License-Identifier: Apache-2.0
"""Root filesystems for containers: an image with a private layer, a directory, or the host's.

`prepare_rootfs` only describes and creates directories; `mounting.open_rootfs` mounts. A container's
layers are recorded on disk before their use, so `release_rootfs` (or a sweep) works after a crash at
any point. Imported by launches: keep it light.
"""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.images.errors import (
    ImageError,
    ImageNotFoundError,
    InUseError,
    StoreError,
    show,
    store_error,
)
from ringfence_runtime.images.hostroot import host_binds, host_masks
from ringfence_runtime.images.records import read_json, write_json
from ringfence_runtime.images.store import ImageStore
from ringfence_runtime.images.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence_runtime.images.records import Image

__all__ = ["HOST", "Rootfs", "load_rootfs", "prepare_rootfs", "release_rootfs"]

HOST = "host"
UMOUNT_NOFOLLOW = 8
_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Rootfs:
    """The description of one root filesystem for mounting.

    `kind` is `overlay` (with `lower`, top first, `upper` and `work`), or `bind` (of `path`). `merged` is an
    empty directory to mount at, if needed. For the host's root, `binds` are further mounts of the host
    that belong to it, `masked` are hidden paths and `scratch` are paths for an empty tmpfs.
    """

    __slots__ = (
        "binds",
        "devices",
        "image",
        "kind",
        "lower",
        "masked",
        "merged",
        "path",
        "read_only",
        "scratch",
        "upper",
        "userxattr",
        "work",
    )

    def __init__(self, kind: str, *, merged: str, read_only: bool = False) -> None:
        self.kind = kind
        self.merged = merged
        self.read_only = read_only
        self.lower: tuple[str, ...] = ()
        self.upper = self.work = self.path = self.image = ""
        self.userxattr = self.devices = False
        self.binds: tuple[str, ...] = ()
        self.masked: tuple[str, ...] = ()
        self.scratch: tuple[str, ...] = ()


def _check_id(container_id: str) -> str:
    bad = set(container_id) - _ID_LETTERS or container_id in ("", ".", "..") or len(container_id) > 255
    if bad:
        raise ImageError(f"invalid container id {show(container_id)}")
    return container_id


def prepare_rootfs(store: ImageStore, source: str, container_id: str, *, read_only: bool = False) -> Rootfs:
    """Prepares a container's root filesystem from an image's name, a directory (absolute) or `host`.

    The image stays in use until `release_rootfs`. Raises InUseError if the id already has one.
    """
    directory = f"{store.root}/containers/{_check_id(container_id)}"
    try:
        with store.lock():
            image = None if source == HOST or source.startswith("/") else store.find(source)
            if read_json(f"{directory}/container.json") is not None:
                raise InUseError(f"container {container_id} already has a root filesystem",
                                 hint="delete the container first")  # fmt: skip
            os.makedirs(directory, 0o700, exist_ok=True)
            try:
                data = _describe(store, source, image, read_only=read_only)
                _directories(store, directory, data)
                write_json(f"{directory}/container.json", data, durable=False)
            except BaseException:
                _remove(store, container_id)
                raise
    except OSError as error:
        raise store_error(f"preparing a root filesystem for {container_id}", error) from None
    return _load(store, container_id, data)


def _describe(store: ImageStore, source: str, image: Image | None, *, read_only: bool) -> dict[str, Any]:
    if image is not None:
        layers = image.layers
        devices = False
        for layer in layers:
            known = read_json(f"{store.layer(layer)}/layer.json")
            if known is None:
                raise StoreError(
                    f"layer {layer} of image {show(source)} is missing", hint="import the image again"
                )
            devices = devices or bool(known["facts"]["devices"])
            if known["facts"]["opaque_root"]:
                layers = layers[layers.index(layer) :]
        return {"kind": "overlay", "image": image.digest, "layers": layers, "read_only": read_only,
                "devices": devices, "path": ""}  # fmt: skip
    path = "/" if source == HOST else os.path.abspath(source)
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise ImageError(f"{show(path)} is not a directory")
    if source != HOST and path == "/":
        raise ImageError(
            "the host's root directory cannot be a container's", hint="--rootfs host provides it read-only"
        )
    return {"kind": HOST if source == HOST else "bind", "image": "", "layers": [],
            "read_only": read_only or source == HOST, "devices": False, "path": path}  # fmt: skip


def _lower(store: ImageStore, layers: list[str]) -> list[str]:
    """Returns the layers, top first, each once: overlayfs refuses duplicates, and the upper one counts."""
    return [f"{store.layer(layer)}/root" for layer in dict.fromkeys(reversed(layers))]


def _directories(store: ImageStore, directory: str, data: dict[str, Any]) -> None:
    names = ("merged", "upper", "work") if data["kind"] == "overlay" else ("merged",)
    for name in names:
        os.makedirs(f"{directory}/{name}", 0o700, exist_ok=True)
    lower = _lower(store, data["layers"])
    if data["kind"] == "overlay" and not lower:
        os.makedirs(f"{directory}/empty", 0o755, exist_ok=True)
    if lower:
        # A container sees the upper root directory: it needs the attributes of the image's.
        status = os.stat(lower[0])
        os.chown(f"{directory}/upper", status.st_uid, status.st_gid)
        os.chmod(f"{directory}/upper", status.st_mode & 0o7777)
    elif data["kind"] == "overlay":
        os.chmod(f"{directory}/upper", 0o755)


def load_rootfs(store: ImageStore, container_id: str) -> Rootfs:
    """Returns the description of a prepared root filesystem."""
    data = read_json(f"{store.root}/containers/{_check_id(container_id)}/container.json")
    if data is None:
        raise ImageNotFoundError(f"container {container_id} has no root filesystem in the store")
    return _load(store, container_id, data)


def _load(store: ImageStore, container_id: str, data: dict[str, Any]) -> Rootfs:
    directory = f"{store.root}/containers/{container_id}"
    overlay = data["kind"] == "overlay"
    rootfs = Rootfs(
        "overlay" if overlay else "bind", merged=f"{directory}/merged", read_only=data["read_only"]
    )
    rootfs.image = data["image"]
    rootfs.devices = data["devices"]
    rootfs.path = data["path"]
    if overlay:
        rootfs.lower = tuple(_lower(store, data["layers"])) or (f"{directory}/empty",)
        rootfs.upper, rootfs.work = f"{directory}/upper", f"{directory}/work"
        rootfs.userxattr = store.overlay == "user"
    elif data["kind"] == HOST:
        rootfs.binds = host_binds()
        rootfs.masked, rootfs.scratch = host_masks(store.root)
    return rootfs


def release_rootfs(store: ImageStore, container_id: str) -> bool:
    """Unmounts `merged`, removes the upper layer and releases the image. Returns False if it had none.

    Layers without an image (after a forced removal) are removed with their last container.
    """
    directory = f"{store.root}/containers/{_check_id(container_id)}"
    if not os.path.lexists(directory):
        return False
    try:
        _unmount(directory)
        with store.lock():
            data = read_json(f"{directory}/container.json") if os.path.lexists(directory) else None
            trash = f"container-{os.urandom(16).hex()}"
            try:
                os.rename(directory, f"{store.root}/tmp/{trash}")
            except FileNotFoundError:
                return False
        _remove_below(f"{store.root}/tmp", trash)
    except OSError as error:
        raise store_error(f"releasing the root filesystem of {container_id}", error) from None
    if data is not None and data["image"] and not _named(store, data["image"]):
        try:
            store.sweep(wait=False)
        except InUseError:
            pass  # the import that holds the lock is followed by another sweep
    return True


def _named(store: ImageStore, digest: str) -> bool:
    return read_json(f"{store.root}/images/{digest.replace(':', '-')}.json") is not None


def _unmount(directory: str) -> None:
    """Unmounts `merged`, and mapped layers that a crash during a mount left."""
    places = [f"{directory}/merged"]
    if os.path.isdir(f"{directory}/mapped"):
        places += [f"{directory}/mapped/{name}" for name in os.listdir(f"{directory}/mapped")]
    for place in places:
        while _umounted(place):
            pass


def _umounted(place: str) -> bool:
    """Unmounts; returns False if nothing is mounted (os.path.ismount fails for some bind mounts)."""
    try:
        syscalls.umount2(place, syscalls.MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def _remove(store: ImageStore, container_id: str) -> None:
    _remove_below(f"{store.root}/containers", container_id)


def _remove_below(directory: str, name: str) -> None:
    fd = os.open(directory, _DIRECTORY)
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)
