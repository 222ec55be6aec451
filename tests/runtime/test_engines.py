# SPDX-License-Identifier: Apache-2.0
"""Real containerd and Podman, with private roots
and sockets, running containers with this runtime.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import force
from tests.support.cgroups import PREFIX, remove_everywhere
from tests.support.container import make_rootfs
from tests.support.waiting import end, patience, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


def run(*words: str, ok: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; a failure shows what it printed."""
    options.setdefault("timeout", patience(60))
    got = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert got.returncode == 0 or not ok, f"{' '.join(words)}: {got.returncode}: {got.stdout}{got.stderr}"
    return got


@pytest.fixture(scope="module")
def root_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem."""
    return make_rootfs(tmp_path_factory.mktemp("engine") / "rootfs", busybox=force.need_program("busybox"))


class Containerd:
    """A private containerd."""

    def __init__(self, directory: Path, executable: Path) -> None:
        self.address = str(directory / "sock")
        self.directory = directory
        self.executable = executable

    def ctr(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return run("ctr", "--address", self.address, "--namespace", "rftest", *words, ok=ok)

    def run(self, name: str, tree: Path, *words: str, detach: bool = False) -> str:
        """Run a program; a failure shows what it printed."""
        options = ["run", "--runc-binary", str(self.executable), "--cgroup", f"/{name}"]
        options += ["--detach"] if detach else ["--rm"]
        return self.ctr(*options, "--rootfs", str(tree), name, *words).stdout


@pytest.fixture
def containerd(executable: Path, tmp_path: Path) -> Iterator[Containerd]:
    """Runs for the time of the test."""
    force.need_program("containerd")
    config = tmp_path / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{tmp_path}/sock"\n[ttrpc]\naddress = "{tmp_path}/ttrpc"\n'
    )
    with open(tmp_path / "log", "wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    made = Containerd(tmp_path, executable)
    try:
        wait_for(lambda: made.ctr("version", ok=False).returncode == 0, "containerd answers")
        yield made
    finally:
        end(daemon)


def gone(name: str) -> bool:
    """Returns True if no hierarchy has this cgroup."""
    top = Path("/sys/fs/cgroup")
    return not any(path.exists() for path in (top / name, *top.glob(f"*/{name}")))


def test_containerd_runs_a_container(containerd: Containerd, root_tree: Path) -> None:
    """In the foreground, with its output; removed completely."""
    name = f"rftest-{secrets.token_hex(6)}"
    assert containerd.run(name, root_tree, "/bin/echo", "hello") == "hello\n"
    wait_for(lambda: gone(name), "the cgroups are removed")


def test_containerd_execs_kills_and_deletes(containerd: Containerd, root_tree: Path) -> None:
    """The full life cycle of a long-running container."""
    name = f"rftest-{secrets.token_hex(6)}"
    containerd.run(name, root_tree, "/bin/sleep", "3600", detach=True)
    try:
        assert f"{name}" in containerd.ctr("task", "ls").stdout
        got = containerd.ctr("task", "exec", "--exec-id", "one", name, "/bin/sh", "-c", "echo inside; id -u")
        assert got.stdout.split() == ["inside", "0"]
        got = containerd.ctr("task", "exec", "--exec-id", "two", name, "/bin/sh", "-c", "exit 5", ok=False)
        assert got.returncode == 5
        assert len(containerd.ctr("task", "ps", name).stdout.splitlines()) == 2
        containerd.ctr("task", "pause", name)
        assert "PAUSED" in containerd.ctr("task", "ls").stdout
        containerd.ctr("task", "resume", name)
        assert "memory" in containerd.ctr("task", "metrics", name).stdout
    finally:
        containerd.ctr("task", "kill", "--signal", "KILL", name, ok=False)
        wait_for(lambda: "RUNNING" not in containerd.ctr("task", "ls").stdout, "the task has ended")
        containerd.ctr("task", "rm", name, ok=False)
        containerd.ctr("container", "rm", name, ok=False)
    wait_for(lambda: gone(name), "the cgroups are removed")


class Podman:
    def __init__(self, directory: Path, executable: Path) -> None:
        self.parent = f"{PREFIX}podman-{secrets.token_hex(4)}"
        self.options = [
            "--root",
            str(directory / "root"),
            "--runroot",
            str(directory / "run"),
            "--tmpdir",
            str(directory / "tmp"),
            "--runtime",
            str(executable),
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return run("podman", *self.options, *words, ok=ok)

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program; a failure shows what it printed."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        parent = f"/{self.parent}"
        return self("run", "--network", "none", "--cgroup-parent", parent, *limits, *words, ok=ok)


@contextlib.contextmanager
def prepared_podman(executable: Path, root_tree: Path) -> Iterator[Podman]:
    """With an image `rftest`, and `executable` as the runtime; its containers are removed afterwards."""
    force.need_program("podman")
    # Podman refuses a run root of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="rftest-", dir="/tmp") as name:
        directory = Path(name)
        made = Podman(directory, executable)
        with tarfile.open(directory / "image.tar", "w") as archive:
            archive.add(root_tree, arcname=".")
        made("import", str(directory / "image.tar"), "rftest:latest")
        yield made
        made("rm", "--all", "--force", "--time", "0", ok=False)
        remove_everywhere(made.parent)


@pytest.fixture(scope="module")
def podman(executable: Path, root_tree: Path) -> Iterator[Podman]:
    """With this runtime."""
    with prepared_podman(executable, root_tree) as made:
        yield made


def test_podman_runs_a_container(podman: Podman) -> None:
    """Its default profile: seccomp, masks, capabilities, limits."""
    assert podman.run("--rm", "rftest", "/bin/echo", "hello").stdout == "hello\n"
    assert podman.run("--rm", "--memory", "64m", "--pids-limit", "20", "rftest", "/bin/true").returncode == 0
    assert podman.run("--rm", "rftest", "/bin/sh", "-c", "exit 6", ok=False).returncode == 6


def test_podman_execs_kills_and_removes(podman: Podman) -> None:
    """Through conmon."""
    name = podman.run("--detach", "rftest", "/bin/sleep", "3600").stdout.strip()
    assert podman("exec", name, "/bin/echo", "inside").stdout == "inside\n"
    assert podman("exec", name, "/bin/sh", "-c", "exit 4", ok=False).returncode == 4
    assert "sleep" in podman("top", name).stdout
    [state] = json.loads(podman("inspect", name).stdout)
    assert state["State"]["Status"] == "running"
    podman("pause", name)
    podman("unpause", name)
    podman("kill", name)
    wait_for(
        lambda: json.loads(podman("inspect", name).stdout)[0]["State"]["Status"] == "exited", "it has ended"
    )
    podman("rm", name)


def test_podman_gives_a_terminal(podman: Podman) -> None:
    """By conmon's console socket."""
    got = podman.run(
        "--rm", "--tty", "rftest", "/bin/sh", "-c", "tty && test -c /dev/console && echo console"
    )
    assert got.stdout.split() == ["/dev/pts/0", "console"]


def test_podman_with_a_user_namespace(podman: Podman) -> None:
    """--uidmap."""
    words = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"]
    got = podman.run("--rm", *words, "rftest", "/bin/cat", "/proc/self/uid_map")
    assert got.stdout.split() == ["0", "100000", "5000"]
