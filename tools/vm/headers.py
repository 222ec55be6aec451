# SPDX-License-Identifier: Apache-2.0
"""Headers of the cached kernels, and modules built against them. Kept beside the kernel that they are for.

Headers of a suite that is newer than this machine name a newer compiler, and bring programs of their own that
want a newer C library: the machine's compiler leaves out the options that it does not know (cc.py), and the
programs get the C library of Debian unstable, unpacked beside them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.vm.apt import Apt
from tools.vm.catalogue import CATALOGUE, Prepared, cache_directory, locked

__all__ = ["build_module", "fetch_headers", "headers_of"]

HERE = Path(__file__).resolve().parent
SOURCES = (HERE / "exploit/rfexploit.c", HERE / "exploit/Kbuild")
LIBRARY_SUITE = "sid"
WRAPPER = """\
#!/bin/sh
exec {loader} --library-path {libraries} --argv0 "$0" {program} "$@"
"""


def fetch_headers(apt: Apt, kernel: Prepared, suite: str) -> None:
    """Unpack the headers of exactly this kernel beside it. RuntimeError where the mirror has them no more."""
    root = kernel.directory / "headers"
    wanted = f"linux-headers-{kernel.release}"
    if not apt.exists(wanted):
        raise RuntimeError(f"{suite} has no {wanted} any more: `python -m tools.vm fetch --renew`")
    depends = apt.depends(wanted, apt.version(wanted, suite))
    packages = [wanted, *(name for name in depends if re.match(r"linux-(headers|kbuild)-", name))]
    fresh = root.with_name("headers.new")
    shutil.rmtree(fresh, ignore_errors=True)
    apt.unpack((f"{name}/{suite}" for name in packages), fresh)
    for makefile in fresh.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        makefile.write_text(text.replace("/usr/src/", f"{root}/usr/src/"))
    if any(_wants_newer_library(program) for program in _programs(fresh)):
        newer = Apt(cache_directory() / "apt-library", [LIBRARY_SUITE])
        newer.unpack(["libc6"], fresh / "library")
        for program in [*_programs(fresh)]:
            _wrap(program, fresh, root)
    fresh.rename(root)


def _programs(tree: Path) -> Iterator[Path]:
    """The ELF programs that building a module runs."""
    for path in sorted(tree.glob("usr/lib/linux-kbuild-*/**/*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o100:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _wants_newer_library(program: Path) -> bool:
    """Whether the machine's C library is too old for it."""
    got = subprocess.run([str(program), "--help"], capture_output=True, check=False)
    return b"GLIBC_" in got.stderr


def _wrap(program: Path, tree: Path, final: Path) -> None:
    """Put a script in its place. `tree` will be `final`, and scripts need the final names."""
    real = program.with_name(f"{program.name}.program")
    program.rename(real)
    (loader,) = tree.glob("library/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    place = {"loader": loader, "libraries": loader.parent, "program": real}
    moved = {key: final / path.relative_to(tree) for key, path in place.items()}
    program.write_text(WRAPPER.format(**moved))
    program.chmod(0o755)


def headers_of(kernel: Prepared) -> Path:
    """The tree that modules are built against, fetched where it is not there yet."""
    root = kernel.directory / "headers"
    if not root.exists():
        suites = CATALOGUE[kernel.name].suites
        apt = Apt(cache_directory() / "apt", suites)
        found = apt.newest(re.escape(f"linux-headers-{kernel.release}"), suites)
        fetch_headers(apt, kernel, found.suite)
    tree = root / "usr/src" / f"linux-headers-{kernel.release}"
    link = kernel.modules / "build"  # where programs of the guest look for it
    if not link.is_symlink():
        link.symlink_to(tree)
    return tree


def build_module(kernel: Prepared) -> Path:
    """rfexploit.ko for this kernel, built where it is missing or older than its source.

    Raises RuntimeError where the headers are gone or the compiler refuses it.
    """
    target = kernel.directory / "rfexploit.ko"
    if target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in SOURCES):
        return target
    with locked(), tempfile.TemporaryDirectory() as work:
        for source in SOURCES:
            shutil.copy(source, work)
        compiler = f"CC={sys.executable} {HERE / 'cc.py'} gcc"
        argv = ["make", "-s", "-C", str(headers_of(kernel)), f"M={work}", compiler]
        argv += ["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the module for {kernel.release} was not built:\n{done.stderr[-2000:]}")
        shutil.copy(Path(work) / "rfexploit.ko", target.with_suffix(".new"))
    target.with_suffix(".new").rename(target)
    return target
