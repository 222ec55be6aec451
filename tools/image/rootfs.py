# SPDX-License-Identifier: Apache-2.0
"""The root filesystem: unpacked packages (none of their scripts is run) and Python packages.

Files that are not needed at run time are removed.
"""

from __future__ import annotations

import compileall
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.packaging import ARCHITECTURES, launchers, machine_of, pip_platform

__all__ = ["PACKAGES", "ImageError", "assemble", "choose", "missing_libraries", "python_packages", "wanted"]

PACKAGES = Path(__file__).with_name("packages")
_MERGED = ("bin", "sbin", "lib", "lib64")
_EMPTY = ("proc", "sys", "dev", "tmp", "run/ringfence", "etc/ringfence", "var/lib/dpkg/status.d")
#: below the root; `*` is a glob
_NOT_NEEDED = (
    "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/info",
    "usr/share/applications", "usr/share/pixmaps", "usr/share/binfmts", "usr/share/gcc", "usr/share/gdb",
    "usr/share/python3", "usr/share/ca-certificates", "usr/sbin/*", "etc/ca-certificates*", "etc/python3*",
    "usr/lib/*/gconv", "usr/lib/*/audit", "usr/lib/*/engines-3", "usr/lib/*/ossl-modules", "usr/lib/ssl/misc",
    "usr/lib/python3.*/test", "usr/lib/python3.*/idlelib", "usr/lib/python3.*/lib2to3",
    "usr/lib/python3.*/ensurepip", "usr/lib/python3.*/pydoc_data", "usr/lib/python3.*/turtledemo",
    "usr/lib/python3.*/distutils", "usr/lib/python3.*/tkinter", "usr/lib/python3.*/unittest",
    "usr/lib/python3.*/config-*", "usr/lib/python3/dist-packages/bin",
    # extensions that no code in the image imports, and the libraries that they would need
    *(f"usr/lib/python3.*/lib-dynload/{name}.*" for name in
      ("_dbm", "_gdbm", "_curses", "_curses_panel", "nis", "readline", "_sqlite3", "_test*", "_tkinter")),
    "usr/lib/python3.*/sqlite3", "usr/lib/python3.*/curses", "usr/lib/python3.*/dbm",
)  # fmt: skip
_BCC = ("python3-bpfcc", "bpftool")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/usr/bin/false\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class ImageError(Exception):
    """The image could not be built."""


_FOREIGN_APT = """\
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "{directory}";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}";
"""


def _run(*argv: str, cwd: Path | None = None) -> str:
    got = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if got.returncode:
        raise ImageError(f"{argv[0]}: status {got.returncode}: {(got.stderr or got.stdout).strip()[-1500:]}")
    return got.stdout


def wanted(python: str, text: str) -> list[str]:
    """The lines of the list, with the interpreter's package name (python3.11) put in."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line.format(python=python) for line in lines if line]


def _use_foreign_apt(architecture: str, directory: Path) -> None:
    """Sets apt up, for this process and its children, for another architecture. Sources are the machine's."""
    (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()
    (directory / "conf").write_text(_FOREIGN_APT.format(architecture=architecture, directory=directory))
    os.environ["APT_CONFIG"] = str(directory / "conf")
    _run("apt-get", "-qq", "update")


def _known(package: str) -> bool:
    return subprocess.run(("apt-cache", "show", package), capture_output=True, check=False).returncode == 0


def choose(packages: Iterable[str]) -> list[str]:
    """Alternatives decided by what this distribution has."""
    chosen = []
    for line in packages:
        found = next((name for name in line.split("|") if _known(name)), None)
        if found is None:
            raise ImageError(f"no package {line} here (apt-get update?)")
        chosen.append(found)
    return chosen


def with_bcc(known: Iterable[str]) -> list[str]:
    """The packages that custom probes need beside those: bcc, the compiler that it is built of, bpftool.

    Which libraries of LLVM these are is the distribution's business: they are what the packages depend on.
    """
    found: dict[str, None] = {}
    ahead = list(_BCC)
    while ahead:
        asked = _run("apt-cache", "depends", "--important", ahead.pop())
        names = re.findall(r"^ +(?:Pre)?Depends: (lib[^\s:]+)", asked, re.M)
        new = [name for name in names if name not in found and name not in known]
        found |= dict.fromkeys(new)
        ahead += new
    return [*_BCC, *sorted(found)]


def assemble(root: Path, wheel: Path, cache: Path, *, bcc: bool = False) -> list[str]:
    """Make everything below `root`, which must not exist; the packages that went in, with their versions.

    Of the machine in the wheel's tag. For another than this one, apt gets a state of its own below `cache`.
    """
    if machine_of(wheel) != platform.machine():
        cache = cache.with_name(f"{cache.name}-{machine_of(wheel)}")
        _use_foreign_apt(ARCHITECTURES[machine_of(wheel)], cache / "apt")
    os.umask(0o022)  # else the modes of what is made here would be the caller's business
    root.mkdir(parents=True)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in _EMPTY:
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = choose(wanted(python, PACKAGES.read_text()))
    versions = _unpack(root, [*packages, *(with_bcc(packages) if bcc else ())], cache)
    if bcc:
        shutil.move(root / "usr/sbin/bpftool", root / "usr/bin/bpftool")
    (root / "usr/bin/python3").symlink_to(python)
    _install(root, wheel)
    _certificates(root)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    _take_out(root)
    _compile(root)
    if lacking := missing_libraries(root):
        raise ImageError(f"libraries that the image lacks: {', '.join(lacking)}")
    return versions


def _unpack(root: Path, packages: Sequence[str], cache: Path) -> list[str]:
    """Download and unpack; their control data stays, so that scanners know what is in the image."""
    cache.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=cache)
    versions = []
    for package in packages:
        archive = max(cache.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        stream = subprocess.Popen(("dpkg-deb", "--fsys-tarfile", str(archive)), stdout=subprocess.PIPE)
        unpack = ("tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-p", "-C", str(root))
        failed = subprocess.run(unpack, stdin=stream.stdout, check=False).returncode
        if stream.wait() or failed:
            raise ImageError(f"{archive.name} cannot be unpacked")
        (root / "var/lib/dpkg/status.d" / package).write_text(_run("dpkg-deb", "-f", str(archive)))
        versions.append(f"{package} {_run('dpkg-deb', '-f', str(archive), 'Version').strip()}")
    return versions


def _install(root: Path, wheel: Path) -> None:
    target = root / "usr/lib/python3/dist-packages"
    _run(
        sys.executable, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--no-compile",
        "--only-binary", ":all:", "--root-user-action", "ignore", "--target", str(target),
        *pip_platform(machine_of(wheel)), str(wheel),
    )  # fmt: skip
    _forget_where_from(target)
    for name, script in launchers():
        path = root / "usr/bin" / name
        path.write_text(script)
        path.chmod(0o755)


def python_packages(root: Path) -> list[str]:
    """Returns `NAME VERSION` of what pip installed, Ringfence aside."""
    found = (
        path.name.removesuffix(".dist-info")
        for path in root.glob("usr/lib/python3/dist-packages/*.dist-info")
    )
    return sorted(" ".join(name.split("-")) for name in found if not name.startswith("ringfence-"))


def _forget_where_from(target: Path) -> None:
    """pip writes down the path of the wheel: the same wheel in another place would be another image."""
    for note in target.glob("*.dist-info/direct_url.json"):
        note.unlink()
        record = note.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if "/direct_url.json," not in line))


def _certificates(root: Path) -> None:
    """What the package's own script would do: one file of all of them."""
    found = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    target = root / "etc/ssl/certs/ca-certificates.crt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(path.read_text() for path in found))


def _take_out(root: Path) -> None:
    for pattern in _NOT_NEEDED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (root / "usr/share/doc").glob("*/*"):
        if path.name != "copyright":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _compile(root: Path) -> None:
    """The root is read-only when it runs: byte code is made now, and never compared with its source."""
    for directory in (next((root / "usr/lib").glob("python3.*")), root / "usr/lib/python3/dist-packages"):
        shown = "/" + str(directory.relative_to(root))
        mode = compileall.py_compile.PycInvalidationMode.UNCHECKED_HASH  # type: ignore[attr-defined]
        compileall.compile_dir(directory, quiet=2, stripdir=str(directory), prependdir=shown,
                               invalidation_mode=mode, workers=0)  # fmt: skip


def missing_libraries(root: Path) -> list[str]:
    """Libraries that some file of the image asks for, and no file of it is."""
    objects = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
    names = {path.name for path in root.rglob("*.so*")}
    needed: dict[str, str] = {}
    for path in objects:
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", _run("readelf", "-dW", str(path))):
            needed.setdefault(name, str(path.relative_to(root)))
    return [f"{name} (for {user})" for name, user in sorted(needed.items()) if name not in names]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(20)
    # Programs and libraries; not the relocatable objects of the probes.
    return head[:4] == b"\x7fELF" and os.fsencode(head[16:18]) in (b"\x02\x00", b"\x03\x00")
