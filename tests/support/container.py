# SPDX-License-Identifier: Apache-2.0
"""Real containers by runc, on a busybox root filesystem.

The bundle is that of `ringfence policy test`, with the rights of `--privileged`: the kernel itself
would allow an attack. Its cgroup is `/rftest-...`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ringfence.proof.target_container import privileged_config
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.waiting import patience

__all__ = ["Bundle", "Container", "make_rootfs", "new_container"]


def make_rootfs(directory: Path, *, busybox: str) -> Path:
    """Make a root filesystem of a static busybox and its applets in `directory`."""
    for name in ("bin", "sbin", "etc", "root", "proc", "sys", "dev", "tmp", "run", "var/log", "usr/bin"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    target = directory / "bin/busybox"
    shutil.copy(busybox, target)
    applets = subprocess.run([str(target), "--list"], check=True, capture_output=True, text=True).stdout
    for applet in applets.split():
        link = directory / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (directory / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return directory


class Bundle:
    """An OCI bundle: a root filesystem and a configuration that a test may change before it starts it."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.config = privileged_config(rootfs, None)
        self.config["process"] |= {
            "args": ["/bin/sleep", "3600"],
            "env": ["PATH=/bin:/sbin:/usr/bin", "HOME=/root"],
        }
        self.config["mounts"] = [m for m in self.config["mounts"] if m["type"] != "cgroup"]

    def bind(self, source: Path, destination: str) -> None:
        """Mount a file or directory of the host inside, writable."""
        self.config["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", "rw"]}
        )

    def add_mount(self, destination: str, kind: str, *options: str) -> None:
        """Mount a filesystem of this kind inside."""
        self.config["mounts"].append(
            {"destination": destination, "type": kind, "source": kind, "options": list(options)}
        )

    def write(self, name: str) -> Path:
        """Write config.json for a container of this name. Returns the bundle's directory."""
        self.config["linux"]["cgroupsPath"] = f"/{name}"
        directory = self.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(self.config, indent=1))
        return directory


class Container:
    """A running container, and commands inside it."""

    def __init__(self, name: str, bundle: Path) -> None:
        self.name = name
        self.bundle = bundle
        self.cgroup = Cgroup(name)

    def runc(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run runc with these arguments."""
        options.setdefault("timeout", patience(60))
        options.setdefault("check", False)
        return subprocess.run(["runc", *arguments], **options)

    def start(self, **options: Any) -> None:
        """`runc run --detach`."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.DEVNULL)
        log = self.bundle / "runc.log"
        got = self.runc(
            "--log", str(log), "run", "--detach", "--bundle", str(self.bundle), self.name, **options
        )
        if got.returncode:
            raise AssertionError(f"runc run {self.name}: status {got.returncode}: {log.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        """Host pid of the container's first process."""
        state = self.runc("state", self.name, capture_output=True, check=True)
        return int(json.loads(state.stdout)["pid"])

    def command(self, argv: Sequence[str]) -> list[str]:
        """Returns the argv that runs `argv` inside."""
        return ["runc", "exec", self.name, *argv]

    def exec(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command inside to its end; a death by signal N gives status 128+N."""
        options.setdefault("capture_output", True)
        options.setdefault("stdin", subprocess.DEVNULL)
        return self.runc("exec", self.name, *argv, **options)

    def remove(self) -> None:
        """Delete the container and the rest of its cgroups."""
        self.runc("delete", "--force", self.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.cgroup.remove()


@contextlib.contextmanager
def new_container(bundle: Bundle, label: str = "ct", **options: Any) -> Iterator[Container]:
    """Start a container `rftest-LABEL-xxxxxx`; it is removed after the `with` block."""
    name = f"{PREFIX}{label}-{secrets.token_hex(3)}"
    made = Container(name, bundle.write(name))
    try:
        made.start(**options)
        yield made
    finally:
        made.remove()
        with contextlib.suppress(OSError):
            os.unlink(made.bundle / "config.json")
