# SPDX-License-Identifier: Apache-2.0
"""Native code of WebAssembly modules: compiled once by a process with no rights, and kept in a cache of root.

The name of an entry is the digest of all that the code depends on: the module, the engine, the processor
and the settings. Each entry has the digest of its own bytes beside it, and an entry that does not match is
compiled again. So a module can only produce the code of containers that execute this very module.
"""

from __future__ import annotations

import fcntl
import os
import time

import ringfence_runtime
from ringfence_runtime.errors import Error

__all__ = ["MOST_BYTES", "SECONDS_BETWEEN_USES", "cached", "check_directory", "compiled"]

#: of all entries
MOST_BYTES = 1 << 30
#: the use of an entry is written down this often
SECONDS_BETWEEN_USES = 3600.0
_NO_ENGINE = (
    "the package wasmtime has the engine: pip install 'ringfence[wasm]', and install the runtime again"
)


def compiled(module: bytes, *, interruptible: bool) -> str:
    """Returns the path of the module's native code, which it compiles if the cache has none."""
    directory = check_directory()
    path = f"{directory}/{_key(module, interruptible=interruptible)}"
    if not _is_intact(path):
        lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_intact(path):
                _make(module, path, interruptible=interruptible)
                _shrink(directory, path)
        finally:
            os.close(lock)
    _note_use(path)
    return path


def cached(module: bytes, *, interruptible: bool) -> str:
    """Returns the path of the module's native code, or an empty string if the cache has none."""
    path = f"{check_directory()}/{_key(module, interruptible=interruptible)}"
    if not _is_intact(path):
        return ""
    _note_use(path)
    return path


def _note_use(path: str) -> None:
    if time.time() - os.stat(path).st_mtime > SECONDS_BETWEEN_USES:
        os.utime(path)


def check_directory() -> str:
    """Returns the directory of native code. Raises an error if its code cannot be trusted."""
    if not ringfence_runtime.ENGINE[0]:
        raise Error("this runtime was installed without an engine for WebAssembly", hint=_NO_ENGINE)
    if os.geteuid() != 0:
        raise Error("WebAssembly needs root: the cache of native code is root's")
    path = ringfence_runtime.ENGINE[2]
    os.makedirs(path, 0o700, exist_ok=True)
    status = os.stat(path)
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise Error(f"{path} can be written by others than root: its native code is not trusted")
    return path


def _key(module: bytes, *, interruptible: bool) -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        processor = next((line for line in file if line.startswith(("flags", "Features"))), "")
    from hashlib import sha256  # for modules alone: it loads OpenSSL, 2 MB of a launcher

    whole = sha256(sha256(module).digest())
    for part in (ringfence_runtime.ENGINE[1], processor, str(interruptible)):
        whole.update(f"\n{part}".encode())
    return whole.hexdigest()


def _is_intact(path: str) -> bool:
    try:
        with open(f"{path}.sum", encoding="ascii") as total:
            return _sum_of(path) == total.read()
    except (OSError, ValueError):
        return False


def _sum_of(path: str) -> str:
    from hashlib import sha256  # as in _key

    with open(path, "rb") as code:
        return sha256(code.read()).hexdigest()


def _make(module: bytes, path: str, *, interruptible: bool) -> None:
    new = f"{path}.new"
    try:
        _run_compiler(module, new, interruptible=interruptible)
        total = _sum_of(new)
        with open(f"{path}.sum", "w", encoding="ascii") as file:
            file.write(total)
        os.chmod(new, 0o444)
        os.rename(new, path)
    finally:
        try:
            os.unlink(new)
        except FileNotFoundError:
            pass


def _run_compiler(module: bytes, path: str, *, interruptible: bool) -> None:
    """Executes `wasm compile` (native/wasm.c), which gives up its rights before it reads the module."""
    source = os.memfd_create("module")
    output = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    said = os.memfd_create("errors")
    try:
        view = memoryview(module)
        while view:
            view = view[os.write(source, view) :]
        os.lseek(source, 0, os.SEEK_SET)
        code = _spawn((source, output, said), interruptible=interruptible)
        text = os.pread(said, 600, 0).decode(errors="replace").strip()
    finally:
        for fd in (source, output, said):
            os.close(fd)
    if code:
        ended = f"signal {-code}" if code < 0 else f"code {code}"
        raise Error(ascii(text).strip("'\"") if text else f"the compiler of WebAssembly ended with {ended}")


def _spawn(streams: tuple[int, int, int], *, interruptible: bool) -> int:
    engine = ringfence_runtime.ENGINE[0]
    loader = [f"{engine}/ld.so", "--library-path", engine, f"{engine}/wasm"]
    pid = os.posix_spawn(
        loader[0],
        [*loader, "compile", *(["-e"] if interruptible else [])],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
    )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _shrink(directory: str, kept: str) -> None:
    """Removes the entries that were used longest ago, until the others fit."""
    entries = []
    for entry in os.scandir(directory):
        if not entry.name.endswith((".sum", ".new")) and entry.name != "lock":
            status = entry.stat()
            entries.append((status.st_mtime, status.st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MOST_BYTES:
            break
        if path != kept:
            os.unlink(path)
            os.unlink(f"{path}.sum")
            total -= size
