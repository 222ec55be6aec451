# SPDX-License-Identifier: Apache-2.0
"""The image store on disk: names, images, layers, and their users. Light: the launch path imports it.

    ROOT/format.json             version, and the overlayfs attribute namespace of its layers
    ROOT/import.lock             held by an import, a removal or a sweep for all of its time
    ROOT/lock                    held briefly to change names, images or containers
    ROOT/names.json              name -> manifest digest
    ROOT/images/DIGEST.json      one image
    ROOT/layers/DIFF_ID/         root/ (the files) and layer.json; comes into being by a rename, never changes
    ROOT/containers/ID/          container.json (the layers it holds), upper/ work/ merged/
    ROOT/tmp/                    leftovers of an interrupted import or removal; the next one sweeps them

ROOT is private to its owner (0700): layers contain other systems' setuid programs.
"""

from __future__ import annotations

import os

from ringfence_runtime.images.digest import file_name, is_digest
from ringfence_runtime.images.errors import ImageNotFoundError, InUseError, StoreError, show
from ringfence_runtime.images.lock import Lock
from ringfence_runtime.images.records import Image, check_name, read_json, usable_name, write_json
from ringfence_runtime.images.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DEFAULT_ROOT", "ImageStore", "Removed"]

DEFAULT_ROOT = "/var/lib/ringfence/images"
VERSION = 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Removed:
    """The result of a removal."""

    __slots__ = ("bytes", "layers", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.layers: list[str] = []
        self.bytes = 0


class ImageStore:
    """The store below one root. Opening it creates missing directories."""

    __slots__ = ("overlay", "root")

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        self.root = os.path.abspath(root)
        self.overlay = "trusted"
        try:
            self._open()
        except OSError as error:
            from ringfence_runtime.images.errors import store_error

            raise store_error(f"cannot open the image store {show(self.root)}", error) from None

    def _open(self) -> None:
        os.makedirs(self.root, 0o700, exist_ok=True)
        fd = os.open(self.root, _DIRECTORY)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise StoreError(f"the image store {show(self.root)} belongs to user {status.st_uid}")
            if status.st_mode & 0o777 != 0o700:
                os.fchmod(fd, 0o700)
        finally:
            os.close(fd)
        known = read_json(f"{self.root}/format.json")
        if known is None:
            known = self._initialise()
        if known["version"] != VERSION:
            raise StoreError(f"the image store has format {known['version']}; this program knows {VERSION}")
        self.overlay = known["overlay"]

    def _initialise(self) -> dict[str, Any]:
        with self.lock():
            known: dict[str, Any] | None = read_json(f"{self.root}/format.json")
            if known is not None:
                return known
            for name in ("images", "layers", "containers", "tmp"):
                os.makedirs(f"{self.root}/{name}", 0o700, exist_ok=True)
            made = {"version": VERSION, "overlay": _overlay_namespace(f"{self.root}/tmp")}
            write_json(f"{self.root}/format.json", made)
            return made

    def lock(self) -> Lock:
        """The short lock."""
        return Lock(f"{self.root}/lock")

    def import_lock(self, *, wait: bool) -> Lock:
        """The long lock: one import, removal or sweep at a time."""
        return Lock(
            f"{self.root}/import.lock", wait=wait, busy="another import or removal holds the image store"
        )

    def layer(self, diff_id: str) -> str:
        """The directory of a layer."""
        return f"{self.root}/layers/{file_name(diff_id)}"

    def names(self) -> dict[str, str]:
        """Name -> digest."""
        names: dict[str, str] = read_json(f"{self.root}/names.json") or {}
        return names

    def images(self) -> list[Image]:
        """Returns all images by name; those without a name are last."""
        by_digest: dict[str, list[str]] = {}
        for name, digest in sorted(self.names().items()):
            by_digest.setdefault(digest, []).append(name)
        found = []
        for entry in sorted(os.listdir(f"{self.root}/images")):
            if entry.endswith(".json"):
                data = read_json(f"{self.root}/images/{entry}")
                if data is not None:
                    found.append(Image(data, by_digest.get(data["manifest"], [])))
        return sorted(found, key=lambda image: (not image.names, image.names, image.digest))

    def find(self, name: str) -> Image:
        """Returns the image with a name, a digest, or a prefix (at least eight characters) of a digest."""
        digest = self._digest(name)
        if digest is not None:
            data = read_json(f"{self.root}/images/{file_name(digest)}.json")
            if data is not None:
                return Image(data, sorted(key for key, value in self.names().items() if value == digest))
        raise ImageNotFoundError(f"there is no image {show(name)}", hint="ringfence image list names them")

    def _digest(self, name: str) -> str | None:
        if is_digest(name):
            return name
        if not usable_name(name):
            check_name(name)
        known = self.names().get(check_name(name))
        prefix = name.removeprefix("sha256:")
        if known is None and len(prefix) >= 8 and prefix.isalnum():
            found = [entry.removesuffix(".json") for entry in os.listdir(f"{self.root}/images")
                     if entry.startswith(f"sha256-{prefix}") and entry.endswith(".json")]  # fmt: skip
            if len(found) > 1:
                raise ImageNotFoundError(f"{show(name)} begins the digest of {len(found)} images")
            known = found[0].replace("-", ":") if found else None
        return known

    def holders(self) -> dict[str, dict[str, Any]]:
        """Returns container id -> its record, for every prepared root filesystem."""
        found = {}
        for name in sorted(os.listdir(f"{self.root}/containers")):
            data = read_json(f"{self.root}/containers/{name}/container.json")
            if data is not None:
                found[name] = data
        return found

    def remove(self, name: str, *, force: bool = False, wait: bool = True) -> Removed:
        """Removes a name; with its last name also the image, and each unused layer.

        An image in use by containers is kept, unless `force`: then its layers are kept until the last
        container is released.
        """
        removed = Removed()
        with self.import_lock(wait=wait):
            with self.lock():
                image = self.find(name)
                names = self.names()
                gone = [check_name(name)] if usable_name(name) and check_name(name) in names else image.names
                left = [one for one in image.names if one not in gone]
                users = [user for user, held in self.holders().items() if held["image"] == image.digest]
                if users and not left and not force:
                    raise InUseError(f"image {show(name)} is in use by {', '.join(users[:10])}",
                                     hint="delete the containers first, or use --force")  # fmt: skip
                removed.names = gone
                write_json(f"{self.root}/names.json", {key: names[key] for key in names if key not in gone})
                if not left:
                    os.unlink(f"{self.root}/images/{file_name(image.digest)}.json")
            self._sweep(removed)
        return removed

    def sweep(self, *, wait: bool = True) -> Removed:
        """Removes leftovers of a crash, and unused layers."""
        removed = Removed()
        with self.import_lock(wait=wait):
            self._sweep(removed)
        return removed

    def _sweep(self, removed: Removed) -> None:
        self.sweep_temporary()
        with self.lock():
            held = {layer for image in self.images() for layer in image.layers}
            for data in self.holders().values():
                held.update(data["layers"])
            kept = {file_name(layer) for layer in held}
            doomed = [entry for entry in os.listdir(f"{self.root}/layers") if entry not in kept]
            for entry in doomed:
                data = read_json(f"{self.root}/layers/{entry}/layer.json")
                removed.bytes += data["facts"]["bytes"] if data else 0
                removed.layers.append(entry.replace("-", ":", 1))
                os.rename(f"{self.root}/layers/{entry}", f"{self.root}/tmp/layer-{entry}-{os.getpid()}")
            for entry in os.listdir(f"{self.root}/images"):
                if not entry.endswith(".json"):  # a record that was being written
                    os.unlink(f"{self.root}/images/{entry}")
            for entry in os.listdir(f"{self.root}/containers"):
                if not os.path.exists(f"{self.root}/containers/{entry}/container.json"):
                    os.rename(f"{self.root}/containers/{entry}", f"{self.root}/tmp/{os.urandom(16).hex()}")
        self.sweep_temporary()

    def sweep_temporary(self) -> None:
        """Empties tmp/. Requires the import lock, whose holder alone writes there."""
        fd = os.open(f"{self.root}/tmp", _DIRECTORY)
        try:
            for name in os.listdir(fd):
                remove_tree(fd, name)
        finally:
            os.close(fd)


def _overlay_namespace(directory: str) -> str:
    """Returns trusted, or user if trusted attributes cannot be set (overlayfs's `userxattr`)."""
    for namespace in ("trusted", "user"):
        try:
            os.setxattr(directory, f"{namespace}.overlay.probe", b"y")
            os.removexattr(directory, f"{namespace}.overlay.probe")
        except OSError:
            continue
        return namespace
    raise StoreError(f"the filesystem of {show(directory)} does not support extended attributes",
                     hint="use another --image-root for the store")  # fmt: skip
