# SPDX-License-Identifier: Apache-2.0
"""The warm launcher: the same results as the cold command, and robust against bad clients."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.launcher import decode, server
from tests.runtime.conftest import ROOT, Box, Runtime
from tests.support import force
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
MOST_KB = 15 * 1024


class Warm:
    """A launcher, its socket, and the executable that uses it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.socket = directory / "launcher.sock"
        self.executable = directory / "ringfence-runtime"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
        words = ["install", "--launcher", str(self.socket), *options, str(self.executable)]
        command = ["/usr/bin/python3", "-m", "ringfence_runtime", *words]
        subprocess.run(command, check=True, env=environment)
        self.log = open(directory / "log", "w+")  # noqa: SIM115 - closed by the fixture
        command = [str(self.executable), "launcher", "--socket", str(self.socket)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(self.listens, "the launcher listens")
        #: the child that makes the inits, and stays
        self.own = self.children()

    def listens(self) -> bool:
        """Returns True once it accepts connections: the socket gets
        its name a moment earlier (__SO_ACCEPTCON of its flags).
        """
        lines = Path("/proc/net/unix").read_text().splitlines()
        return any(line.split()[3] == "00010000" for line in lines if line.endswith(f" {self.socket}"))

    def memory(self) -> int:
        """Returns the resident memory in kB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def children(self) -> list[int]:
        """Returns its child processes."""
        return [
            int(pid)
            for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def descriptors(self) -> int:
        """Returns the number of its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A launcher that runs for the time of the test."""
    force.need_root()
    force.need_program("gcc")
    made = Warm(tmp_path_factory.mktemp("warm"))
    yield made
    made.stop()
    made.log.close()


@pytest.fixture
def hot(box: Box, warm: Warm) -> Box:
    """A bundle whose commands use the launcher."""
    box.runtime = Runtime(warm.executable, box.runtime.root)
    return box


def ancestors(pid: int) -> list[int]:
    """Returns the parents of a process, nearest first."""
    found: list[int] = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def test_output_code_and_directory_are_the_callers(hot: Box) -> None:
    """As without it: the bundle is the caller's directory, the streams are the caller's."""
    got = hot.shell("echo out; echo err >&2; exit 6").run()
    assert (got.stdout, got.stderr, got.returncode) == ("out\n", "err\n", 6)
    assert not hot.cgroups()


def test_the_launcher_is_used(hot: Box, warm: Warm) -> None:
    """The container's init descends from the launcher."""
    hot.shell("echo ready; exec sleep 3600").write()
    command = [str(hot.runtime.executable), "--root", str(hot.runtime.root), "run", hot.name]
    with subprocess.Popen(command, cwd=hot.directory, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        try:
            assert warm.process.pid in ancestors(hot.state()["pid"])
            assert Path(f"/proc/{client.pid}/exe").resolve() == warm.executable
        finally:
            hot.do("delete", "--force")
        client.wait(60)


def test_signals_reach_the_workload(hot: Box) -> None:
    """From the thin client through the worker."""
    hot.shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done").write()
    command = [str(hot.runtime.executable), "--root", str(hot.runtime.root), "run", hot.name]
    with subprocess.Popen(command, cwd=hot.directory, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.send_signal(signal.SIGTERM)
        assert client.wait(60) == 7


def test_no_runtime_process_runs_beside_a_container(hot: Box, warm: Warm) -> None:
    """While the workload of a plain run runs, the launcher's only child is that workload."""
    hot.shell("echo ready; exec sleep 3600").write()
    command = [str(hot.runtime.executable), "--root", str(hot.runtime.root), "run", hot.name]
    with subprocess.Popen(command, cwd=hot.directory, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        try:
            assert set(warm.children()) - set(warm.own) == {hot.state()["pid"]}
            assert len(warm.own) == 1
        finally:
            hot.do("delete", "--force")
        client.wait(60)


def test_a_running_container_does_not_block_others(hot: Box) -> None:
    """Its output ends with it: no other container keeps its pipe open."""
    hot.shell("read line; echo got $line")
    del hot.config["linux"]["cgroupsPath"]  # each gets one by its own name
    hot.write()
    command = [str(hot.runtime.executable), "--root", str(hot.runtime.root), "run"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": hot.directory}
    with subprocess.Popen([*command, hot.name], **pipes) as first:  # type: ignore[call-overload]
        wait_for(lambda: hot.do("state").returncode == 0, "the first one is there")
        with subprocess.Popen([*command, f"{hot.name}-2"], **pipes) as second:  # type: ignore[call-overload]
            assert first.communicate("one", 20)[0] == "got one\n"
            assert second.communicate("two", 20)[0] == "got two\n"
    assert first.returncode == second.returncode == 0


def test_errors_reach_the_client_and_leave_no_descriptor(hot: Box, warm: Warm) -> None:
    """Launches that fail early, in the init and at
    the exec: reported on the client's standard error.
    """
    cases: list[tuple[dict[str, Any], str]] = [
        ({"args": ["/none"]}, "no such file or directory"),
        ({"cwd": "/proc/self/fd/3"}, "process.cwd"),
        ({"args": []}, "process.args"),
        ({"user": {"uid": 0, "gid": 0, "umask": "x"}}, "process.user.umask"),
    ]
    hot.args("/bin/true")
    before = warm.descriptors()
    kept = json.loads(json.dumps(hot.config["process"]))
    for change, words in cases * 3:
        hot.config["process"] = {**kept, **change}
        assert words in hot.refused()
    hot.config["process"] = kept
    assert hot.run().returncode == 0
    wait_for(lambda: warm.descriptors() == before, "no descriptor is left")
    wait_for(lambda: warm.children() == warm.own, "no process is left")
    assert not hot.cgroups()


def test_a_worker_starts_containers_with_a_log(hot: Box, warm: Warm) -> None:
    """If a log is requested, the launcher forks a worker, which is the parent of the init."""
    log = hot.directory / "log"
    hot.shell("echo ready; exec sleep 3600").write()
    words = ["--log", str(log), "--root", str(hot.runtime.root), "run", hot.name]
    with subprocess.Popen(
        [str(hot.runtime.executable), *words], cwd=hot.directory, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        try:
            assert ancestors(hot.state()["pid"])[1] == warm.process.pid
        finally:
            hot.do("delete", "--force")
        assert client.wait(60) == 137


def test_exec_uses_the_launcher(hot: Box) -> None:
    """With the exit code of the process."""
    hot.start()
    assert hot.exec("/bin/sh", "-c", "echo inside; exit 3").returncode == 3


def test_exec_reads_descriptors_of_its_caller(hot: Box) -> None:
    """A shell's `<(...)` names a descriptor that the launcher does not have."""
    hot.start()
    process = json.dumps({**hot.config["process"], "args": ["/bin/echo", "piped"]})
    script = f"{hot.runtime.executable} --root {hot.runtime.root} exec -p <(printf %s '{process}') {hot.name}"
    got = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (got.returncode, got.stdout) == (0, "piped\n"), got.stderr


def test_a_detached_container_descends_from_the_caller(hot: Box, warm: Warm) -> None:
    """An engine waits for its descendants, so the launcher does not make them."""
    hot.start()
    assert warm.process.pid not in ancestors(hot.state()["pid"])


def test_without_a_launcher_the_command_runs_by_itself(hot: Box, warm: Warm) -> None:
    """A socket without a listener costs only a connect."""
    warm.process.kill()
    warm.process.wait()
    assert hot.args("/bin/echo", "alone").output() == "alone\n"


def test_another_mount_namespace_is_not_served(hot: Box, warm: Warm) -> None:
    """Paths have other meanings there: the command runs without the launcher."""
    hot.args("/bin/echo", "apart").write()
    command = [
        "unshare",
        "--mount",
        str(hot.runtime.executable),
        "--root",
        str(hot.runtime.root),
        "run",
        hot.name,
    ]
    got = subprocess.run(command, cwd=hot.directory, capture_output=True, text=True, check=False)
    assert got.stdout == "apart\n", got.stderr


CALLERS = {
    "the same": ([], True),
    "no new privileges": (["setpriv", "--no-new-privs"], False),
    "fewer capabilities": (["setpriv", "--bounding-set", "-net_raw"], False),
    "another mount namespace": (["unshare", "--mount"], False),
    "another root": (["chroot", "{root}"], False),
}


@pytest.mark.parametrize("how", CALLERS)
def test_a_caller_with_fewer_rights_is_not_served(how: str, box: Box) -> None:
    """The rights of a command must not depend on a
    listening launcher: the caller's restrictions apply.
    """
    words, served = CALLERS[how]
    before = [word.format(root=box.rootfs) for word in words]
    with subprocess.Popen([*before, "/bin/sleep", "600"]) as caller:
        shown = Path(f"/proc/{caller.pid}/cmdline")
        wait_for(lambda: shown.read_bytes().startswith(b"/bin/sleep"), "the caller")
        try:
            assert server._World("self").serves(server._World(caller.pid)) == served
        finally:
            caller.kill()


def test_a_command_under_no_new_privs_keeps_it(hot: Box) -> None:
    """As seen from the workload: the command runs without the launcher."""
    hot.config["process"]["noNewPrivileges"] = False
    hot.args("/bin/grep", "NoNewPrivs", "/proc/self/status").write()
    command = [str(hot.runtime.executable), "--root", str(hot.runtime.root), "run", hot.name]
    for before, expected in (([], "0"), (["setpriv", "--no-new-privs"], "1")):
        got = subprocess.run(
            [*before, *command], cwd=hot.directory, capture_output=True, text=True, check=False
        )
        assert got.stdout.split() == ["NoNewPrivs:", expected], got.stderr


def test_invalid_and_empty_requests_do_not_end_the_launcher(hot: Box, warm: Warm) -> None:
    """Connections without a message, with a wrong one, and with wrong descriptors."""
    dice = random.Random(5)
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.connect(str(warm.socket))
    for number in range(20):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(str(warm.socket))
        socket.send_fds(peer, [dice.randbytes(dice.randrange(1, 300))], [0] * (number % 5))
        peer.close()
    assert hot.args("/bin/echo", "still here").output() == "still here\n"
    silent.close()
    assert warm.process.poll() is None


def test_the_launcher_uses_little_memory(hot: Box, warm: Warm) -> None:
    """Under 15 MB, also after some use; and no worker of it remains."""
    hot.args("/bin/true")
    for _ in range(5):
        assert hot.run().returncode == 0
    assert warm.memory() < MOST_KB
    wait_for(lambda: warm.children() == warm.own, "no worker is left")
    wait_for(lambda: warm.descriptors() <= 7, "open are the three, two sockets, the native init, mountinfo")


def test_a_second_launcher_is_refused(warm: Warm) -> None:
    """The first one continues."""
    command = [str(warm.executable), "launcher", "--socket", str(warm.socket)]
    got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert got.returncode == 1
    assert "already" in got.stderr
    assert warm.socket.exists()


def test_fuzzed_messages_are_values_or_value_errors() -> None:
    """3,000 of them."""
    dice = random.Random(6)
    good = b"/tmp\x0022\x002\x00run\x00x\x00A=b\x00"
    request = decode(good)
    assert (request.directory, request.umask) == ("/tmp", 0o22)
    assert (request.arguments, request.environment()) == (["run", "x"], {"A": "b"})
    for _ in range(300_000 if os.environ.get("RINGFENCE_FUZZ") else 3000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            decode(bytes(data[: dice.randrange(len(data) + 1)]))
        except ValueError:
            continue
