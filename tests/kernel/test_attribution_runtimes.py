# SPDX-License-Identifier: Apache-2.0
"""Containers of real runtimes: attributed in the kernel, named and assessed from files on disk."""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import EventKind
from ringfence.containers.enrich import Request, Worker, default_sources
from ringfence.containers.hierarchy import HierarchyKind, detect
from ringfence.containers.model import Container, Enrichment
from ringfence.containers.patterns import DEFAULT_PATTERNS
from tests.kernel.attribution import Observer, TestCgroup, new_prefix, observing
from tests.support import force
from tests.support.cgroups import remove_everywhere
from tests.support.container import Bundle
from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]


@contextlib.contextmanager
def enriching(observer: Observer, **roots: Path) -> Iterator[Worker]:
    """A worker for this observer's hierarchy and the runtimes of this test."""
    hierarchy = detect()
    worker = Worker(default_sources(roots), exists=lambda path: hierarchy.directory(path).is_dir())
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def enriched(observer: Observer, worker: Worker, cgroup_id: int) -> Container:
    """Ask, wait for the answer, apply it."""
    container = observer.registry.find(cgroup_id)
    assert container is not None
    assert worker.submit(Request.of(container))
    end = time.monotonic() + patience(10)
    while time.monotonic() < end:
        select.select([worker], [], [], 0.1)
        for answer in worker.answers():
            assert answer.cgroup_id == cgroup_id
            changed = observer.registry.apply(cgroup_id, answer.facts)
            assert changed is not None
            if changed.enrichment is not Enrichment.PENDING:
                return changed
    raise AssertionError("no answer")


class Runc:
    """runc with a state directory of its own, and one container with an id of 64 digits."""

    def __init__(self, bundle: Bundle, directory: Path) -> None:
        self.bundle = bundle
        self.id = secrets.token_hex(32)
        self.parent = TestCgroup(new_prefix() + "runc")
        self.root = directory / "state"

    @property
    def cgroup(self) -> TestCgroup:
        """The container's cgroup."""
        return TestCgroup(f"{self.parent.name}/{self.id}")

    def call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run runc to its end. Its container must not keep the test's pipes open."""
        return subprocess.run(
            ["runc", "--root", str(self.root), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=patience(60),
        )

    def start(self) -> None:
        """`runc run --detach` with the cgroup names of Kubernetes: an id below a parent."""
        directory = self.bundle.write(self.parent.name)
        self.bundle.config["linux"]["cgroupsPath"] = f"/{self.cgroup.name}"
        (directory / "config.json").write_text(json.dumps(self.bundle.config))
        self.call("run", "--detach", "--bundle", str(directory), self.id)

    def remove(self) -> None:
        """Delete the container and what runc leaves: parents remain in each hierarchy."""
        subprocess.run(["runc", "--root", str(self.root), "delete", "--force", self.id], check=False)
        remove_everywhere(self.parent.name)


@pytest.fixture
def runc(bundle: Bundle, tmp_path: Path) -> Iterator[Runc]:
    """A runc container, not started yet."""
    force.need_program("runc")
    made = Runc(bundle, tmp_path)
    try:
        yield made
    finally:
        made.remove()


def test_a_container_of_runc_is_attributed_named_and_assessed(runc: Runc) -> None:
    """Enrolled by its 64 digits; annotations and posture are read from the bundle and /proc."""
    runc.bundle.config["annotations"] = {
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.image-name": "registry.example/web:1",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    }
    runc.bundle.bind(Path("/etc"), "/host-etc")
    with observing(*DEFAULT_PATTERNS) as observer, enriching(observer, runc=runc.root) as worker:
        runc.start()
        [created] = observer.wait(EventKind.CONTAINER_CREATE, runc.id)
        observer.wait(EventKind.CONTAINER_START, runc.id)
        [executed] = observer.wait(EventKind.PROCESS_EXEC, runc.id)
        assert created.container is not None
        assert created.container.cgroup_path == f"/{runc.cgroup.name}"
        # runc's own set-up is not the workload's: the first program is the requested one
        assert executed.event.args.startswith(b"/bin/sleep\x003600")  # type: ignore[union-attr]
        found = enriched(observer, worker, created.container.cgroup_id)
        assert (found.name, found.image) == ("web", "registry.example/web:1")
        assert (found.pod, found.namespace) == (None, None)  # its cgroup is not in a pod's
        assert found.privileged
        assert found.posture is not None
        assert found.posture.sensitive_mounts
        assert ("host-etc", "/host-etc") in {(m.kind, m.target) for m in found.posture.sensitive_mounts}
        runc.remove()
        observer.wait(EventKind.CONTAINER_REMOVE, runc.id)
        assert [slot for slot, value in observer.slots.used() if value.cgroup == found.cgroup_id] == []


def test_a_command_executed_in_a_container_belongs_to_it(runc: Runc) -> None:
    """`runc exec`: its set-up in the container's cgroup is not armed, its command is."""
    with observing(*DEFAULT_PATTERNS) as observer:
        runc.start()
        observer.wait(EventKind.CONTAINER_START, runc.id)
        runc.call("exec", runc.id, "/bin/true")
        executed = observer.wait(EventKind.PROCESS_EXEC, runc.id, count=2)
        assert [seen.event.args for seen in executed] == [b"/bin/sleep\x003600", b"/bin/true"]  # type: ignore[union-attr]
        assert len(observer.of(EventKind.CONTAINER_START, runc.id)) == 1


def test_a_running_container_of_runc_is_adopted(runc: Runc) -> None:
    """Its tasks, its name and its path are known without a CREATE record."""
    runc.start()
    with (
        observing(*DEFAULT_PATTERNS, attach=False) as observer,
        enriching(observer, runc=runc.root) as worker,
    ):
        observer.attach()
        observer.adopt()
        observer.wait(EventKind.CONTAINER_START, runc.id)
        found = next(container for container in observer.registry if container.id == runc.id)
        assert found.adopted
        assert found.cgroup_path == f"/{runc.cgroup.name}"
        assert [process.args for process in observer.tree.of_container(found.cgroup_id)] == [
            b"/bin/sleep\x003600\0"
        ]
        answer = enriched(observer, worker, found.cgroup_id)
        assert answer.enrichment is Enrichment.DONE


@pytest.mark.needs("crun", "unshare")
def test_a_container_of_crun_at_the_root_of_v2_is_attributed(bundle: Bundle, tmp_path: Path) -> None:
    """Where crun sees v1 only, its container stays
    in the root of v2: a v1 controller identifies it.
    """
    hierarchy = detect()
    if hierarchy.kind is not HierarchyKind.HYBRID:
        force.elsewhere("needs a hybrid cgroup host")
    name, identifier = new_prefix() + "crun", secrets.token_hex(32)
    directory = bundle.write(name)
    bundle.config["linux"]["cgroupsPath"] = f"/{name}/{identifier}"
    (directory / "config.json").write_text(json.dumps(bundle.config))
    crun = f"crun --root {tmp_path / 'state'}"
    # a mount namespace for crun alone: nothing is unmounted for other processes
    alone = f"umount {hierarchy.v2_mount} && exec {crun}"
    try:
        with observing(*DEFAULT_PATTERNS) as observer, enriching(observer, crun=tmp_path / "state") as worker:
            run = f"{alone} run --detach --bundle {directory} {identifier}"
            subprocess.run(["unshare", "-m", "sh", "-c", run], check=True, stdin=subprocess.DEVNULL)
            [started] = observer.wait(EventKind.CONTAINER_START, identifier)
            lines = Path(f"/proc/{started.event.pid}/cgroup").read_text().splitlines()
            assert "0::/" in lines
            found = enriched(observer, worker, started.event.container)
            assert (found.cgroup_path, found.pid) == (f"/{name}/{identifier}", started.event.pid)
            assert found.posture is not None
    finally:
        stop = f"{alone} delete --force {identifier}"
        subprocess.run(["unshare", "-m", "sh", "-c", stop], check=False, capture_output=True)
        remove_everywhere(name)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a short name: podman refuses a run root of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="rftest-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.mark.needs("podman", "runc")
def test_a_container_of_podman_has_its_name_and_image(rootfs: Path, short_path: Path) -> None:
    """`podman run --name`: from containers/storage on disk, without running podman."""
    parent = new_prefix() + "podman"
    storage = ["podman", "--root", str(short_path / "storage"), "--runroot", str(short_path / "run")]
    image = f"localhost/{parent}:1"

    def podman(*arguments: str, **options: Any) -> str:
        done = subprocess.run(
            [*storage, *arguments], check=True, capture_output=True, timeout=patience(60), **options
        )
        return str(done.stdout.decode().strip())

    with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as tar:
        podman("import", "-", image, stdin=tar.stdout)
    try:
        with (
            observing(*DEFAULT_PATTERNS) as observer,
            enriching(observer, podman=short_path / "storage") as worker,
        ):
            identifier = podman(
                "--runtime=runc", "--cgroup-manager=cgroupfs", "run", "--detach", "--network=none",
                "--pull=never", "--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096",
                f"--name={parent}", "--annotation=team=blue", f"--cgroup-parent=/{parent}",
                # as an image's author may have set them in its manifest
                "--annotation=ringfence.io/image=registry/trusted", "--annotation=ringfence.io/name=dns",
                image, "/bin/sleep", "600",
            )  # fmt: skip
            observer.wait(EventKind.CONTAINER_START, identifier)
            container = next(found for found in observer.registry if found.id == identifier)
            assert container.runtime == "podman"
            found = enriched(observer, worker, container.cgroup_id)
            assert (found.name, found.image) == (parent, image)
            assert found.labels["team"] == "blue"
            assert found.privileged is False
            podman("rm", "--force", "--time=0", parent)
            observer.wait(EventKind.CONTAINER_REMOVE, identifier)
    finally:
        subprocess.run([*storage, "rm", "--force", "--time=0", parent], check=False, capture_output=True)
        subprocess.run([*storage, "rmi", "--force", image], check=False, capture_output=True)
        remove_everywhere(parent)
