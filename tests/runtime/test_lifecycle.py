# SPDX-License-Identifier: Apache-2.0
"""The commands of runc on real containers, from create to delete."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box, Runtime
from tests.support.waiting import wait_for

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


def test_a_socket_left_by_a_killed_start_does_not_count_as_a_waiting_init(box: Box) -> None:
    """The workload executes; the file exists because nothing removed it."""
    box.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        directory = os.open(box.runtime.root / box.name, os.O_PATH)
        stale.bind(f"/proc/self/fd/{directory}/start.sock")  # its path is too long for an address
        os.close(directory)
    assert box.state()["status"] == "running"
    assert box.exec("/bin/true").returncode == 0
    assert "running" in box.do("start").stderr
    assert box.do("pause").returncode == 0
    assert box.state()["status"] == "paused"


def test_state_queries_do_not_disturb_a_waiting_init(box: Box) -> None:
    """Ten times; then it starts normally."""
    box.write()
    assert box.do("create", capture=False).returncode == 0
    assert {box.state()["status"] for _ in range(10)} == {"created"}
    assert box.do("start").returncode == 0
    assert box.state()["status"] == "running"


def test_a_container_cannot_be_started_before_create_ends(box: Box, tmp_path: Path) -> None:
    """Whatever create waits for (hooks, an agent's
    answer, limits) is done before the workload starts.
    """
    started, go = tmp_path / "started", tmp_path / "go"
    script = f"touch {started}; while [ ! -e {go} ]; do sleep 0.02; done"
    box.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 30}]
    }
    box.write()
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "create", box.name]
    with subprocess.Popen(command, cwd=box.directory, stdout=subprocess.DEVNULL) as create:
        try:
            wait_for(started.exists, "the hook runs")
            status, early = box.state()["status"], box.do("start", timeout=10)
        finally:
            go.touch()
        assert create.wait(60) == 0
    assert status == "creating"
    assert "it is creating" in early.stderr
    assert box.state()["status"] == "created"
    assert box.do("start").returncode == 0
    assert box.state()["status"] == "running"


def test_a_create_that_fails_late_leaves_another_container_of_its_name_alone(
    box: Box, tmp_path: Path
) -> None:
    """It was deleted while its hook hung, and created
    again; then the hook ends, and the first is undone.
    """
    started, go = tmp_path / "started", tmp_path / "go"
    script = f"touch {started}; while [ ! -e {go} ]; do sleep 0.02; done"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 30}
    box.config["hooks"] = {"createRuntime": [hook]}
    box.write()
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "create", box.name]
    with subprocess.Popen(command, cwd=box.directory, stdout=subprocess.DEVNULL) as create:
        try:
            wait_for(started.exists, "the hook runs")
            assert box.do("delete", "--force").returncode == 0
            del box.config["hooks"]
            box.start()
        finally:
            go.touch()
        assert create.wait(60) != 0
    assert box.state()["status"] == "running"
    assert box.exec("/bin/true").returncode == 0
    assert box.cgroups()


def test_kill_and_delete_by_pattern(boxes: Any) -> None:
    """Those whose names match; one that has ended already does not prevent killing the others."""
    runtime, made = None, [boxes() for _ in range(3)]
    for each in made:
        each.start()
        runtime = each.runtime
    assert runtime is not None
    pattern = f"^({made[0].name}|{made[1].name})$"
    assert runtime("kill", made[0].name, "KILL").returncode == 0
    made[0].wait("stopped")
    got = runtime("kill", "--regex", pattern, "KILL")
    assert got.returncode == 0, got.stderr
    made[1].wait("stopped")
    assert made[2].state()["status"] == "running"
    assert runtime("delete", "--regex", pattern).returncode == 0
    assert [(runtime.root / each.name).exists() for each in made] == [False, False, True]
    assert "--regex" in runtime("kill", "--regex", "(").stderr


def test_kill_in_a_pid_namespace_of_others_ends_all_of_the_container(boxes: Any) -> None:
    """Another container's process keeps the namespace
    alive, so killing the first process ends no other.
    """
    first, second = boxes().start(), boxes()
    joined = {"type": "pid", "path": f"/proc/{first.state()['pid']}/ns/pid"}
    spaces = second.config["linux"]["namespaces"]
    second.config["linux"]["namespaces"] = [joined, *(each for each in spaces if each["type"] != "pid")]
    second.shell("sleep 3600 & exec sleep 3600").start()
    files = [path / "cgroup.procs" for path in second.cgroups()]
    wait_for(lambda: any(len(file.read_text().split()) == 2 for file in files), "both processes")
    assert second.runtime("kill", second.name, "KILL").returncode == 0
    wait_for(lambda: not any(file.read_text() for file in files), "the end of both")
    assert first.state()["status"] == "running"


def test_kill_of_an_ended_container_has_the_message_containerd_expects(box: Box) -> None:
    """By them containerd knows that there is nothing
    left to kill (checkKillError in its runc shim).
    """
    box.start()
    assert box.runtime("kill", box.name, "KILL").returncode == 0
    box.wait("stopped")
    got = box.runtime("kill", box.name, "TERM")
    assert got.returncode != 0
    assert "container not running" in got.stderr


def test_a_second_start_is_refused(box: Box) -> None:
    """A running container cannot be started again."""
    box.start()
    got = box.do("start")
    assert got.returncode != 0
    assert "running" in got.stderr


def test_state_has_the_members_of_the_specification(box: Box) -> None:
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
    """For a workload that was ended by a signal."""
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
        assert process.wait(60) == 7


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15"])
def test_kill_takes_names_and_numbers(box: Box, name: str) -> None:
    """All three spell the same signal."""
    # a signal that the first process of a PID namespace does not catch yet is ignored
    box.shell("trap 'exit 3' TERM; touch /ready; while :; do sleep 0.02; done").start()
    wait_for((box.rootfs / "ready").exists, "the shell to catch it")
    got = box.runtime("kill", box.name, name)
    assert got.returncode == 0, got.stderr
    box.wait("stopped")


def test_kill_of_a_stopped_container_is_an_error(box: Box) -> None:
    """There is nothing to signal; no other process is hit."""
    box.start()
    assert box.runtime("kill", box.name, "KILL").returncode == 0
    box.wait("stopped")
    assert box.runtime("kill", box.name, "KILL").returncode != 0


def test_kill_with_an_unknown_signal_is_an_error(box: Box) -> None:
    """The container keeps running."""
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


def test_delete_of_nothing_succeeds_only_with_force(runtime: Runtime) -> None:
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
    """A paused container does not run at all."""
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
    wait_for(lambda: log.stat().st_size > size, "the workload to continue")


def test_delete_force_of_a_paused_container(box: Box) -> None:
    """A frozen task must not block it."""
    box.start()
    assert box.do("pause").returncode == 0
    assert box.do("delete", "--force").returncode == 0


def test_a_missing_program_fails_at_create(box: Box) -> None:
    """Nothing is left."""
    assert "no such file or directory" in box.args("/no/such/program").refused()


def test_ps_lists_the_containers_processes(box: Box) -> None:
    """By pid, as JSON and as a table."""
    box.start()
    pids = json.loads(box.runtime("ps", "--format", "json", box.name).stdout)
    assert pids == [box.state()["pid"]]
    assert str(pids[0]) in box.runtime("ps", box.name).stdout


def test_a_stopped_container_has_no_processes(box: Box) -> None:
    """An empty list, as a script that removes what has ended expects; no error."""
    box.start()
    assert box.runtime("kill", box.name, "KILL").returncode == 0
    wait_for(lambda: box.state()["status"] == "stopped", "the container to stop")
    got = box.runtime("ps", "--format", "json", box.name)
    assert (got.stdout, got.stderr, got.returncode) == ("[]\n", "", 0)
    table = box.runtime("ps", box.name)
    assert table.returncode == 0
    assert [line.split()[:2] for line in table.stdout.splitlines()] == [["UID", "PID"]]


def test_list_shows_it(box: Box) -> None:
    """As a table, as JSON and by name alone."""
    box.start()
    [entry] = json.loads(box.runtime("list", "--format", "json").stdout)
    assert (entry["id"], entry["status"]) == (box.name, "running")
    assert box.runtime("list", "-q").stdout.split() == [box.name]
    assert box.name in box.runtime("list").stdout


def test_lines_of_json_have_no_blanks(box: Box, tmp_path: Path) -> None:
    """As with runc: scripts search them with grep."""
    box.start()
    log = tmp_path / "log"
    box.runtime("--log", str(log), "--log-format", "json", "start", "rftest-none")
    lines = [
        box.runtime("list", "--format", "json").stdout,
        box.runtime("ps", "--format", "json", box.name).stdout,
        box.do("events", "--stats").stdout,
        log.read_text(),
    ]
    assert f'"id":"{box.name}"' in lines[0]
    for line in lines:
        assert line == json.dumps(json.loads(line), separators=(",", ":")) + "\n"


def test_terminals_of_a_template_belong_to_the_group_tty(runtime: Runtime, tmp_path: Path) -> None:
    """So that programs may not write to another user's terminal; a single id has no such group."""
    for options, group in (([], ["gid=5"]), (["--rootless"], [])):
        assert runtime("spec", *options, cwd=tmp_path).returncode == 0
        mounts = json.loads((tmp_path / "config.json").read_text())["mounts"]
        [found] = [each["options"] for each in mounts if each["type"] == "devpts"]
        assert [option for option in found if option.startswith("gid=")] == group
        (tmp_path / "config.json").unlink()


def test_json_log(box: Box, tmp_path: Path) -> None:
    """One JSON object a line, with the level and the message."""
    log = tmp_path / "log"
    box.args("/nowhere").write()
    box.runtime("--log", str(log), "--log-format", "json", "run", box.name, cwd=box.directory)
    record = json.loads(log.read_text().splitlines()[-1])
    assert record["level"] == "error"
    assert "/nowhere" in record["msg"]


def test_the_log_of_an_engine_includes_the_hint(box: Box, tmp_path: Path) -> None:
    """containerd shows only the last message of the log, so it includes the hint."""
    log = tmp_path / "log"
    box.write()
    options = ["--log", str(log), "--log-format", "json", "run", "--require-agent"]
    absent = {**os.environ, "RINGFENCE_ENROLL_SOCKET": str(tmp_path / "none")}
    got = box.runtime(*options, box.name, cwd=box.directory, env=absent)
    message, _, hint = got.stderr.strip().removeprefix("ringfence-runtime: ").partition("\n  hint: ")
    assert hint
    assert json.loads(log.read_text().splitlines()[-1])["msg"] == f"{message} ({hint})"


def test_an_occupied_root_directory_survives_a_hostile_id(runtime: Runtime, box: Box) -> None:
    """Ids are names, never paths."""
    box.write()
    for name in ("../x", "a/b", "..", ".", "", "a\nb", "x" * 256, "\x1b[31m"):
        got = runtime("run", "--bundle", str(box.directory), name)
        assert got.returncode != 0, name
        assert "\x1b" not in got.stderr
    assert not list(runtime.root.glob("*")) if runtime.root.exists() else True
