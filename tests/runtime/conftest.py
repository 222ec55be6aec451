# SPDX-License-Identifier: Apache-2.0
"""The runtime as an executable, with a private state
directory, cgroups (`/rftest-...`) and bundles.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.sandboxes import host, sandboxes  # noqa: F401 (fixtures)
from tests.support import force
from tests.support.cgroups import PREFIX
from tests.support.container import make_rootfs
from tests.support.waiting import patience, wait_for

ROOT = Path(__file__).resolve().parents[2]
HARD = ["nosuid", "noexec", "nodev"]
CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sleep", "3600"],
        "env": ["PATH=/bin:/sbin:/usr/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": {
            name: ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]
            for name in ("bounding", "effective", "permitted")
        },
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "rftest",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*HARD, "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts", "cgroup")],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
    },
}


class Box:
    """A bundle, and the runtime's commands on the container made from it."""

    def __init__(self, runtime: Runtime, directory: Path, name: str) -> None:
        self.runtime = runtime
        self.directory = directory
        self.name = name
        self.config = copy.deepcopy(CONFIG)
        self.config["linux"]["cgroupsPath"] = f"/{name}"

    @property
    def rootfs(self) -> Path:
        """The container's root on the host."""
        return self.directory / "rootfs"

    def write(self) -> None:
        """Write config.json."""
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def args(self, *words: str) -> Box:
        """Let the container run this command."""
        self.config["process"]["args"] = list(words)
        return self

    def shell(self, script: str) -> Box:
        """Let the container run a shell script."""
        return self.args("/bin/sh", "-c", script)

    def do(self, command: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`ringfence-runtime COMMAND [WORDS] NAME`, in the bundle."""
        return self.runtime(command, *words, self.name, cwd=self.directory, **options)

    def run(self, **options: Any) -> subprocess.CompletedProcess[str]:
        """Write the configuration and run it in the foreground."""
        self.write()
        return self.do("run", **options)

    def output(self) -> str:
        """Returns its output; it must succeed."""
        got = self.run()
        assert got.returncode == 0, got.stderr
        return got.stdout

    def refused(self) -> str:
        """Run what must be refused. Returns the message. Nothing may be left of the attempt."""
        got = self.run()
        assert got.returncode != 0, got.stdout
        assert "internal error" not in got.stderr
        assert "Traceback" not in got.stderr
        assert not (self.runtime.root / self.name).exists()
        assert not self.cgroups()
        return got.stderr

    def start(self) -> Box:
        """Run it in the background."""
        self.write()
        log = self.directory / "log"
        command = ["--log", str(log), "run", "--detach", self.name]
        got = self.runtime(*command, cwd=self.directory, capture=False)
        assert got.returncode == 0, log.read_text()
        return self

    def exec(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`exec` in the container."""
        return self.runtime("exec", self.name, *words, **options)

    def state(self) -> dict[str, Any]:
        got = self.do("state")
        assert got.returncode == 0, got.stderr
        return dict(json.loads(got.stdout))

    def wait(self, status: str) -> None:
        """Wait until the container has this status."""
        wait_for(lambda: self.state()["status"] == status, f"{self.name} is {status}")

    def cgroups(self) -> list[Path]:
        """Returns its cgroup directories, in every hierarchy."""
        top = Path("/sys/fs/cgroup")
        return [path for path in (top / self.name, *top.glob(f"*/{self.name}")) if path.exists()]


class Runtime:
    """The executable and its state directory."""

    def __init__(self, executable: Path, root: Path) -> None:
        self.executable = executable
        self.root = root

    def __call__(self, *words: str, capture: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", patience(60))
        options.setdefault("stdin", subprocess.DEVNULL)
        if capture:
            options.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        else:
            options.update(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        command = [str(self.executable), "--root", str(self.root), *words]
        return subprocess.run(command, text=True, check=False, **options)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules with BOTH_INITS run with the native init and with the Python init."""
    if "executable" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_INITS", False):
        metafunc.parametrize("executable", ["small", "python"], indirect=True)


@pytest.fixture(scope="session")
def executable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable that `ringfence-runtime install` writes."""
    force.need_root()
    path = tmp_path_factory.mktemp("bin") / "ringfence-runtime"
    environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(path)]
    if getattr(request, "param", "small") == "python":
        command.append("--no-init")
    else:
        force.need_program("gcc")
    subprocess.run(command, check=True, env=environment)
    return path


@pytest.fixture
def runtime(executable: Path, tmp_path: Path) -> Runtime:
    """The executable with a state directory of this test."""
    return Runtime(executable, tmp_path / "state")


@pytest.fixture
def boxes(runtime: Runtime, tmp_path: Path) -> Iterator[Any]:
    """A function that makes bundles; the rest of their containers is removed afterwards."""
    made: list[Box] = []
    busybox = force.need_program("busybox")

    def make() -> Box:
        directory = tmp_path / f"bundle{len(made)}"
        directory.mkdir()
        make_rootfs(directory / "rootfs", busybox=busybox)
        made.append(Box(runtime, directory, f"{PREFIX}{secrets.token_hex(6)}"))
        return made[-1]

    yield make
    for box in made:
        box.do("delete", "--force")
        leaked = [str(path) for path in box.cgroups()]
        assert not leaked, leaked


@pytest.fixture
def box(boxes: Any) -> Box:
    """One bundle."""
    made: Box = boxes()
    return made
