# SPDX-License-Identifier: Apache-2.0
"""Headers of the cached kernels, and modules built against them. Kept beside the kernel that they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.vm.apt import Apt
from tests.vm.catalogue import KERNELS, Prepared, cache_directory

__all__ = ["build_module"]

EXPLOIT = Path(__file__).resolve().parent / "exploit"


def _fetch(kernel: Prepared) -> Path:
    """The unpacked headers of exactly this kernel. RuntimeError where the mirror has them no more."""
    root = kernel.directory / "headers"
    if root.exists():
        return root
    suite = KERNELS[kernel.name].suite
    apt = Apt(cache_directory() / "apt", [suite])
    wanted = f"linux-headers-{kernel.release}"
    if not apt.exists(wanted):
        raise RuntimeError(f"{suite} has no {wanted} any more: fetch the kernel again")
    depends = apt.depends(wanted, apt.version(wanted, suite))
    packages = [wanted, *(name for name in depends if re.match(r"linux-(headers|kbuild)-", name))]
    fresh = root.with_name("headers.new")
    shutil.rmtree(fresh, ignore_errors=True)
    apt.unpack((f"{name}/{suite}" for name in packages), fresh)
    for makefile in fresh.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        makefile.write_text(text.replace("/usr/src/", f"{root}/usr/src/"))
    fresh.rename(root)
    return root


def build_module(kernel: Prepared) -> Path:
    """rfexploit.ko for this kernel, built where it is missing or older than its source."""
    target = kernel.directory / "rfexploit.ko"
    sources = [EXPLOIT / "rfexploit.c", EXPLOIT / "Kbuild"]
    if target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return target
    tree = _fetch(kernel) / "usr/src" / f"linux-headers-{kernel.release}"
    with tempfile.TemporaryDirectory() as work:
        for source in sources:
            shutil.copy(source, work)
        argv = ["make", "-s", "-C", str(tree), f"M={work}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the module for {kernel.release} was not built:\n{done.stderr[-2000:]}")
        shutil.copy(Path(work) / "rfexploit.ko", target.with_suffix(".new"))
    target.with_suffix(".new").rename(target)
    return target
