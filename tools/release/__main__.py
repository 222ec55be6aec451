# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.release`: builds a release for the architectures that this machine can compile.

Into dist/VERSION: wheels, Debian packages, OCI archives of the image, the chart, an SPDX document, the notes
of the version from CHANGELOG.md, and SHA256SUMS. Nothing is published.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.packaging import ARCHITECTURES, source_date
from tools.release import chart, notes
from tools.release.sbom import Artifact, Component, document

ROOT = Path(__file__).resolve().parents[2]
CROSS_COMPILER = "aarch64-linux-gnu-gcc"
#: machine -> ARCH of the Makefile
MAKE_ARCH = {"x86_64": "x86", "aarch64": "arm64"}


class ReleaseError(Exception):
    """The release could not be built."""


def main() -> int:
    """Prints the paths of what was built."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.release", description=__doc__)
    parser.add_argument("--output", type=Path, help="default: dist/VERSION")
    parser.add_argument("--no-images", action="store_true", help="without the images, which need apt")
    options = parser.parse_args()
    try:
        version = agreed_version(ROOT)
        output = (options.output or ROOT / "dist" / version).resolve()
        for path in build(version, output, images=not options.no_images):
            print(path)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def agreed_version(root: Path) -> str:
    """Returns the version that pyproject.toml and the chart have."""
    project = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    found = yaml.safe_load((root / "charts/ringfence/Chart.yaml").read_text())
    for key in ("version", "appVersion"):
        if found[key] != project:
            raise ReleaseError(
                f"{key} of charts/ringfence/Chart.yaml is {found[key]}, and the version {project}"
            )
    return project


def build(version: str, output: Path, *, images: bool) -> list[Path]:
    """Builds everything into `output`, which is emptied first. Returns the files."""
    date = source_date()
    os.environ["SOURCE_DATE_EPOCH"] = str(date)
    try:
        text = notes.section((ROOT / "CHANGELOG.md").read_text(), version)
    except KeyError:
        raise ReleaseError(f"CHANGELOG.md has no section [{version}]") from None
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    artifacts = [
        one for machine in machines() for one in _of_machine(machine, version, output, images=images)
    ]
    package = output / f"ringfence-{version}.tgz"
    chart.package(ROOT / "charts/ringfence", package, date)
    artifacts.append(Artifact(package))
    (output / f"ringfence-{version}.spdx.json").write_text(document(version, date, artifacts))
    (output / "RELEASE_NOTES.md").write_text(text)
    files = sorted(path for path in output.iterdir() if path.is_file())
    sums = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (output / "SHA256SUMS").write_text("".join(sums))
    return [*files, output / "SHA256SUMS"]


def machines() -> list[str]:
    """Returns the machines that can be built for here; says which one cannot."""
    found = [platform.machine()]
    if found == ["x86_64"]:
        if shutil.which(CROSS_COMPILER):
            found.append("aarch64")
        else:
            print(f"release: without arm64: {CROSS_COMPILER} is missing (tools/deps arm64)", file=sys.stderr)
    return found


def _of_machine(machine: str, version: str, output: Path, *, images: bool) -> Iterator[Artifact]:
    architecture, arch = ARCHITECTURES[machine], MAKE_ARCH[machine]
    _run("make", "--no-print-directory", "build", f"ARCH={arch}")
    os.environ["RINGFENCE_ARCH"] = arch
    _run(sys.executable, "-m", "build", "-q", "--wheel", "--outdir", output)
    wheel = output / f"ringfence-{version}-py3-none-linux_{machine}.whl"
    yield Artifact(wheel, needs=list(_of_wheel()))
    deb = Path(_run(sys.executable, "-m", "tools.deb", "--wheel", wheel, "--output", output).strip())
    yield Artifact(deb, list(_vendored()), list(_depends(deb, architecture)))
    if images:
        yield _image(wheel, version, architecture, output)


def _of_wheel() -> Iterator[Component]:
    for word in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        yield Component("pypi", re.split(r"[<>=~! ;\[]", word)[0])


def _vendored() -> Iterator[Component]:
    for line in (ROOT / "tools/deb/vendored.txt").read_text().splitlines():
        if found := re.match(r"([\w.-]+)==(\S+)", line):
            yield Component("pypi", found[1], found[2])


def _depends(deb: Path, architecture: str) -> Iterator[Component]:
    for word in _run("dpkg-deb", "-f", deb, "Depends").split(","):
        yield Component("deb", word.split()[0], architecture=architecture)


def _image(wheel: Path, version: str, architecture: str, output: Path) -> Artifact:
    """The distribution is named as in /etc/os-release: an image is made of this machine's."""
    directory = ROOT / "build/release" / architecture
    _run(sys.executable, "-m", "tools.image", "--wheel", wheel, "--output", directory,
         "--reference", f"ringfence:{version}")  # fmt: skip
    archive = output / f"ringfence-{version}-{architecture}.oci.tar"
    shutil.copyfile(directory / "image.tar", archive)
    report = json.loads((directory / "report.json").read_text())
    system = platform.freedesktop_os_release()["ID"]
    debs = [
        Component("deb", name, number, architecture, system)
        for name, number in (line.split() for line in report["packages"])
    ]
    return Artifact(archive, [*debs, *(Component("pypi", *line.split()) for line in report["python"])])


def _run(*argv: str | Path) -> str:
    words = list(map(str, argv))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise ReleaseError(f"{' '.join(words)}: status {done.returncode}: {said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
