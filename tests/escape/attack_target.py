# SPDX-License-Identifier: Apache-2.0
"""A container with the targets of the attacks, all created by the test.

Inside are the attack program, a "runtime socket" that the test listens on, namespace files of a
helper process outside, a cgroup beside the container's, kernel filesystems that a careless set-up
exposes, and (by --preserve-fds) descriptors of a host's disk (a loop device of the test) and of the
list of processes of the cgroup beside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ringfence.proof.fixtures import Fixtures, new_fixtures
from ringfence.proof.target_container import BESIDE, HELPER, LEAKED, OWN, leak
from tests.escape.program import Attempt, build, read_attempt
from tests.support.cgroups import PREFIX, hierarchies, is_pure_v2
from tests.support.container import Bundle, Container, new_container
from tests.support.waiting import patience

__all__ = ["BESIDE", "HELPER", "LEAKED", "OWN", "AttackTarget", "new_attack_target"]


class AttackTarget:
    """The container and its fixtures."""

    def __init__(self, container: Container, helper: int, leaked: tuple[int, int]) -> None:
        self.container = container
        self.helper = helper
        self.leaked = leaked  # descriptors: the root of the host's disk, cgroup.procs of the cgroup beside

    def run(self, argv: Sequence[str], *, seconds: float = 20.0) -> Attempt:
        """Runs `attacks ARGV` inside and returns its output and status."""
        v1 = "" if is_pure_v2() else "devices/"
        own = f"/sys/fs/cgroup/{v1}cgroup.procs"
        words = [word.format(leaked=3, beside=4, helper=self.helper, own=own) for word in argv]
        passed: list[str] = ["--preserve-fds", "2"] if {LEAKED, BESIDE} & set(argv) else []
        command = ["runc", "exec", *passed, self.container.name, "/bin/attacks", *words]
        got = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience(seconds),
            check=False,
            preexec_fn=self._leak if passed else None,
            close_fds=not passed,
        )
        return read_attempt(got.returncode, got.stdout.decode(errors="replace"))

    def _leak(self) -> None:
        """Runs in the child before exec: leaks the two as descriptors 3 and 4, and no other."""
        leak(dict(enumerate(self.leaked, start=3)))


@contextlib.contextmanager
def new_attack_target(
    bundle: Bundle, label: str = "target", *, host_pid: bool = False, directory: Path
) -> Iterator[AttackTarget]:
    """Runs a container `rftest-LABEL-...` with its fixtures; host_pid: in the host's pid namespace."""
    with contextlib.ExitStack() as stack:
        shutil.copy(build(), bundle.rootfs / "bin/attacks")
        fixtures = stack.enter_context(
            new_fixtures(directory, f"{PREFIX}{label}-beside-{secrets.token_hex(3)}")
        )
        disk = fixtures.disk
        if disk is None:
            raise RuntimeError("this machine has no loop device or no mkfs.ext4")
        _bind_fixtures(bundle, fixtures)
        if host_pid:
            namespaces = bundle.config["linux"]["namespaces"]
            bundle.config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "pid"]
        root = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, root)
        beside = os.open(fixtures.beside / "cgroup.procs", os.O_WRONLY)
        stack.callback(os.close, beside)
        container = stack.enter_context(new_container(bundle, label))
        yield AttackTarget(container, fixtures.helper, (root, beside))


def _bind_fixtures(bundle: Bundle, fixtures: Fixtures) -> None:
    bundle.bind(fixtures.socket, "/run/docker.sock")
    bundle.bind(Path(f"/proc/{os.getpid()}/ns/uts"), "/run/ns-host-uts")
    bundle.bind(Path(f"/proc/{fixtures.helper}/ns/uts"), "/run/ns-other-uts")
    bundle.bind(fixtures.beside, "/run/cgroup-beside")
    if fixtures.disk:
        bundle.bind(fixtures.disk / "etc/passwd", "/run/host-passwd")
    bundle.add_mount("/sys/fs/cgroup", "cgroup", "rw")
    if "freezer" in hierarchies():
        bundle.bind(hierarchies()["freezer"] / "release_agent", "/run/release_agent")
    known = Path("/proc/filesystems").read_text().split()
    for kind in ("tracefs", "binfmt_misc"):
        if kind in known:
            bundle.add_mount(f"/run/{kind}", kind)
