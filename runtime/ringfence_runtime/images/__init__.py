# SPDX-License-Identifier: Apache-2.0
"""Images: imported from an OCI layout, stored as overlayfs layers, mounted as root filesystems.

    store = ImageStore()                         # /var/lib/ringfence/images
    done = import_image(store, "alpine-layout")  # on failure ImageError, and nothing is kept
    rootfs = prepare_rootfs(store, "alpine-layout", container_id)
    fd = open_rootfs(rootfs)                     # a detached mount
    user = resolve_user(fd, done.image.process.user)
    release_rootfs(store, container_id)

Names are loaded on first use: a launch does not import the importer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.images.errors import ImageError
    from ringfence_runtime.images.importer import Imported, Options, import_image
    from ringfence_runtime.images.limits import Limits
    from ringfence_runtime.images.mounting import mount_rootfs, open_rootfs
    from ringfence_runtime.images.platforms import Platform
    from ringfence_runtime.images.process import ProcessDefaults
    from ringfence_runtime.images.records import Image
    from ringfence_runtime.images.rootfs import Rootfs, load_rootfs, prepare_rootfs, release_rootfs
    from ringfence_runtime.images.store import DEFAULT_ROOT, ImageStore
    from ringfence_runtime.images.users import User, resolve_user

__all__ = [
    "DEFAULT_ROOT",
    "Image",
    "ImageError",
    "ImageStore",
    "Imported",
    "Limits",
    "Options",
    "Platform",
    "ProcessDefaults",
    "Rootfs",
    "User",
    "import_image",
    "load_rootfs",
    "mount_rootfs",
    "open_rootfs",
    "prepare_rootfs",
    "release_rootfs",
    "resolve_user",
]

_WHERE = {
    "DEFAULT_ROOT": "store",
    "Image": "records",
    "ImageError": "errors",
    "ImageStore": "store",
    "Imported": "importer",
    "Limits": "limits",
    "Options": "importer",
    "Platform": "platforms",
    "ProcessDefaults": "process",
    "Rootfs": "rootfs",
    "User": "users",
    "import_image": "importer",
    "load_rootfs": "rootfs",
    "mount_rootfs": "mounting",
    "open_rootfs": "mounting",
    "prepare_rootfs": "rootfs",
    "release_rootfs": "rootfs",
    "resolve_user": "users",
}


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(name)
    full = f"{__name__}.{module}"
    return getattr(__import__(full, fromlist=[name]), name)
