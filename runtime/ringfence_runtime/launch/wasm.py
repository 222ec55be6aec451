# SPDX-License-Identifier: Apache-2.0
"""A container whose program is a WebAssembly module: the configuration of the container that executes it.

The module is compiled outside the container (`wasmcode`). The container gets two mounts: the engine's
directory and the compiled code. Its program becomes native/wasm.c, which is executed after all fences, as any
other. The container gets no kernel filesystems: the host functions could open /proc/self/mem through them.
This module reads no file of the image but the program itself, and never the image's own annotations.
"""

from __future__ import annotations

import errno
import os
import stat

import ringfence_runtime
from ringfence_linux import syscalls
from ringfence_linux.enroll import WASM
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.launch.paths import open_in_root
from ringfence_runtime.spec.mounts import Mount
from ringfence_runtime.spec.node import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.process import Process

__all__ = [
    "DEADLINE",
    "MAGIC",
    "MOST_BYTES",
    "OWN",
    "PLACE",
    "has_deadline",
    "open_program",
    "read_module",
    "rewrite",
    "rewritten",
    "wanted",
]

#: the annotation of this runtime: "true"
OWN = "ringfence.io/wasm"
#: milliseconds until the module is ended
DEADLINE = "ringfence.io/wasm-deadline-ms"
#: the engine's directory in the container
PLACE = "/run/.ringfence-wasm"
#: the magic number of modules and components, and a module's version and layer (core specification, 5.5.16)
MAGIC, MODULE = b"\0asm", b"\1\0\0\0"
MOST_BYTES = 64 << 20  # as in native/wasm.c
# crun's annotations and words (src/libcrun/handlers/handler-utils.c): True where the magic number decides.
_WORDS = {
    "run.oci.handler": {"wasm": False, "wasm-smart": True},
    "module.wasm.image/variant": {"compat": False, "compat-smart": True},
}
_KERNEL_TYPES = frozenset(
    ("proc", "sysfs", "cgroup", "cgroup2", "mqueue", "bpf", "debugfs", "tracefs", "securityfs")
)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES)


def wanted(annotations: dict[str, str]) -> str:
    """Returns "always", "smart" (if the program is a module), or "" if no annotation asks for WebAssembly."""
    own = annotations.get(OWN, "")
    if own not in ("", "true", "false"):
        raise SpecError(f"annotations.{OWN}", f"{own!a} is not 'true' or 'false'")
    if own:
        return "always" if own == "true" else ""
    for key, words in _WORDS.items():
        smart = words.get(annotations.get(key, ""))
        if smart is not None:
            return "smart" if smart else "always"
    return ""


def rewrite(config: Config, bundle: str, options: Options) -> Config:
    """Returns the configuration that executes the module; `config` itself if the program is no module."""
    fd = open_program(config, bundle, options)
    if fd < 0:
        return config
    try:
        data = read_module(fd, config)
    finally:
        os.close(fd)
    if not data:
        return config
    from ringfence_runtime.launch.wasmcode import compiled

    return rewritten(config, compiled(data, interruptible=has_deadline(config)))


def rewritten(config: Config, code: str) -> Config:
    """Returns the configuration that executes this native code."""
    from copy import copy

    process = config.process
    assert process is not None
    result = copy(config)
    result.handler = WASM
    result.mounts = (*(mount for mount in config.mounts if not _is_kernels(mount)), *_mounts(code))
    result.process = copy(process)
    result.process.args = _arguments(config, process, result.mounts)
    # The prefix keeps them from the dynamic loader (LD_PRELOAD) and the C library.
    result.process.env = tuple(f"W_{item}" for item in _environment(process))
    result.linux = copy(config.linux)
    # The dynamic loader would read it, and load the image's own libraries.
    result.linux.masked = (*config.linux.masked, "/etc/ld.so.preload")
    return result


def has_deadline(config: Config) -> bool:
    """Returns True if the code must be interruptible."""
    return _deadline(config) > 0


def _deadline(config: Config) -> int:
    text = config.annotations.get(DEADLINE, "0")
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise SpecError(f"annotations.{DEADLINE}", f"{text!a} is not a number of milliseconds")
    return int(text)


def _is_kernels(mount: Mount) -> bool:
    """Returns True for a filesystem of the kernel, also if it is bound from the host."""
    path = os.path.normpath(mount.destination)
    return mount.type in _KERNEL_TYPES or f"{path}/".startswith(("/proc/", "/sys/"))


def _mounts(code: str) -> tuple[Mount, Mount]:
    return _bind(PLACE, ringfence_runtime.ENGINE[0]), _bind(f"{PLACE}/code", code)


def _bind(destination: str, source: str) -> Mount:
    options = ["bind", "ro", "nosuid", "nodev", "private"]
    whole = {"destination": destination, "type": "bind", "source": source, "options": options}
    return Mount(Node(whole, "wasm"))


def _arguments(config: Config, process: Process, mounts: tuple[Mount, ...]) -> tuple[str, ...]:
    """The host program's arguments (native/wasm.c, `parse`)."""
    words = [f"{PLACE}/wasm", "run", f"{PLACE}/code"]
    words += ["-r" if config.root_readonly else "-w", "/"]
    for mount in mounts[:-2]:
        writable = not (mount.attr_set | mount.rattr_set) & syscalls.MOUNT_ATTR_RDONLY
        words += ["-w" if writable else "-r", os.path.normpath(mount.destination)]
    if (memory := config.linux.resources.memory) is not None and memory > 0:
        words += ["-m", str(memory)]
    if deadline := _deadline(config):
        words += ["-d", str(deadline)]
    return (*words, "--", *process.args)


def _environment(process: Process) -> tuple[str, ...]:
    """WASI has no working directory. Go's programs take it from PWD; wasi-libc begins at /."""
    given = tuple(process.env)
    return given if any(item.startswith("PWD=") for item in given) else (*given, f"PWD={process.cwd}")


def open_program(config: Config, bundle: str, options: Options) -> int:
    """Opens the program if it may be a module. Returns -1 if no annotation asks for WebAssembly."""
    process = config.process
    if not wanted(config.annotations) or process is None or not process.args:
        return -1
    name = process.args[0]
    if "/" in name:
        paths = [os.path.join(process.cwd, name)]
    else:
        search = next((item[5:] for item in process.env if item.startswith("PATH=")), "")
        paths = [os.path.join("/", place, name) for place in (*search.split(":"), process.cwd)]
    for path in paths:
        fd = _open_program(config, os.path.normpath(path), bundle, options)
        if fd >= 0:
            return fd
    raise SpecError("process.args[0]", f"{name!a} is not a file of the container")


def _open_program(config: Config, path: str, bundle: str, options: Options) -> int:
    """Opens a file of the container as it will be mounted; -1 if it does not exist or is no regular file."""
    root, inner = options.rootfs_fd, path
    source = os.path.join(bundle, config.root_path) if root < 0 else ""
    for mount in config.mounts:
        place = os.path.normpath(mount.destination)
        if mount.bind and f"{path}/".startswith(f"{place}/"):
            source, inner = os.path.join(bundle, mount.source), path[len(place) :]
    try:
        if source and not inner.strip("/"):
            fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        elif source:
            top = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fd = open_in_root(top, inner, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(top)
        else:
            fd = open_in_root(root, inner, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return -1
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1


def read_module(fd: int, config: Config) -> bytes:
    """Returns the bytes of the module; none if it is another program and the magic number decides."""
    assert config.process is not None
    name = config.process.args[0]
    data = os.read(fd, 1 << 12)
    if not data.startswith(MAGIC):
        if wanted(config.annotations) == "smart":
            return b""
        raise SpecError("process.args[0]", f"{name!a} is not a WebAssembly module")
    if data[4:8] != MODULE:
        raise SpecError("process.args[0]", "is a component or another version; modules of version 1 run")
    parts, size = [data], len(data)
    while part := os.read(fd, 1 << 20):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise Error(f"the module {name!a} has more than {MOST_BYTES >> 20} MiB")
    return b"".join(parts)
