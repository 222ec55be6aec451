# SPDX-License-Identifier: Apache-2.0
"""Lays out the package and packs it. The same wheel and the same date give the same bytes.

The agent is in /usr/lib/ringfence, with the Python packages of vendored.txt: Debian 12 has older versions of
two of them than the agent needs, and what runs on a node is then what the tests ran with, on each release.
They are plain Python; PyYAML, which is compiled for one interpreter, comes from the distribution.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import shtab

from ringfence.cli.completion import parser_with_values
from ringfence.cli.main import build_parser
from ringfence.config.sample import sample
from ringfence_runtime.cli.usage import OPTIONS, of_command, overview
from tools.deb.manual import pages, preformatted
from tools.packaging import ARCHITECTURES, launchers, machine_of, pip_platform, source_date

__all__ = ["BuildError", "build"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARY = "usr/lib/ringfence"
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/ringfence",
    "zsh": "usr/share/zsh/vendor-completions/_ringfence",
    "fish": "usr/share/fish/vendor_completions.d/ringfence.fish",
}


class BuildError(Exception):
    """The package could not be built."""


def build(wheel: Path, output: Path) -> Path:
    """Returns the path of the package of this wheel, in the directory `output`."""
    version = wheel.stem.split("-")[1]
    architecture = ARCHITECTURES.get(machine_of(wheel))
    if architecture is None:
        raise BuildError(f"{wheel.name} is for no architecture that Debian has a name for here")
    os.umask(0o022)
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"ringfence_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix="ringfence-deb-") as directory:
        root = Path(directory) / "root"
        _python(root, wheel)
        _commands(root)
        _documents(root, version)
        _configuration(root)
        _control(root, version, architecture)
        _pack(root, package)
    return package


def _run(*argv: str | Path, date: int = 0) -> str:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(date)} if date else None
    words = list(map(str, argv))
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise BuildError(
            f"{words[0]}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
        )
    return done.stdout


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _python(root: Path, wheel: Path) -> None:
    """The packages of the wheel and of vendored.txt, without what only pip needs."""
    target = root / LIBRARY
    pip = (
        sys.executable, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--no-compile",
        "--no-deps", "--only-binary", ":all:", "--root-user-action", "ignore", "--target", target,
    )  # fmt: skip
    _run(*pip, *pip_platform(machine_of(wheel)), wheel)
    _run(*pip, "--require-hashes", "-r", HERE / "vendored.txt")
    shutil.rmtree(target / "bin")
    for note in target.glob("*.dist-info/*"):
        if note.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            note.unlink()


def _commands(root: Path) -> None:
    for name, script in launchers(f"/{LIBRARY}"):
        _write(root / "usr/bin" / name, script, 0o755)
    for shell, path in _COMPLETIONS.items():
        _write(root / path, shtab.complete(parser_with_values(), shell=shell) + "\n")


def _documents(root: Path, version: str) -> None:
    texts = dict(pages(build_parser(), version))
    helps = [overview(sorted(OPTIONS)), *map(of_command, sorted(OPTIONS))]
    texts["ringfence-runtime"] = preformatted("ringfence-runtime", "an OCI runtime", version, helps)
    for name, text in texts.items():
        _compressed(root / f"usr/share/man/man1/{name}.1.gz", text.encode())
    documents = root / "usr/share/doc/ringfence"
    _compressed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    _write(documents / "copyright", (HERE / "debian/copyright").read_text())


def _compressed(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 9, mtime=0))


def _configuration(root: Path) -> None:
    _write(root / "etc/ringfence/agent.yaml", sample())
    for unit in (HERE / "units").iterdir():
        _write(root / "usr/lib/systemd/system" / unit.name, unit.read_text())


def _control(root: Path, version: str, architecture: str) -> None:
    control, files = root / "DEBIAN", [path for path in sorted(root.rglob("*")) if path.is_file()]
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    text = (HERE / "debian/control").read_text()
    _write(control / "control", text.format(version=version, architecture=architecture, size=size))
    _write(control / "conffiles", "/etc/ringfence/agent.yaml\n")
    sums = _run("md5sum", *files).replace(f"{root}/", "")
    _write(control / "md5sums", sums)
    for script in ("postinst", "prerm", "postrm"):
        _write(control / script, (HERE / "debian" / script).read_text(), 0o755)


def _pack(root: Path, package: Path) -> None:
    date = source_date()
    for path in [root, *root.rglob("*")]:
        os.utime(path, (date, date), follow_symlinks=False)
    _run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, package, date=date)
