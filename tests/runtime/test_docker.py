# SPDX-License-Identifier: Apache-2.0
"""A real private dockerd, in a network namespace of its own, with this runtime added to it."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_engines import gone, run
from tests.support import force
from tests.support.cgroups import PREFIX, remove_everywhere
from tests.support.container import make_rootfs
from tests.support.waiting import end, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]
RUNTIME = "ringfence"


class Docker:
    """`docker` connected to that daemon."""

    def __init__(self, directory: Path) -> None:
        self.host = f"unix://{directory}/docker.sock"
        self.parent = f"{PREFIX}docker-{secrets.token_hex(4)}"

    def __call__(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return run("docker", "--host", self.host, *words, ok=ok)

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker run` with this runtime."""
        return self(
            "run",
            "--runtime",
            RUNTIME,
            "--network",
            "none",
            "--cgroup-parent",
            f"/{self.parent}",
            *words,
            ok=ok,
        )

    def status(self, name: str) -> str:
        """Returns the status of a container."""
        return str(json.loads(self("inspect", name).stdout)[0]["State"]["Status"])


@contextlib.contextmanager
def running_docker(directory: Path, executable: Path) -> Iterator[Docker]:
    """With an image `rftest`, and `executable` as the runtime; the daemon ends with the context."""
    force.need_root()
    for program in ("dockerd", "docker", "containerd"):
        force.need_program(program)
    tree = make_rootfs(directory / "tree", busybox=force.need_program("busybox"))
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(tree, arcname=".")
    made = Docker(directory)
    command = [
        "unshare", "--net", "dockerd", "--host", made.host, "--data-root", f"{directory}/data",
        "--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid", "--bridge", "none",
        "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs",
        "--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime", f"{RUNTIME}={executable}",
    ]  # fmt: skip
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert daemon.poll() is None, (directory / "log").read_text()[-2000:]
            return made("version", ok=False).returncode == 0

        wait_for(answers, "dockerd answers")
        made("import", str(directory / "image.tar"), "rftest:latest")
        yield made
        left = made("ps", "--all", "--quiet").stdout.split()
        if left:
            made("rm", "--force", *left, ok=False)
    finally:
        end(daemon, seconds=30)
        remove_everywhere(made.parent)


@pytest.fixture(scope="module")
def docker(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """With this runtime."""
    with running_docker(tmp_path_factory.mktemp("docker"), executable) as made:
        yield made


def test_docker_runs_a_container(docker: Docker) -> None:
    """With Docker's own profile, masks and limits; output, status, and removal."""
    assert docker.run("--rm", "rftest", "/bin/echo", "hello").stdout == "hello\n"
    assert docker.run("--rm", "rftest", "/bin/sh", "-c", "exit 6", ok=False).returncode == 6
    limits = ["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5", "--read-only", "--init=false"]
    got = docker.run("--rm", *limits, "rftest", "/bin/grep", "-E", "Seccomp:|NoNewPrivs", "/proc/self/status")
    assert got.stdout.split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    assert "ringfence" in docker("info").stdout


def test_docker_execs_pauses_kills_and_removes(docker: Docker) -> None:
    """The full life cycle of a long-running container."""
    name = docker.run("--detach", "rftest", "/bin/sleep", "3600").stdout.strip()
    assert docker("exec", name, "/bin/echo", "inside").stdout == "inside\n"
    assert docker("exec", "--user", "1000", name, "/bin/id", "-u").stdout == "1000\n"
    assert docker("exec", name, "/bin/sh", "-c", "exit 4", ok=False).returncode == 4
    assert "sleep" in docker("top", name).stdout
    docker("update", "--memory", "32m", "--memory-swap", "32m", name)
    docker("pause", name)
    assert docker.status(name) == "paused"
    docker("unpause", name)
    assert "CPU" in docker("stats", "--no-stream", name).stdout
    docker("kill", name)
    wait_for(lambda: docker.status(name) == "exited", "it has ended")
    assert docker("start", name).stdout.strip() == name
    docker("rm", "--force", name)
    wait_for(lambda: gone(f"{docker.parent}/{name}"), "the cgroups are removed")


def test_docker_gives_a_terminal(docker: Docker) -> None:
    """By containerd's console socket."""
    name = docker.run("--detach", "--tty", "rftest", "/bin/sh", "-c", "tty; test -c /dev/console && echo yes")
    identifier = name.stdout.strip()
    wait_for(lambda: docker.status(identifier) == "exited", "it has ended")
    assert docker("logs", identifier).stdout.split() == ["/dev/pts/0", "yes"]
    docker("rm", identifier)


def test_docker_reports_what_the_runtime_refuses(docker: Docker) -> None:
    """The runtime's single error reaches the user, and nothing is left."""
    got = docker.run("--rm", "rftest", "/bin/no-such-program", ok=False)
    assert got.returncode == 127
    assert "no such file or directory" in got.stderr
