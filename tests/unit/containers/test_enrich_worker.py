# SPDX-License-Identifier: Apache-2.0
"""Queries in the background: retries, limits, failing sources, and a daemon that does not respond."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ringfence.containers.enrich import default_sources
from ringfence.containers.enrich.docker import Docker, socket_path
from ringfence.containers.enrich.proc import posture_of_task
from ringfence.containers.enrich.request import Request, Source
from ringfence.containers.enrich.worker import Answer, Worker, enrich
from ringfence.containers.model import Enrichment, Facts
from ringfence.faults import handler_errors
from ringfence_linux.procfs import TICK_NS, start_ticks
from tests.support.waiting import wait_for

HEX = "ab" * 32
REQUEST = Request(5, HEX, f"/x/{HEX}", "", 0, 0)


class FakeSource:
    """A source that has facts after a number of queries."""

    def __init__(self, facts: Facts | None, *, after: int = 0, name: str = "fake") -> None:
        self.name, self.facts, self.after = name, facts, after
        self.asked = 0

    def find(self, request: Request) -> Facts | None:
        self.asked += 1
        return self.facts if self.asked > self.after else None


class BrokenSource:
    name = "broken"

    def find(self, request: Request) -> Facts | None:
        raise ZeroDivisionError("a bug in a source")


def there(path: str) -> bool:
    """Every cgroup exists."""
    return True


def test_the_first_source_of_a_fact_is_used_and_others_add_missing_ones() -> None:
    """Docker knows the name, the bundle has the annotations."""
    first = FakeSource(Facts(Enrichment.DONE, source="docker", name="web", labels={"a": "1"}))
    second = FakeSource(
        Facts(
            Enrichment.DONE,
            source="runc",
            name="x",
            image="nginx",
            labels={"a": "2", "b": "3"},
            cluster_labels={"b": "3"},
        )
    )
    found = enrich(REQUEST, [first, second], exists=there)
    assert (found.source, found.name, found.image) == ("docker", "web", "nginx")
    assert found.labels == {"a": "1", "b": "3"}
    assert found.cluster_labels == {"b": "3"}
    assert found.enrichment is Enrichment.DONE


def test_a_broken_source_does_not_stop_the_others() -> None:
    """The error is counted, and the facts of the others are used."""
    errors: list[tuple[str, str]] = []
    sources: list[Source] = [BrokenSource(), FakeSource(Facts(Enrichment.DONE, name="web"))]
    found = enrich(REQUEST, sources, exists=there, on_error=lambda name, text: errors.append((name, text)))
    assert found.name == "web"
    assert errors == [("broken", "ZeroDivisionError: a bug in a source")]
    assert enrich(REQUEST, [BrokenSource()], exists=there).enrichment is Enrichment.FAILED


def test_the_message_of_a_broken_source_is_bounded() -> None:
    """It may quote what the runtime answered."""

    class Verbose(BrokenSource):
        def find(self, request: Request) -> Facts | None:
            raise ValueError("x" * 1000)

    heard: list[tuple[str, str]] = []
    enrich(REQUEST, [Verbose()], exists=there, on_error=lambda name, text: heard.append((name, text)))
    assert heard == [("broken", ("ValueError: " + "x" * 1000)[:500])]


def test_a_container_that_is_gone_has_the_state_gone() -> None:
    """No source knows it, and its cgroup is gone."""
    assert enrich(REQUEST, [], exists=lambda path: False).enrichment is Enrichment.GONE
    assert enrich(REQUEST, [], exists=there).enrichment is Enrichment.NONE


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Runs a worker, and stops it at the end."""
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def wait_answers(worker: Worker, count: int = 1) -> list[Answer]:
    """Waits for a number of answers, by the descriptor that the event loop polls."""
    found: list[Answer] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        ready, _, _ = select.select([worker], [], [], deadline - time.monotonic())
        assert ready, "no answer"
        found += worker.answers()
    return found


def test_a_runtime_that_is_not_ready_is_queried_again() -> None:
    """State is written after the cgroup is created."""
    source = FakeSource(Facts(Enrichment.DONE, name="web"), after=2)
    with running(Worker([source], exists=there, retries=(0.001, 0.001, 0.001))) as worker:
        assert worker.submit(REQUEST)
        [answer] = wait_answers(worker)
    assert (answer.cgroup_id, answer.facts.name, source.asked) == (5, "web", 3)


def test_a_stopped_worker_leaves_no_descriptor() -> None:
    """Neither one that ran, nor one that did not."""
    for started in (True, False):
        worker = Worker([], exists=there)
        if started:
            worker.start()
        descriptor = worker.fileno()
        os.fstat(descriptor)
        worker.stop()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_the_number_of_retries_is_limited() -> None:
    """After the last retry the container is known to be unknown."""
    source = FakeSource(None)
    with running(Worker([source], exists=there, retries=(0.001,))) as worker:
        worker.submit(REQUEST)
        [answer] = wait_answers(worker)
    assert answer.facts.enrichment is Enrichment.NONE
    assert source.asked == 2


def test_a_full_queue_refuses_and_counts() -> None:
    """A storm of containers uses no memory."""
    worker = Worker([], exists=there, queue_max=2)
    assert [worker.submit(REQUEST) for _ in range(3)] == [True, True, False]
    assert worker.counts.dropped == 1
    worker.stop()


def test_a_container_without_a_path_is_found_by_its_id() -> None:
    """The path was truncated, or the CREATE was lost."""
    source = FakeSource(Facts(Enrichment.DONE, name="web"))
    paths = {5: f"/docker/{HEX}"}
    request = Request(5, "cgroup-5", "", "", 0, 0)
    with running(Worker([source], exists=there, path_of=lambda i: paths.get(i, ""))) as worker:
        worker.submit(request)
        worker.submit(Request(6, "cgroup-6", "", "", 0, 0))
        answers = {answer.cgroup_id: answer.facts for answer in wait_answers(worker, 2)}
    assert (answers[5].cgroup_path, answers[5].name) == (f"/docker/{HEX}", "web")
    assert answers[6].enrichment is Enrichment.GONE


def test_stopping_a_worker_that_never_ran_is_no_error() -> None:
    """The start of the agent may fail before."""
    Worker([], exists=there).stop()


@contextmanager
def docker_daemon(directory: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A socket that answers one request by `answer`."""
    path = directory / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(5)


def test_docker_is_queried_on_its_socket(tmp_path: Path) -> None:
    """By HTTP over a Unix socket."""
    asked = []
    body = json.dumps(
        {"Name": "/web", "Config": {"Image": "nginx", "Labels": None}, "State": {"Pid": 7}}
    ).encode()

    def answer(connection: socket.socket) -> None:
        asked.append(1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with docker_daemon(tmp_path, answer) as path:
        found = Docker(path).find(REQUEST)
    assert found is not None
    assert (found.name, found.image, found.pid, asked) == ("web", "nginx", 7, [1])


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"])
def test_a_dripping_daemon_is_abandoned_at_the_timeout(tmp_path: Path, head: bytes) -> None:
    """A byte now and then restarts the time limit of a read, not that of the request."""
    sent = []

    def drip(connection: socket.socket) -> None:
        with suppress(OSError):  # it is abandoned
            connection.sendall(head)
            for _ in range(400):
                time.sleep(0.05)
                connection.sendall(b"H")
                sent.append(1)

    with docker_daemon(tmp_path, drip) as path:
        assert Docker(path, timeout=0.5).find(REQUEST) is None
        assert len(sent) < 300


def test_a_hanging_daemon_is_abandoned_at_the_timeout(tmp_path: Path) -> None:
    """Then its files are read."""
    release = threading.Event()

    def hang(connection: socket.socket) -> None:
        release.wait(60)

    with docker_daemon(tmp_path, hang) as path:
        began = time.monotonic()
        assert Docker(path, timeout=0.05).find(REQUEST) is None
        assert time.monotonic() - began < 20
        release.set()


def test_an_endless_response_is_cut(tmp_path: Path) -> None:
    """The limit is on bytes, regardless of the header."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            pass

    with docker_daemon(tmp_path, answer) as path:
        found = enrich(REQUEST, [Docker(path)], exists=there)
    assert found.enrichment is Enrichment.FAILED


def test_docker_host_names_the_socket() -> None:
    """Only as a unix:// address: no request leaves the node."""
    assert socket_path({"DOCKER_HOST": "unix:///x/d.sock"}) == Path("/x/d.sock")
    assert socket_path({"DOCKER_HOST": "tcp://10.0.0.1:2375"}) == Path("/run/docker.sock")


def test_configured_roots_are_used(tmp_path: Path) -> None:
    """Those of `runtime.roots` in the configuration."""
    state = tmp_path / HEX
    state.mkdir()
    (state / "status").write_text(json.dumps({"pid": 3}))
    found = enrich(REQUEST, default_sources({"crun": tmp_path}), exists=there)
    assert (found.source, found.pid) == ("crun", 3)


def test_each_configured_root_is_its_sources(tmp_path: Path) -> None:
    """By its key in the configuration; a directory of docker is its data, and no socket."""
    write = Path.write_text
    for path in ("runc", "containerd/k8s.io", "podman/overlay-containers", "docker/containers"):
        (tmp_path / path / HEX).mkdir(parents=True)
    write(tmp_path / "runc" / HEX / "state.json", json.dumps({"init_process_pid": 4}))
    write(tmp_path / "containerd/k8s.io" / HEX / "config.json", "{}")
    write(tmp_path / "podman/overlay-containers/containers.json", json.dumps([{"id": HEX, "names": ["n"]}]))
    write(tmp_path / "docker/containers" / HEX / "config.v2.json", json.dumps({"Name": "/n"}))
    for name in ("runc", "containerd", "podman", "docker"):
        found = enrich(REQUEST, default_sources({name: tmp_path / name}), exists=there)
        assert (found.source, found.enrichment) == (name, Enrichment.DONE)


def fake_task(proc: Path, status: str) -> None:
    """A process 5 of /proc, in its own user namespace, and PID 1."""
    for pid in ("5", "self", "1"):
        (proc / pid / "ns").mkdir(parents=True)
        (proc / pid / "ns/user").symlink_to(f"user:[{11 if pid == '5' else 12}]")
        (proc / pid / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    (proc / "5/stat").write_text("5 (x) S 1 " + "0 " * 17 + "70 0 0\n")  # proc(5): the start is field 22
    (proc / "5/status").write_text(status)
    (proc / "5/uid_map").write_text("0 1000 10\n1 x 2\n3 4\n")
    (proc / "5/attr").mkdir()
    (proc / "5/attr/current").write_bytes(b"docker-default (enforce)\n\0")
    (proc / "5/mountinfo").write_text("51 1 8:1 /etc /e rw - ext4 /dev/sda1 rw\n")


def test_the_fields_of_a_task_are_its_posture(tmp_path: Path) -> None:
    """As proc(5) has them."""
    fake_task(tmp_path, "Name:\tx\nCapEff:\t200000\nCapBnd:\t1\nNoNewPrivs:\t1\nSeccomp:\t2\n")
    found = posture_of_task(5, 0, tmp_path)
    assert found is not None
    assert (found.capabilities, found.bounding) == (("CAP_SYS_ADMIN",), ("CAP_CHOWN",))
    assert (found.no_new_privs, found.seccomp, found.user_namespace) == (True, "filter", True)
    assert (found.uid_map, found.apparmor) == (((0, 1000, 10),), "docker-default (enforce)")
    assert [(one.kind, one.source) for one in found.sensitive_mounts] == [("host-etc", "/etc")]
    (tmp_path / "5/status").write_text("NoNewPrivs:\t0\nSeccomp:\t0\n")
    (tmp_path / "5/ns/user").unlink()
    found = posture_of_task(5, 70 * TICK_NS, tmp_path)
    assert found is not None
    assert (found.no_new_privs, found.seccomp, found.capabilities) == (False, "disabled", None)
    assert found.user_namespace is False  # it cannot be read: nothing is claimed
    assert posture_of_task(5, 71 * TICK_NS, tmp_path) is None
    (tmp_path / "5/status").write_text("Seccomp:\t3\n")
    found = posture_of_task(5, 0, tmp_path)
    assert found is not None
    assert (found.no_new_privs, found.seccomp) == (None, None)
    (tmp_path / "5/status").unlink()
    assert posture_of_task(5, 0, tmp_path) is None


def test_the_posture_of_a_task_is_read_from_proc() -> None:
    """For the test's own process."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    posture = posture_of_task(os.getpid(), ticks * TICK_NS)
    assert posture is not None
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    assert posture.capabilities is not None
    assert len(posture.capabilities) == effective.bit_count()


def test_the_posture_of_a_reused_pid_is_not_used() -> None:
    """Its start time differs."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert posture_of_task(os.getpid(), (ticks + 1) * TICK_NS) is None
    assert posture_of_task(0x7FFFFFF0, 0) is None


def test_a_bug_in_a_query_gives_a_failed_answer() -> None:
    """The request is FAILED and counted, and the next is answered: none stays pending."""

    def path_of(cgroup: int) -> str:
        raise ZeroDivisionError("a bug")

    before = handler_errors["enrich"]
    source = FakeSource(Facts(Enrichment.DONE, source="fake"))
    worker = Worker([source], exists=there, path_of=path_of, retries=())
    worker.start()
    try:
        worker.submit(Request(6, "", "", "", 0, 0))
        worker.submit(REQUEST)
        got = list[Answer]()

        def both() -> bool:
            got.extend(worker.answers())
            return len(got) == 2

        wait_for(both, "both answers")
    finally:
        worker.stop()
    assert [answer.facts.enrichment for answer in got] == [Enrichment.FAILED, Enrichment.DONE]
    assert handler_errors["enrich"] - before == 1
