# SPDX-License-Identifier: Apache-2.0
"""`ringfence run` on trees of the host: its own root, and directories that are written in place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.sandboxes import Sandboxes
from tests.support import force

pytestmark = pytest.mark.root


def test_the_host_s_own_programs(sandboxes: Sandboxes) -> None:
    """Read-only, without its secrets, its sockets and its homes; with scratch space."""
    script = (
        "env true && echo ran; echo secrets: $(ls -A /run /root /home | grep -v :) $(cat /etc/shadow);"
        " echo x > /tmp/x && cat /tmp/x; echo y > /usr/y"
    )
    got = sandboxes("run", *sandboxes.named("--rootfs", "host"), "sh", "-c", script)
    assert got.stdout == "ran\nsecrets:\nx\n"
    assert "Read-only file system" in got.stderr or "Permission denied" in got.stderr
    assert not Path("/usr/y").exists()


@pytest.fixture
def secret() -> Iterator[Path]:
    """A host file in a directory of programs, which only its owner may read."""
    path = Path("/usr/local/share/rftest-secret")
    path.write_text("secret\n")
    path.chmod(0o600)
    yield path
    path.unlink()


def test_root_inside_the_hosts_own_root_reads_only_public_files(sandboxes: Sandboxes, secret: Path) -> None:
    """It has separate ids, and so no rights over files of the host; --userns host is the old way."""
    words = ("sh", "-c", f"id -u; cat {secret}; cat /proc/self/uid_map | tr -s ' '")
    got = sandboxes("run", *sandboxes.named("--rootfs", "host"), *words)
    assert "Permission denied" in got.stderr
    inside, mapping = got.stdout.splitlines()
    assert (inside, mapping.split()[0], mapping.split()[2]) == ("0", "0", "65536")
    got = sandboxes("run", *sandboxes.named("--userns", "host", "--rootfs", "host"), *words)
    assert got.stdout.splitlines()[:2] == ["0", "secret"]


@pytest.mark.parametrize("target", ["/mnt", "/home/someone/work", "/opt"])
def test_volumes_beside_the_hosts_own_root_stay_writable(
    sandboxes: Sandboxes, tmp_path: Path, target: str
) -> None:
    """Files of root are root's inside, and files made there are root's outside.

    Also at places, or below places, that are hidden otherwise.
    """
    place = tmp_path / "work"
    place.mkdir()
    (place / "mine").write_text("kept")
    (place / "mine").chmod(0o600)
    volume = ("--volume", f"{place}:{target}")
    script = f"cat {target}/mine; echo x > {target}/new"
    got = sandboxes("run", *sandboxes.named(*volume, "--rootfs", "host"), "sh", "-c", script)
    if "cannot be id-mapped" in got.stderr:
        force.elsewhere("this kernel cannot id-map the filesystem of the temporary directory")
    assert got.stdout == "kept", got.stderr
    assert (place / "new").stat().st_uid == 0


@pytest.mark.parametrize("open_to_all", [True, False])
def test_a_directory_that_everyone_can_enter_gives_a_warning(sandboxes: Sandboxes, open_to_all: bool) -> None:
    """A file that root of a sandbox makes setuid there is setuid for the host's users."""
    place = Path(tempfile.mkdtemp(prefix="rftest-open-")) / "rootfs"
    try:
        shutil.copytree(sandboxes.rootfs, place, symlinks=True)
        place.parent.chmod(0o755 if open_to_all else 0o700)
        got = sandboxes.run("--rootfs", str(place), source="true", words=())
        assert got.returncode == 0, got.stderr
        assert ("setuid" in got.stderr) == open_to_all
        got = sandboxes.run("--read-only", "--rootfs", str(place), source="true", words=())
        assert "setuid" not in got.stderr
    finally:
        shutil.rmtree(place.parent)
