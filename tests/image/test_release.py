# SPDX-License-Identifier: Apache-2.0
"""A release: the same bytes twice, an SPDX document that a library accepts, a chart that helm reads."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest
import yaml
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from tests.image.build import build_wheel
from tests.support.force import missing
from tools.packaging import ARCHITECTURES, machine_of, pip_platform
from tools.release import chart, notes
from tools.release.__main__ import MAKE_ARCH, ReleaseError, agreed_version
from tools.release.sbom import Artifact, Component, document

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/ringfence"
HELM = ROOT / "build/bin/helm"
DATE = 1700000000


def _document(directory: Path) -> str:
    (directory / "ringfence-1.whl").write_bytes(b"wheel")
    (directory / "ringfence-1.tar").write_bytes(b"image")
    return document(
        "1.0", DATE,
        [
            Artifact(directory / "ringfence-1.whl", needs=[Component("pypi", "pyyaml")]),
            Artifact(
                directory / "ringfence-1.tar",
                [Component("pypi", "pyyaml", "6.0.4"), Component("deb", "zlib1g", "1:1.2+dfsg-1", "arm64")],
            ),
        ],
    )  # fmt: skip


def test_the_bill_of_materials_is_valid(tmp_path: Path) -> None:
    """By SPDX's own library: the form, the identifiers, the relations between them."""
    file = tmp_path / "x.spdx.json"
    file.write_text(_document(tmp_path))
    parsed = parse_file(str(file))
    assert validate_full_spdx_document(parsed) == []
    urls = {reference.locator for package in parsed.packages for reference in package.external_references}
    assert urls == {
        "pkg:pypi/pyyaml", "pkg:pypi/pyyaml@6.0.4", "pkg:deb/debian/zlib1g@1%3A1.2%2Bdfsg-1?arch=arm64",
    }  # fmt: skip
    kinds = [relation.relationship_type.name for relation in parsed.relationships]
    assert sorted(kinds) == ["CONTAINS", "CONTAINS", "DEPENDS_ON", "DESCRIBES", "DESCRIBES"]


def test_the_same_artifacts_give_the_same_bill(tmp_path: Path) -> None:
    """And another artifact gives another namespace, as SPDX demands of another document."""
    first, again = _document(tmp_path), _document(tmp_path)
    assert first == again
    changed = document("1.0", DATE, [Artifact(tmp_path / "ringfence-1.whl")])
    assert json.loads(changed)["documentNamespace"] != json.loads(first)["documentNamespace"]


def test_two_archives_of_the_chart_are_the_same(tmp_path: Path) -> None:
    """Also of a copy, whose files have other times and modes."""
    copy = tmp_path / "ringfence"
    subprocess.run(["cp", "-r", CHART, copy], check=True)
    (copy / "values.yaml").chmod(0o600)
    (copy / ".git").mkdir()
    (copy / ".git/config").touch()
    chart.package(CHART, tmp_path / "1.tgz", DATE)
    chart.package(copy, tmp_path / "2.tgz", DATE)
    assert (tmp_path / "1.tgz").read_bytes() == (tmp_path / "2.tgz").read_bytes()


def test_helm_renders_the_archive_as_the_directory(tmp_path: Path) -> None:
    """No file is left out that a template reads."""
    if not HELM.is_file():
        missing("helm", "no helm: python3 -m tools.fetch_helm")
    archive = tmp_path / "ringfence-0.tgz"
    chart.package(CHART, archive, DATE)
    flags = ["--set", "prometheusRule.enabled=true", "--set", "dashboards.enabled=true"]
    rendered = [
        subprocess.run(
            [HELM, "template", "x", place, *flags], capture_output=True, text=True, check=True
        ).stdout
        for place in (archive, CHART)
    ]
    assert "kind: DaemonSet" in rendered[0]
    assert rendered[0] == rendered[1]


@pytest.mark.slow
def test_two_wheels_are_the_same(wheel: Path, tmp_path: Path) -> None:
    """Whenever they are built."""
    done = build_wheel(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_notes_are_the_section_of_the_version() -> None:
    """Not that of another whose name begins so, and never an empty text."""
    text = "# C\n\n## [Unreleased]\n\n- u\n\n## [1.2.0] - 2026-01-01\n\n### Added\n\n- a\n\n## [1.2] - x\n"
    assert notes.section(text, "1.2.0") == "### Added\n\n- a\n"
    for version in ("1.2", "1", "2.0"):
        with pytest.raises(KeyError):
            notes.section(text, version)


def test_versions_must_agree(tmp_path: Path) -> None:
    """Of the package and of the chart; they do in this checkout."""
    version = agreed_version(ROOT)
    (tmp_path / "charts/ringfence").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.9"\n')
    file = tmp_path / "charts/ringfence/Chart.yaml"
    file.write_text(yaml.safe_dump({"version": "9.9", "appVersion": version}))
    with pytest.raises(ReleaseError, match="appVersion"):
        agreed_version(tmp_path)


def test_every_architecture_has_its_names() -> None:
    """In a wheel's tag, for Debian and for make; pip needs the platform of another machine alone."""
    assert set(MAKE_ARCH) == set(ARCHITECTURES)
    for machine in ARCHITECTURES:
        assert machine_of(Path(f"dist/ringfence-0.1.0-py3-none-linux_{machine}.whl")) == machine
    assert pip_platform("s390x")[-1].endswith("_s390x")
    assert pip_platform(platform.machine()) == []
