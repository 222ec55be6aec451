# SPDX-License-Identifier: Apache-2.0
"""The engine for WebAssembly that `install` puts beside the runtime: PATH.wasm, a directory.

It holds the library of the package wasmtime, the libraries that this needs, the dynamic loader, and the host
program (native/wasm.c) linked with them at their place in a container. A container needs no library of its
own.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess

import ringfence_runtime
from ringfence_linux.atomicfile import replace_file
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.wasm import PLACE

__all__ = ["find_library", "install_engine", "use_engine"]

_NATIVE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "native")


def find_library() -> str:
    """Returns the path of the library in the package wasmtime of this interpreter, or an empty string."""
    found = importlib.util.find_spec("wasmtime")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = f"{place}/linux-{os.uname().machine}/_libwasmtime.so"
        if os.path.exists(path):
            return path
    return ""


def install_engine(library: str, target: str, compiler: str) -> str:
    """Writes the directory `target`, and returns the digest of its files."""
    if not os.path.isfile(library):
        raise Error(f"--wasm: {library} is not a file")
    new = f"{target}.new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new, 0o755)
    os.chmod(new, 0o755)
    shutil.copyfile(library, f"{new}/libwasmtime.so")
    for name, path in _needed(library):
        shutil.copyfile(path, f"{new}/{name}")
    _link(new, compiler)
    digest = hashlib.sha256()
    for name in sorted(os.listdir(new)):
        with open(f"{new}/{name}", "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        os.chmod(f"{new}/{name}", 0o755)
    with open(f"{new}/code", "wb"):
        pass  # the compiled module is mounted here
    shutil.rmtree(target, ignore_errors=True)
    os.rename(new, target)
    return digest.hexdigest()


def use_engine(directory: str) -> None:
    """Lets this process execute modules: installs the engine below `directory`, unless it is there.

    For `ringfence run`, which is not an installed runtime.
    """
    library = find_library()
    if not library:
        raise Error("there is no engine for WebAssembly", hint="pip install 'ringfence[wasm]'")
    name = _name(library)
    os.makedirs(directory, 0o700, exist_ok=True)
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{directory}/{name}.digest"):
            _install_only(library, directory, name)
    finally:
        os.close(lock)
    with open(f"{directory}/{name}.digest", encoding="ascii") as text:
        ringfence_runtime.ENGINE = (f"{directory}/{name}", text.read(), f"{directory}/code")


def _name(library: str) -> str:
    """Returns another name for another library, and for another host program."""
    status = os.stat(library)
    key = hashlib.sha256(f"{library} {status.st_size} {status.st_mtime_ns}".encode())
    for name in sorted(os.listdir(_NATIVE)):
        with open(f"{_NATIVE}/{name}", "rb") as file:
            key.update(hashlib.file_digest(file, "sha256").digest())
    return f"engine-{key.hexdigest()[:32]}"


def _install_only(library: str, directory: str, name: str) -> None:
    """Installs it and removes the engines of other versions. Running modules keep theirs open."""
    compiler = next((found for each in ("cc", "gcc", "clang") if (found := shutil.which(each))), None)
    if compiler is None:
        raise Error("the engine for WebAssembly needs a C compiler, once", hint="apt install gcc libc6-dev")
    for old in os.listdir(directory):
        if old.endswith(".digest"):
            os.unlink(f"{directory}/{old}")
            shutil.rmtree(f"{directory}/{old.removesuffix('.digest')}", ignore_errors=True)
    replace_file(f"{directory}/{name}.digest", install_engine(library, f"{directory}/{name}", compiler))


def _needed(library: str) -> list[tuple[str, str]]:
    """(name, path) of the libraries that it needs, and of the dynamic loader as `ld.so`."""
    listed = subprocess.run(["ldd", library], check=True, capture_output=True, text=True).stdout
    found = []
    for line in listed.splitlines():
        words = line.split()
        if "=>" in words and words[2].startswith("/"):
            found.append((words[0], words[2]))
        elif words[0].startswith("/"):
            # by both names: as the interpreter of the program, and as a library that others need
            found += [("ld.so", words[0]), (os.path.basename(words[0]), words[0])]
    if not any(name == "ld.so" for name, _ in found):
        raise Error(f"--wasm: {library} is not a library for this machine")
    return found


def _link(directory: str, compiler: str) -> None:
    command = [compiler, "-O2", "-Wall", "-o", f"{directory}/wasm"]
    command += [f"{_NATIVE}/{name}" for name in ("wasm.c", "wasm_fences.c")]
    command += ["-L", directory, "-l:libwasmtime.so", "-Wl,-z,now", f"-Wl,--dynamic-linker={PLACE}/ld.so"]
    command += [f"-Wl,--disable-new-dtags,-rpath,{PLACE}"]
    got = subprocess.run(command, check=False, capture_output=True, text=True)
    if got.returncode:
        raise Error(f"cannot compile the host of WebAssembly: {got.stderr.strip()[-400:]}")
