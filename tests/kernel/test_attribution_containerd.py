# SPDX-License-Identifier: Apache-2.0
"""A container of a real containerd, with its own root, state and socket."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from ringfence.containers.patterns import DEFAULT_PATTERNS
from tests.kernel.attribution import new_prefix, observing
from tests.kernel.test_attribution_runtimes import enriched, enriching
from tests.support.cgroups import remove_everywhere
from tests.support.waiting import end, patience, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("containerd", "ctr", "runc", "busybox")]

CONFIG = """\
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/c.sock"
"""
ANNOTATIONS = {
    "io.kubernetes.cri.container-name": "web",
    "io.kubernetes.cri.image-name": "registry.example/web:1",
    "io.kubernetes.cri.sandbox-namespace": "shop",
    "io.kubernetes.cri.sandbox-name": "web-0",
}


class Containerd:
    """The daemon, and its client."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def tasks(self) -> Path:
        """The directory of its containers' bundles."""
        return self.directory / "state/io.containerd.runtime.v2.task"

    def ctr(self, *arguments: str, check: bool = True) -> int:
        """Run the client to its end."""
        argv = ["ctr", "--address", str(self.directory / "c.sock"), *arguments]
        done = subprocess.run(
            argv, check=check, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience(60)
        )
        return done.returncode


@pytest.fixture
def containerd() -> Iterator[Containerd]:
    """In a short path, because its sockets are named after it."""
    with tempfile.TemporaryDirectory(prefix="rftest-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "config.toml").write_text(CONFIG.format(name))
        with (directory / "log").open("wb") as log:
            daemon = subprocess.Popen(
                ["containerd", "--config", str(directory / "config.toml")], stdout=log, stderr=log
            )
        made = Containerd(directory)
        try:
            wait_for(lambda: made.ctr("version", check=False) == 0, "containerd to answer")
            yield made
        finally:
            end(daemon)


def test_a_container_of_containerd_has_the_names_of_its_bundle(containerd: Containerd, rootfs: Path) -> None:
    """Annotations of the CRI plugin, the PID that
    containerd recorded, and the kernel's attribution.
    """
    name, identifier = new_prefix() + "ctr", secrets.token_hex(32)
    words = [word for pair in ANNOTATIONS.items() for word in ("--annotation", "=".join(pair))]
    try:
        with (
            observing(*DEFAULT_PATTERNS) as observer,
            enriching(observer, containerd=containerd.tasks) as worker,
        ):
            containerd.ctr(
                "run", "--detach", "--null-io", "--rootfs", "--cgroup", f"/{name}/{identifier}", *words,
                str(rootfs), identifier, "/bin/sleep", "600",
            )  # fmt: skip
            [started] = observer.wait(EventKind.CONTAINER_START, identifier)
            found = enriched(observer, worker, started.event.container)
            assert (found.runtime, found.name, found.image) == (
                "containerd",
                "web",
                "registry.example/web:1",
            )
            assert found.pid == started.event.pid
            assert (found.namespace, found.pod) == (None, None)  # its cgroup is not in a pod's
            assert found.privileged is False
            containerd.ctr("task", "kill", "--signal", "KILL", identifier)
            observer.wait(EventKind.CONTAINER_STOP, identifier)
    finally:
        containerd.ctr("task", "rm", "--force", identifier, check=False)
        containerd.ctr("container", "rm", identifier, check=False)
        remove_everywhere(name)
