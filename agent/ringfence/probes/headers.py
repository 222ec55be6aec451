# SPDX-License-Identifier: Apache-2.0
"""A header tree that bcc uses instead of the kernel's, made from the kernel's BTF, kept by build id.

bcc includes `include/linux/kconfig.h` first. This one includes every type of the running kernel,
dumped as C, and the macros that bcc's helpers need; other headers that they include are empty.
Offsets are those of this kernel, whatever headers are installed.
"""

from __future__ import annotations

import mmap
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from ringfence.errors import Error

__all__ = ["build_id", "find_bpftool", "has_raw_tracepoint", "header_tree"]

_NOTES = Path("/sys/kernel/notes")
_BTF = Path("/sys/kernel/btf/vmlinux")
_NT_GNU_BUILD_ID = 3
_TIMEOUT = 60  # seconds for the dump; it takes 0.3
_EMPTY = (
    "asm/page.h", "linux/ringfence_unknown.h", "linux/bpf.h", "linux/bpf_common.h", "linux/cgroup.h",
    "linux/compiler.h", "linux/errno.h", "linux/if_packet.h", "linux/kernel.h", "linux/log2.h",
    "linux/ptrace.h", "linux/sched.h", "linux/stddef.h", "linux/string.h", "linux/types.h",
    "uapi/linux/bpf.h", "uapi/linux/if_packet.h", "uapi/linux/ptrace.h",
)  # fmt: skip
_KCONFIG = """\
#ifndef RINGFENCE_KCONFIG_H
#define RINGFENCE_KCONFIG_H
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#define BPF_NO_PRESERVE_ACCESS_INDEX
#endif
#include <vmlinux.h>
#include <linux/ringfence_unknown.h>
#define __LINUX_BPF_H__
#define _UAPI__LINUX_BPF_H__
#define CONFIG_BPF_SYSCALL 1
#define PAGE_SIZE {page}
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
#define __always_inline inline __attribute__((always_inline))
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define MINORBITS 20
#define MINORMASK ((1U << MINORBITS) - 1)
#define MAJOR(dev) ((unsigned int)((dev) >> MINORBITS))
#define MINOR(dev) ((unsigned int)((dev) & MINORMASK))
#define TASK_RUNNING 0
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#endif
"""
_VERSION = """\
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION({}, {}, {})
"""


def build_id(notes: Path = _NOTES) -> str:
    """Returns the running kernel's GNU build id in hex digits; its release if it has none."""
    try:
        data = notes.read_bytes()
    except OSError:
        data = b""
    position = 0
    while position + 12 <= len(data):
        name, size, kind = struct.unpack_from("=3I", data, position)
        begin = position + 12 + (name + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and data[position + 12 : position + 12 + name] == b"GNU\0":
            return data[begin : begin + size].hex()
        position = begin + (size + 3 & ~3)
    return platform.release()


def header_tree(cache: Path) -> Path:
    """Returns the tree of the running kernel, creating it if needed. Raises Error."""
    tree = cache / build_id()
    if (tree / "include/linux/kconfig.h").is_file():
        return tree
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Created under another name and renamed: no process sees a partial tree, and two creators do no harm.
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    try:
        _fill(made / "include")
        try:
            made.rename(tree)
        except OSError:
            if not (tree / "include/linux/kconfig.h").is_file():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return tree


def _fill(include: Path) -> None:
    for name in _EMPTY:
        (include / name).parent.mkdir(parents=True, exist_ok=True)
        (include / name).touch()
    _dump(include / "vmlinux.h")
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:3]]
    version = _VERSION.format(*(numbers + [0, 0, 0])[:3])
    (include / "linux/version.h").write_text(version)
    (include / "linux/kconfig.h").write_text(_KCONFIG.format(page=os.sysconf("SC_PAGE_SIZE")))


def _dump(path: Path) -> None:
    """Dumps the types directly to a file: they are megabytes, which the agent must not hold in memory."""
    command = [find_bpftool(), "btf", "dump", "file", str(_BTF), "format", "c"]
    try:
        with path.open("wb") as file:
            got = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                check=False,
                timeout=_TIMEOUT,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise Error(f"the kernel's types cannot be dumped: {error}") from error
    if got.returncode or not _holds(path, b"struct task_struct {"):
        said = got.stderr.decode(errors="replace").strip().splitlines()
        raise Error(f"bpftool cannot dump the kernel's types: {said[-1] if said else got.returncode}")


def _holds(path: Path, needle: bytes) -> bool:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            return pages.find(needle) >= 0


def find_bpftool() -> str:
    """Returns a working bpftool: Ubuntu's wrapper fails without the tools of exactly this kernel."""
    found = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    others = sorted(map(str, Path("/usr/lib").glob("linux-tools*/*/bpftool")))
    for tool in [*([found] if found else []), *others]:
        try:
            if (
                subprocess.run([tool, "version"], capture_output=True, check=False, timeout=10).returncode
                == 0
            ):
                return tool
        except (OSError, subprocess.SubprocessError):
            continue
    raise Error(
        "custom probes need bpftool, which is not installed",
        hint="apt-get install bpftool (Ubuntu: linux-tools-generic)",
    )


def has_raw_tracepoint(tree: Path, name: str) -> bool:
    """Returns True if the kernel has that raw tracepoint: each is a BTF type (e8c423fb31fa, 5.5)."""
    return _holds(tree / "include/vmlinux.h", f"(*btf_trace_{name})(".encode())
