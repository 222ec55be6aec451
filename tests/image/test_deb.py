# SPDX-License-Identifier: Apache-2.0
"""The Debian package: the same bytes twice, installed, used and purged on a copy of this system's root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ringfence.config import KEYS, load
from ringfence.config.sample import sample, shown
from tests.image.system import overlay
from tests.support.force import missing, need_program

ROOT = Path(__file__).resolve().parents[2]
#: what dpkg itself and the shell's caches change, whatever is installed
_OF_DPKG = ("var/lib/dpkg/", "var/log/", "var/cache/", "var/lib/systemd/")
#: in the sample; a line of prose has a space, or three, after the #
_SETTING = re.compile(r"#(?:  )?[a-z]")


def _run(*argv: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        list(map(str, argv)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _build(wheel: Path, target: Path) -> Path:
    done = _run(sys.executable, "-m", "tools.deb", "--wheel", wheel, "--output", target,
                SOURCE_DATE_EPOCH="1700000000")  # fmt: skip
    if done.returncode:
        missing("image", f"the package cannot be built here: {done.stderr.strip()[-400:]}")
    return next(target.glob("*.deb"))


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of this checkout."""
    need_program("dpkg-deb")
    return _build(wheel, tmp_path_factory.mktemp("deb"))


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    """A copy of this system's root."""
    with overlay(tmp_path) as root:
        yield root


def _inside(root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in the copy, whose /proc is this system's. There is neither systemd nor a network."""
    mounts = (
        f"mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && mount -t tmpfs x {root}/run"
    )
    script = f'{mounts} && exec chroot {root} "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script, root, *map(str, words)],
        capture_output=True, text=True, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "100"},
    )  # fmt: skip


def _done(root: Path, *words: str | Path) -> str:
    done = _inside(root, *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def _files(root: Path) -> set[str]:
    upper = root.parent / "layers/upper"
    found = (str(path.relative_to(upper)) for path in upper.rglob("*") if not path.is_dir())
    return {name for name in found if not name.startswith(_OF_DPKG)}


@pytest.mark.long
@pytest.mark.slow
def test_two_builds_give_the_same_bytes(wheel: Path, package: Path, tmp_path: Path) -> None:
    """Of one wheel and one date, whatever the time and the umask are."""
    before = os.umask(0o077)
    try:
        again = _build(wheel, tmp_path)
    finally:
        os.umask(before)
    assert again.name == package.name
    assert again.read_bytes() == package.read_bytes()


@pytest.mark.root
@pytest.mark.slow
def test_it_is_installed_used_and_purged(package: Path, system: Path) -> None:
    """Both programs run with the distribution's interpreter alone. A removal keeps the configuration, and a
    purge keeps the administrator's policies and nothing else.
    """
    if _run("dpkg-query", "-W", "python3-yaml", "libbpf1", "libseccomp2").returncode:
        missing("image", "packages that the package depends on are not installed: tools/deps image")
    shutil.copy(package, system / "tmp/ringfence.deb")
    before = _files(system)
    _done(system, "dpkg", "-i", "--force-unsafe-io", "/tmp/ringfence.deb")
    _use(system)
    configuration, policy = system / "etc/ringfence/agent.yaml", system / "etc/ringfence/policies/own.yaml"
    configuration.write_text("mode: audit\n")
    policy.parent.mkdir()
    policy.write_text("# mine\n")
    (system / "var/lib/ringfence/images").mkdir(parents=True)
    (system / "var/lib/ringfence/images/index").touch()
    _done(system, "dpkg", "-r", "ringfence")
    assert configuration.read_text() == "mode: audit\n"
    _done(system, "dpkg", "-P", "ringfence")
    assert _files(system) - before == {"etc/ringfence/policies/own.yaml"}


def _use(system: Path) -> None:
    assert "0.1.0" in _done(system, "ringfence", "version")
    assert "no errors" in _done(system, "ringfence", "policy", "check")
    assert "are valid" in _done(system, "ringfence", "agent", "--check")
    assert "ringfence-runtime" in _done(system, "ringfence-runtime", "--version")
    script = "import sys; sys.path.insert(0, '/usr/lib/ringfence'); import structlog as s; print(s.__file__)"
    assert _done(system, "python3", "-I", "-c", script).startswith("/usr/lib/ringfence/")
    assert list((system / "usr/lib/ringfence/ringfence/__pycache__").glob("*.pyc"))


def test_the_units_are_accepted_by_systemd(package: Path, tmp_path: Path) -> None:
    """No word that systemd does not know, and programs and a manual page that are there."""
    analyze = need_program("systemd-analyze")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "root"], check=True)
    root = tmp_path / "root"
    units = sorted((root / "usr/lib/systemd/system").iterdir())
    assert [unit.name for unit in units] == [
        "ringfence-agent.service", "ringfence-launcher.service", "ringfence-launcher.socket",
    ]  # fmt: skip
    for unit in units:
        unit.write_text(unit.read_text().replace("ExecStart=/usr/", f"ExecStart={root}/usr/"))
    done = _run(analyze, "verify", "--man=no", *units)
    said = [line for line in done.stderr.splitlines() if "ringfence" in line]
    assert said == []
    assert (root / "usr/share/man/man1/ringfence-agent.1.gz").is_file()
    assert (root / "usr/share/man/man1/ringfence-runtime.1.gz").is_file()


def test_the_sample_sets_nothing(tmp_path: Path) -> None:
    """As it is shipped, it is the configuration without a file."""
    file = tmp_path / "agent.yaml"
    file.write_text(sample())
    assert yaml.safe_load(sample()) is None
    assert load(file, {})._replace(file=Path("x")) == load(None, {})._replace(file=Path("x"))


def test_the_sample_has_every_key_with_its_default(tmp_path: Path) -> None:
    """Without the # before its keys it is accepted, and still sets nothing else than the defaults."""
    lines = [line[1:] for line in sample().splitlines() if _SETTING.match(line)]
    assert len(lines) > len(KEYS)
    file = tmp_path / "agent.yaml"
    file.write_text("\n".join(lines))
    set_keys = yaml.load(file.read_text(), yaml.BaseLoader)
    for key in KEYS:
        section, _, word = key.path.rpartition(".")
        assert (set_keys[section] if section else set_keys)[word] == shown(key), key.path
    assert load(file, {})._replace(file=Path("x")) == load(None, {})._replace(file=Path("x"))
