# SPDX-License-Identifier: Apache-2.0
"""The wheel: named for the machine of the programs in it, and whole when installed into a fresh venv."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.image.build import ATTACKS, build_wheel, run_outside
from tests.support.force import missing

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "agent",
    "runtime",
    "policies",
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE",
    "LICENSES",
)
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine


def _copy(target: Path) -> Path:
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, target / part)
    return target


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it."""
    target = tmp_path_factory.mktemp("venv") / "fresh"
    done = run_outside(sys.executable, "-m", "venv", target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_tag_is_that_of_the_programs_in_it(wheel: Path) -> None:
    """Name and metadata agree, and what was compiled is in it."""
    tag = f"py3-none-linux_{platform.machine()}"
    assert wheel.name.endswith(f"-{tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        note = next(name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = archive.read(note).decode().splitlines()
        assert "Root-Is-Purelib: false" in lines
        assert f"Tag: {tag}" in lines
        assert {"ringfence/_bpf/ringfence.bpf.o", "ringfence/_bpf/attacks"} <= set(archive.namelist())


def test_a_fresh_environment_has_all_that_the_commands_need(wheel: Path, venv: Path) -> None:
    """As `pipx install` does it: only what the wheel itself asks for."""
    done = run_outside(venv / "bin/pip", "-q", "install", "--disable-pip-version-check", wheel)
    assert done.returncode == 0, done.stderr
    for words in (
        ("ringfence", "version"),
        ("ringfence", "policy", "check"),
        ("ringfence-runtime", "--version"),
    ):
        done = run_outside(venv / "bin" / words[0], *words[1:], PYTHONPATH="")
        assert done.returncode == 0, (words, done.stderr)
    assert os.access(next(venv.glob("lib/*/site-packages/ringfence/_bpf/attacks")), os.X_OK)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.package
def test_pipx_installs_it_and_it_inspects_the_kernel(wheel: Path, venv: Path, tmp_path: Path) -> None:
    """pipx itself, with directories of its own: `ringfence probe` says that the agent can run here."""
    done = run_outside(venv / "bin/pip", "-q", "install", "--disable-pip-version-check", "pipx")
    if done.returncode:
        missing("image", f"pipx cannot be had here: {done.stderr.strip()[-300:]}")
    variables = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    done = run_outside(venv / "bin/pipx", "install", wheel, **variables)
    assert done.returncode == 0, done.stderr
    done = run_outside(tmp_path / "bin/ringfence", "probe", PYTHONPATH="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mount-call" in done.stdout
    done = run_outside(venv / "bin/pipx", "uninstall", "ringfence", **variables)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "bin/ringfence").exists()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources with the programs of both architectures; those of the second are marked copies."""
    source = _copy(tmp_path_factory.mktemp("both") / "source")
    compiled = source / "agent/ringfence/_bpf"
    arm64 = compiled / "arm64"
    arm64.mkdir(exist_ok=True)
    for name in ("ringfence.bpf.o", "attacks"):
        shutil.copy(compiled / name, arm64 / name)
    with (arm64 / "attacks").open("r+b") as file:
        file.seek(18)
        file.write(MACHINES["aarch64"].to_bytes(2, "little"))
    return source


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere: the sources are compiled for x86-64")
@pytest.mark.parametrize(
    ("architecture", "machine", "place"), [("x86", "x86_64", ""), ("arm64", "aarch64", "arm64/")]
)
def test_it_holds_the_programs_of_its_tag_alone(
    wheel: Path, venv: Path, both: Path, tmp_path: Path, architecture: str, machine: str, place: str
) -> None:
    """Also where both are compiled; pip installs the one of this machine, and refuses the other."""
    done = build_wheel(both, tmp_path, RINGFENCE_ARCH=architecture)
    assert done.returncode == 0, done.stderr
    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith(f"-py3-none-linux_{machine}.whl")
    with zipfile.ZipFile(built) as archive:
        inside = {name for name in archive.namelist() if "/_bpf/" in name}
    assert inside == {f"ringfence/_bpf/{place}ringfence.bpf.o", f"ringfence/_bpf/{place}attacks"}
    done = run_outside(venv / "bin/pip", "download", "--no-deps", "-d", tmp_path / "got", built)
    assert ("not a supported wheel on this platform" in done.stderr) == (machine != platform.machine())


def test_a_program_of_another_machine_is_refused(wheel: Path, tmp_path: Path) -> None:
    """The tag of a wheel is never that of other programs than it holds."""
    source = _copy(tmp_path / "source")
    other = next(name for name in MACHINES if name != platform.machine())
    with (source / ATTACKS).open("r+b") as file:
        file.seek(18)
        file.write(MACHINES[other].to_bytes(2, "little"))
    done = build_wheel(source, tmp_path)
    assert done.returncode != 0
    assert f"attacks is not for {platform.machine()}" in done.stdout + done.stderr


def test_sources_that_are_not_compiled_give_none(wheel: Path, tmp_path: Path) -> None:
    """No wheel without its probes."""
    source = _copy(tmp_path / "source")
    (source / "agent/ringfence/_bpf/ringfence.bpf.o").unlink()
    done = build_wheel(source, tmp_path)
    assert done.returncode != 0
    assert "ringfence.bpf.o is not compiled: make build" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))
