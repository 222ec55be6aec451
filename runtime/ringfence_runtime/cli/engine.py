# SPDX-License-Identifier: Apache-2.0
"""The engine for WebAssembly that `install` puts beside the runtime: PATH.wasm, a directory.

It holds the library of the package wasmtime, the libraries that this needs, the dynamic loader, and the host
program (native/wasm.c) linked with them at their place in a container. A container needs no library of its
own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess

from ringfence_runtime.errors import Error
from ringfence_runtime.launch.wasm import PLACE

__all__ = ["find_library", "install_engine"]

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
