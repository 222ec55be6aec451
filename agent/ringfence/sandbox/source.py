# SPDX-License-Identifier: Apache-2.0
"""The source of a sandbox: an image of the store, a layout or archive to import, a directory, the host."""

from __future__ import annotations

import os
from typing import NamedTuple

from ringfence.sandbox.errors import SandboxError, UsageError
from ringfence.sandbox.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.images import ImageStore
    from ringfence_runtime.images.process import ProcessDefaults

__all__ = ["HOST", "Source", "resolve"]

#: the source that is the host's own root
HOST = "host"


class Source(NamedTuple):
    """A source in the image store's form."""

    source: str
    """a name, an absolute path or `host`"""
    image: str = ""
    defaults: ProcessDefaults | None = None
    is_module: bool = False
    """the program is a WebAssembly module"""


def resolve(request: Request, store: ImageStore) -> Source:
    """Resolves it. Text that looks like a path is one; everything else is a name in the store."""
    if request.is_rootfs:
        return Source(HOST if request.source == HOST else _directory(request.source))
    if request.source.startswith(("/", "./", "../")) or request.source in (".", ".."):
        path, reference = _split(request.source)
        if (
            os.path.isdir(path)
            and not os.path.exists(f"{path}/oci-layout")
            and not os.path.exists(f"{path}/index.json")
        ):
            return Source(_directory(path))
        return _imported(store, path, reference)
    return _stored(store, request.source)


def _directory(path: str) -> str:
    if not os.path.isdir(path):
        raise UsageError(f"{path} is not a directory", hint="--rootfs takes `host` or a directory")
    return os.path.realpath(path)


def _split(text: str) -> tuple[str, str]:
    """Splits `PATH[:REFERENCE]`; an existing path with a colon has precedence."""
    from ringfence_runtime.images.reference import split_reference

    path, reference = split_reference(text)
    if not os.path.lexists(path):
        raise UsageError(f"{text} does not exist", hint="names of images in the store have no ./ or /")
    return path, reference


def _imported(store: ImageStore, path: str, reference: str) -> Source:
    from ringfence_runtime.images import Options, import_image

    done = import_image(store, path, Options(reference=reference))
    return Source(done.image.digest, done.name, done.image.process, done.image.is_wasm)


def _stored(store: ImageStore, name: str) -> Source:
    from ringfence_runtime.images.errors import ImageNotFoundError

    try:
        image = store.find(name)
    except ImageNotFoundError as error:
        if name.endswith(".wasm") and os.path.isfile(name):
            return _imported(store, name, "")
        hint = f"ringfence image import PATH --name {name}"
        if os.path.exists(name):
            hint = f"for the file or directory of that name, write ./{name}"
        raise SandboxError(error.message, hint=hint) from None
    return Source(name, name, image.process, image.is_wasm)
