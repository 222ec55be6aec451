# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile, built for real by buildah on a base image that is made here of the distribution's packages.

Slow (some minutes) and in need of the network, so it runs when it is asked for: RINGFENCE_FORCE=dockerfile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.build import ROOT
from tests.support.force import VARIABLE, elsewhere, need_program, need_root
from tools.vm.apt import mirror

pytestmark = [pytest.mark.root, pytest.mark.slow]

BASE, BUILT = "localhost/ringfence-base:test", "localhost/ringfence:test"


class Buildah:
    """With a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.options = [
            "--root",
            f"{directory}/store",
            "--runroot",
            f"{directory}/run",
            "--storage-driver",
            "overlay",
        ]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["buildah", *self.options, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    """It has a base image like debian:12-slim, which knows whom this machine trusts."""
    if "dockerfile" not in os.environ.get(VARIABLE, "").split(","):
        elsewhere(f"{VARIABLE}=dockerfile runs it")
    need_root()
    for program in ("buildah", "mmdebstrap"):
        need_program(program)
    suite = "bookworm" if sys.version_info[:2] == (3, 11) else "trixie"
    root = tmp_path / "base"
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", "--mode=root", "--quiet", suite, str(root), mirror()], check=True
    )
    (root / "etc/trusted").mkdir()
    (root / "etc/trusted/ca.crt").write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/trusted/ca.crt\n")
    made = Buildah(tmp_path)
    container = made("from", "scratch")
    made("copy", "--quiet", container, str(root), "/")
    made("commit", "--quiet", container, BASE)
    made("rm", container)
    yield made
    made("rmi", "--all", "--force")


def test_it_builds_and_what_it_built_runs(buildah: Buildah) -> None:
    """As far as `ringfence version` and `ringfence policy check`, without a shell to start them."""
    buildah(
        "bud", "--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={BASE}", "--tag", BUILT, "."
    )
    container = buildah("from", "--pull-never", BUILT)
    inside = ("run", "--isolation", "chroot", container, "--", "/usr/bin/ringfence")
    assert buildah(*inside, "version").startswith("ringfence ")
    assert "rules" in buildah(
        *inside, "policy", "check", "/usr/lib/python3/dist-packages/ringfence/_policies"
    )
    assert buildah("inspect", "--format", "{{.OCIv1.Config.Entrypoint}}", container) == "[/usr/bin/ringfence]"
