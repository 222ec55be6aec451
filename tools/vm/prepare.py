# SPDX-License-Identifier: Apache-2.0
"""From an unpacked kernel package to what QEMU boots: an uncompressed vmlinux, an initrd of a few modules."""

from __future__ import annotations

import json
import lzma
import os
import stat
import struct
import subprocess
import zlib
from pathlib import Path

from tools.vm.catalogue import cache_directory
from tools.vm.cpio import Archive

__all__ = ["build_init", "prepare"]

HERE = Path(__file__).resolve().parent
DRIVERS = ("virtio_pci", "virtiofs", "overlay")
#: PID 1 in the cache, and the compiler
COMPILED = {"amd64": ("vminit", "gcc"), "arm64": ("vminit-arm64", "aarch64-linux-gnu-gcc")}
ARM64_IMAGE = b"ARM\x64"  # at 56: Documentation/arch/arm64/booting.rst
SIGNATURE_END = b"~Module signature appended~\n"
SETUP_SECTORS, PAYLOAD = (
    0x1F1,
    0x248,
)  # Documentation/arch/x86/boot.rst: setup_sects, payload_offset and _length


def build_init(machine: str = "amd64") -> Path:
    """Compile PID 1 of the guest, statically, where the source is newer than the cache's; gives its path."""
    name, compiler = COMPILED[machine]
    source, target = HERE / "init.c", cache_directory() / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        fresh = target.with_suffix(f".{os.getpid()}")
        argv = [compiler, "-O2", "-static", "-Wno-unused-result", "-o", str(fresh), str(source)]
        subprocess.run(argv, check=True)
        fresh.rename(target)
    return target


def prepare(directory: Path, version: str) -> None:
    """Make vmlinux, initrd and meta.json in `directory`, whose `package` holds an unpacked kernel package."""
    package = directory / "package"
    if not (package / "lib").exists():
        (package / "lib").symlink_to("usr/lib")  # packages of trixie and later
    (release,) = os.listdir(package / "lib/modules")
    modules = package / "lib/modules" / release
    if not (modules / "modules.dep.bin").exists():
        subprocess.run(["depmod", "-b", str(package), release], check=True)  # postinst would have done it
    image = next(iter([*package.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz")]))
    (directory / "vmlinux").write_bytes(unpack_image(image.read_bytes()))
    drivers = _drivers(package, release)
    _write_initrd(directory / "initrd", drivers)
    facts = {"release": release, "version": version, "drivers": list(drivers)}
    (directory / "meta.json").write_text(json.dumps(facts, indent=1))


def unpack_image(image: bytes) -> bytes:
    """The vmlinux inside a bzImage. Booting it as PVH saves the guest three seconds of decompression.

    arm64's Image is not compressed.
    """
    if image[56:60] == ARM64_IMAGE:
        return image
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = ((image[SETUP_SECTORS] or 4) + 1) * 512 + offset
    vmlinux = _decompress(image[start : start + length])
    if not vmlinux.startswith(b"\x7fELF"):
        raise RuntimeError("the kernel image holds no ELF file")
    return vmlinux


def _decompress(data: bytes) -> bytes:
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        # The kernel appends the length, which zstd would take for garbage.
        return _filter(["zstd", "-dcq"], data[:-4])
    if data.startswith(b"\x02!L\x18"):
        return _filter(["lz4", "-dcq"], data)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data)
    raise RuntimeError(f"a compression that is not known here: {data[:6]!r}")


def _filter(argv: list[str], data: bytes) -> bytes:
    """What the program makes of the data; lz4 complains about the appended length but gives everything."""
    return subprocess.run(
        argv, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    ).stdout


def _drivers(package: Path, release: str) -> dict[str, Path]:
    """Module name -> file of all that the guest needs before it has a root, in loading order."""
    found: dict[str, Path] = {}
    for name in DRIVERS:
        shown = subprocess.run(
            ["modprobe", "-d", str(package), "-S", release, "--show-depends", name],
            check=True,
            capture_output=True,
            text=True,
        )
        for line in shown.stdout.splitlines():
            kind, _, file = line.partition(" ")
            if kind == "insmod":  # else `builtin`
                path = Path(file.split()[0])
                found.setdefault(path.name.split(".ko")[0], path)
    return found


def _write_initrd(target: Path, drivers: dict[str, Path]) -> None:
    archive = Archive()
    archive.add("dev", stat.S_IFDIR | 0o755)
    archive.add("mod", stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    for name, file in drivers.items():
        archive.add(f"mod/{name}.ko", stat.S_IFREG | 0o644, _module(file))
    target.write_bytes(archive.finish())


def _module(file: Path) -> bytes:
    """A module, decompressed, without its signature: checking one costs an emulated CPU 0.1 s."""
    data = file.read_bytes()
    if file.suffix in (".xz", ".gz"):
        data = lzma.decompress(data) if file.suffix == ".xz" else zlib.decompress(data, 31)
    elif file.suffix == ".zst":
        data = _filter(["zstd", "-dcq"], data)
    if data.endswith(SIGNATURE_END):
        end = len(data) - len(SIGNATURE_END)
        (length,) = struct.unpack_from(
            ">I", data, end - 4
        )  # struct module_signature: 12 bytes, ends with sig_len
        data = data[: end - 12 - length]
    return data
