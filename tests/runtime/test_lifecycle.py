# SPDX-License-Identifier: Apache-2.0
"""runc's commands on real containers, from create to delete."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime.conftest import Box, Runtime
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root


def test_create_waits_until_start(box: Box) -> None:
    """The workload has not run before `start`, and has after it."""
    marker = box.rootfs / "ran"
    box.shell("echo yes > /ran; sleep 3600").write()
    assert box.do("create", capture=False).returncode == 0
    assert box.state()["status"] == "created"
    assert not marker.exists()
    assert box.do("start").returncode == 0
    wait_for(marker.exists, "the workload ran")
    assert box.state()["status"] == "running"


def test_a_second_start_is_refused(box: Box) -> None:
    """A running container cannot be started again."""
    box.start()
    got = box.do("start")
    assert got.returncode != 0
    assert "running" in got.stderr


def test_state_tells_what_the_specification_asks_for(box: Box) -> None:
    """runtime.md#state: version, id, status, pid, bundle, annotations."""
    box.config["annotations"] = {"org.example": "value"}
    state = box.start().state()
    assert state["ociVersion"] == "1.2.0"
    assert state["id"] == box.name
    assert state["bundle"] == str(box.directory)
    assert state["annotations"] == {"org.example": "value"}
    assert Path(f"/proc/{state['pid']}/comm").read_text() == "sleep\n"


def test_run_gives_the_exit_code(box: Box) -> None:
    """The workload's own code, and nothing is left of it."""
    assert box.shell("exit 42").run().returncode == 42
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


def test_run_gives_128_and_the_signal(box: Box) -> None:
    """A workload that a signal ended."""
    box.config["process"]["args"] = ["/bin/sh", "-c", "kill -KILL $$"]
    box.config["linux"]["namespaces"] = [
        item for item in box.config["linux"]["namespaces"] if item["type"] != "pid"
    ]
    assert box.run().returncode == 128 + 9


def test_run_passes_signals_on(box: Box) -> None:
    """SIGTERM to the foreground runtime reaches the workload."""
    box.shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done").write()
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "run", box.name]
    with subprocess.Popen(command, cwd=box.directory, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15"])
def test_kill_takes_names_and_numbers(box: Box, name: str) -> None:
    """All three spell the same signal."""
    box.shell("trap 'exit 3' TERM; while :; do sleep 0.02; done").start()
    wait_for(lambda: "sh" in Path(f"/proc/{box.state()['pid']}/comm").read_text(), "the shell runs")
    got = box.runtime("kill", box.name, name)
    assert got.returncode == 0, got.stderr
    box.wait("stopped")


def test_kill_of_a_stopped_container_is_an_error(box: Box) -> None:
    """There is nothing to signal; nobody else's process is hit."""
    box.start()
    assert box.runtime("kill", box.name, "KILL").returncode == 0
    box.wait("stopped")
    assert box.runtime("kill", box.name, "KILL").returncode != 0


def test_kill_with_an_unknown_signal_is_an_error(box: Box) -> None:
    """And the container goes on."""
    box.start()
    assert "signal" in box.runtime("kill", box.name, "NOSUCH").stderr
    assert box.state()["status"] == "running"


def test_delete_refuses_a_running_container(box: Box) -> None:
    """Only --force ends it."""
    box.start()
    assert box.do("delete").returncode != 0
    assert box.do("delete", "--force").returncode == 0
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


def test_delete_force_of_nothing_is_fine_and_delete_is_not(runtime: Runtime) -> None:
    """As with runc: engines call it to be sure."""
    assert runtime("delete", "--force", "rftest-none").returncode == 0
    assert runtime("delete", "rftest-none").returncode == 1


def test_two_deletes_at_once(box: Box) -> None:
    """Both end; one of them may find nothing any more."""
    box.start()
    command = [
        str(box.runtime.executable),
        "--root",
        str(box.runtime.root),
        "delete",
        "--force",
        box.name,
    ]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    for process in both:
        assert process.stderr is not None
        process.stderr.close()
    assert not box.cgroups()


def test_the_same_name_twice_is_refused(box: Box) -> None:
    """The first container is not touched."""
    box.start()
    got = box.do("run", "--detach")
    assert got.returncode != 0
    assert "already exists" in got.stderr
    assert box.state()["status"] == "running"


def test_pause_and_resume(box: Box) -> None:
    """A paused container does nothing at all."""
    box.shell("while :; do echo x >> /log; sleep 0.01; done").start()
    log = box.rootfs / "log"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, "the workload writes")
    assert box.do("pause").returncode == 0
    assert box.state()["status"] == "paused"
    size = log.stat().st_size
    time.sleep(0.2)
    assert log.stat().st_size == size
    assert box.exec("true").returncode != 0
    assert box.do("resume").returncode == 0
    wait_for(lambda: log.stat().st_size > size, "the workload goes on")


def test_delete_force_of_a_paused_container(box: Box) -> None:
    """A frozen task must not make it hang."""
    box.start()
    assert box.do("pause").returncode == 0
    assert box.do("delete", "--force").returncode == 0


def test_exec_runs_in_the_container(box: Box) -> None:
    """In its namespaces, its cgroup and its root; with its own exit code."""
    box.start()
    assert box.exec("/bin/hostname").stdout == "rftest\n"
    assert box.exec("/bin/sh", "-c", "exit 9").returncode == 9
    pids = box.exec("/bin/sh", "-c", "ls -d /proc/[0-9]*").stdout.split()
    assert "/proc/1" in pids
    assert len(pids) <= 4
    groups = box.exec("/bin/cat", "/proc/self/cgroup").stdout
    assert all(line.endswith(":/") for line in groups.splitlines())


def test_exec_options(box: Box) -> None:
    """cwd, environment, user, groups and capabilities."""
    box.start()
    runtime = box.runtime

    def inside(options: list[str], *words: str) -> str:
        got = runtime("exec", *options, box.name, *words)
        assert got.returncode == 0, got.stderr
        return got.stdout.strip()

    assert inside(["--cwd", "/etc"], "/bin/pwd") == "/etc"
    assert inside(["-e", "WHO=me"], "/bin/sh", "-c", "echo $WHO") == "me"
    assert inside(["-u", "1000:1000", "-g", "7"], "/bin/id", "-G") == "1000 7"
    status = inside(["--cap", "CAP_SYS_CHROOT"], "/bin/cat", "/proc/self/status")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective.split()[1], 16) >> 18 & 1


def test_exec_of_a_process_file(box: Box, tmp_path: Path) -> None:
    """What engines use."""
    box.start()
    file = tmp_path / "process.json"
    process = {**box.config["process"], "args": ["/bin/pwd"], "cwd": "/tmp"}
    file.write_text(json.dumps(process))
    got = box.runtime("exec", "--process", str(file), box.name)
    assert got.stdout == "/tmp\n"


def test_exec_of_a_process_file_without_capabilities_has_the_containers(box: Box, tmp_path: Path) -> None:
    """Never those of the runtime."""
    box.start()
    file = tmp_path / "process.json"
    process = {**box.config["process"], "args": ["/bin/grep", "Cap[BEP]", "/proc/self/status"]}
    del process["capabilities"]
    file.write_text(json.dumps(process))
    got = box.runtime("exec", "--process", str(file), box.name)
    # CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID of the configuration
    assert [int(line.split()[1], 16) for line in got.stdout.splitlines()] == [0xE1] * 3, got.stderr


def test_exec_detached_writes_a_pid_file(box: Box, tmp_path: Path) -> None:
    """The pid is the host's."""
    box.start()
    file = tmp_path / "pid"
    words = ["exec", "--detach", "--pid-file", str(file), box.name, "/bin/sleep", "30"]
    assert box.runtime(*words, capture=False).returncode == 0
    assert Path(f"/proc/{file.read_text()}/cmdline").read_bytes() == b"/bin/sleep\x0030\x00"


def test_exec_of_something_missing_says_so(box: Box) -> None:
    """The message that engines look for, and a failure."""
    box.start()
    got = box.exec("/no/such/program")
    assert got.returncode != 0
    assert "no such file or directory" in got.stderr
    assert "not found in $PATH" in box.exec("nosuchprogram").stderr


def test_a_missing_program_fails_at_create(box: Box) -> None:
    """And nothing is left."""
    assert "no such file or directory" in box.args("/no/such/program").refused()


def test_ps_lists_the_containers_processes(box: Box) -> None:
    """By pid, as JSON and as a table."""
    box.start()
    pids = json.loads(box.runtime("ps", "--format", "json", box.name).stdout)
    assert pids == [box.state()["pid"]]
    assert str(pids[0]) in box.runtime("ps", box.name).stdout


def test_list_shows_it(box: Box) -> None:
    """As a table, as JSON and by name alone."""
    box.start()
    [entry] = json.loads(box.runtime("list", "--format", "json").stdout)
    assert (entry["id"], entry["status"]) == (box.name, "running")
    assert box.runtime("list", "-q").stdout.split() == [box.name]
    assert box.name in box.runtime("list").stdout


def test_pid_file(box: Box, tmp_path: Path) -> None:
    """The init's pid on the host."""
    box.write()
    file = tmp_path / "pid"
    assert box.do("create", "--pid-file", str(file), capture=False).returncode == 0
    assert int(file.read_text()) == box.state()["pid"]


def received_pid(server: socket.socket) -> tuple[str, int]:
    """(kind, pid) of a descriptor that was sent to the socket."""
    server.settimeout(patience(10))
    peer, _ = server.accept()
    with peer:
        data, [pidfd], _, _ = socket.recv_fds(peer, 100, 4)
    try:
        info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    finally:
        os.close(pidfd)
    return data.decode(), int(next(line for line in info.splitlines() if line.startswith("Pid:")).split()[1])


def test_pidfd_socket(box: Box, tmp_path: Path) -> None:
    """create, run and exec send a descriptor of their process, as runc does."""
    path = tmp_path / "pidfd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(4)
        option = ("--pidfd-socket", str(path))
        box.write()
        assert box.do("create", *option, capture=False).returncode == 0
        assert received_pid(server) == ("standard", box.state()["pid"])
        assert box.do("delete", "--force").returncode == 0
        assert box.do("run", "--detach", *option, capture=False).returncode == 0
        assert received_pid(server) == ("standard", box.state()["pid"])
        file = tmp_path / "pid"
        words = ("exec", "--detach", *option, "--pid-file", str(file), box.name, "/bin/sleep", "30")
        assert box.runtime(*words, capture=False).returncode == 0
        assert received_pid(server) == ("setns", int(file.read_text()))


def test_a_pidfd_socket_that_nobody_listens_on_is_an_error(box: Box, tmp_path: Path) -> None:
    """And nothing is left."""
    box.write()
    got = box.do("run", "--pidfd-socket", str(tmp_path / "none"))
    assert got.returncode == 1
    assert "cannot send the pidfd" in got.stderr
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


@pytest.mark.parametrize("mine", [True, False])
def test_listen_fds(box: Box, mine: bool) -> None:
    """Socket activation: descriptors from 3 on, their number, and the pid that the workload has."""
    box.shell("echo $LISTEN_FDS $LISTEN_PID $$; ls /proc/self/fd").write()
    words = f"exec '{box.runtime.executable}' --root '{box.runtime.root}' run {box.name} 3</etc/passwd 4<&3"
    pid = "$$" if mine else "1"
    got = subprocess.run(
        ["/bin/bash", "-c", f"export LISTEN_FDS=2 LISTEN_PID={pid}; {words}"],
        cwd=box.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, *fds = got.stdout.splitlines()
    assert first == ("2 1 1" if mine else "1"), got.stderr
    assert ("3" in fds and "4" in fds) == mine


def test_run_keep_leaves_a_stopped_container(box: Box) -> None:
    """Until delete."""
    box.args("/bin/true").write()
    assert box.do("run", "--keep").returncode == 0
    assert box.state()["status"] == "stopped"
    assert box.do("delete").returncode == 0
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


def test_preserve_fds(box: Box) -> None:
    """Exactly the descriptors that were asked for reach the workload."""
    box.shell("cat <&3; ls /proc/self/fd").write()
    (box.directory / "input").write_text("hello\n")
    command = f"exec '{box.runtime.executable}' --root '{box.runtime.root}' run --preserve-fds 1 {box.name}"
    got = subprocess.run(
        ["/bin/bash", "-c", f"{command} 3<input 9</etc/passwd"],
        cwd=box.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = got.stdout.split()
    assert lines[0] == "hello"
    assert "9" not in lines


def test_json_log(box: Box, tmp_path: Path) -> None:
    """One JSON object a line, with the level and the message."""
    log = tmp_path / "log"
    box.args("/nowhere").write()
    box.runtime("--log", str(log), "--log-format", "json", "run", box.name, cwd=box.directory)
    record = json.loads(log.read_text().splitlines()[-1])
    assert record["level"] == "error"
    assert "/nowhere" in record["msg"]


def test_an_occupied_root_directory_survives_a_hostile_id(runtime: Runtime, box: Box) -> None:
    """Ids are names, never paths."""
    box.write()
    for name in ("../x", "a/b", "..", ".", "", "a\nb", "x" * 256, "\x1b[31m"):
        got = runtime("run", "--bundle", str(box.directory), name)
        assert got.returncode != 0, name
        assert "\x1b" not in got.stderr
    assert not list(runtime.root.glob("*")) if runtime.root.exists() else True


def test_a_terminal_of_its_own(box: Box, tmp_path: Path) -> None:
    """--console-socket gets the master; the workload has it as its controlling terminal and /dev/console."""
    path = tmp_path / "console"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(1)
    box.config["process"]["terminal"] = True
    box.shell("tty; test -c /dev/console && echo console; exec sleep 3600").write()
    assert box.do("run", "--detach", "--console-socket", str(path), capture=False).returncode == 0
    peer, _ = server.accept()
    _, [master], _, _ = socket.recv_fds(peer, 100, 1)
    try:
        seen = b""
        while b"console" not in seen:
            seen += os.read(master, 1000)
        assert b"/dev/pts/0" in seen
    finally:
        os.close(master)
        peer.close()
        server.close()
