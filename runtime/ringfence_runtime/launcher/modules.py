# SPDX-License-Identifier: Apache-2.0
"""The WebAssembly modules that a launcher has started: it knows the native code of a file without reading it.

A file is the same as before if its inode, size and times are: no user can set the time of a change (ctime). A
file of another content has other code, or none: a mistake here would start older code of this very file.
"""

from __future__ import annotations

import os
import time

from ringfence_runtime.launch import wasm
from ringfence_runtime.launch.wasmcode import SECONDS_BETWEEN_USES, cached, check_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.spec.config import Config

__all__ = ["Modules"]

# A larger one is read by a worker, because the launcher does nothing else while it reads.
_MOST_READ = 16 << 20
_MOST_KNOWN = 32
# A change this soon after the last one may leave the same ctime.
_SECONDS_OF_DOUBT = 2.0


class Modules:
    """What is known of the modules, and the configurations that execute them."""

    def __init__(self) -> None:
        # (file of the module, interruptible) -> (path of its code, file of the code)
        self._codes: dict[tuple[Any, ...], tuple[str, tuple[int, ...]]] = {}
        # The program of the native init is kept for a configuration, so that must stay the same object.
        self._configs: dict[tuple[Any, ...], Config] = {}

    def prepare(self, config: Config, bundle: str, options: Options) -> Config | None:
        """Returns the configuration to launch, or None if a worker must read or compile the module."""
        fd = wasm.open_program(config, bundle, options)
        if fd < 0:
            return config
        try:
            check_directory()
            code = self._known(fd, config)
            if code is None:
                code = self._find(fd, config)
        finally:
            os.close(fd)
        if not code:
            return None if code is None else config
        prepared = self._configs.get((config, code))
        if prepared is None:
            prepared = wasm.rewritten(config, code)
            _keep(self._configs, (config, code), prepared)
        return prepared

    def _known(self, fd: int, config: Config) -> str | None:
        code, before = self._codes.get(_key(os.fstat(fd), config), ("", ()))
        if not code:
            return None
        status = os.stat(code)
        is_due = time.time() - status.st_mtime > SECONDS_BETWEEN_USES
        return code if _identity(status) == before and not is_due else None

    def _find(self, fd: int, config: Config) -> str | None:
        """Returns the code's path; None if a worker must look; an empty string if it is no module."""
        status = os.fstat(fd)
        if status.st_size > _MOST_READ:
            return None
        data = wasm.read_module(fd, config)
        if not data:
            return ""
        code = cached(data, interruptible=wasm.has_deadline(config))
        if not code:
            return None
        if time.time() - status.st_ctime > _SECONDS_OF_DOUBT:
            _keep(self._codes, _key(status, config), (code, _identity(os.stat(code))))
        return code


def _keep(known: dict[tuple[Any, ...], Any], key: tuple[Any, ...], value: object) -> None:
    """Adds an entry, and forgets the oldest one if there are too many."""
    known.pop(key, None)
    if len(known) >= _MOST_KNOWN:
        known.pop(next(iter(known)))
    known[key] = value


def _key(status: os.stat_result, config: Config) -> tuple[Any, ...]:
    """`status` is the file's from before it was read."""
    return (*_identity(status), wasm.has_deadline(config))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
