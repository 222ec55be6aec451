# SPDX-License-Identifier: Apache-2.0
"""exec: one more process in a running container."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.support import force
from tests.support.waiting import patience

pytestmark = pytest.mark.root


def test_exec_runs_in_the_container(box: Box) -> None:
    """In its namespaces, its cgroup and its root; with its own exit code."""
    box.start()
    assert box.exec("/bin/hostname").stdout == "rftest\n"
    assert box.exec("/bin/sh", "-c", "exit 9").returncode == 9
    pids = box.exec("/bin/sh", "-c", "ls -d /proc/[0-9]*").stdout.split()
    assert "/proc/1" in pids
    assert len(pids) <= 4
    groups = box.exec("/bin/cat", "/proc/self/cgroup").stdout
    assert groups
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


@pytest.mark.parametrize(("inheritable", "ambient"), [([], "0"), (["CAP_KILL"], "40000")])
def test_exec_caps_are_ambient_where_the_container_has_inheritable_ones(
    box: Box, inheritable: list[str], ambient: str
) -> None:
    """As with runc: a program that root executes after a change of its user keeps them then."""
    box.config["process"]["capabilities"]["inheritable"] = inheritable
    box.start()
    got = box.runtime("exec", "--cap", "CAP_SYS_CHROOT", box.name, "/bin/grep", "CapAmb", "/proc/self/status")
    assert got.stdout.split() == ["CapAmb:", ambient.zfill(16)]


def test_exec_as_another_user_has_none_of_the_container_users_groups(box: Box) -> None:
    """They belong to the container's user (`disk`,
    `wheel`), not to every user that a caller names.
    """
    box.config["process"]["user"]["additionalGids"] = [6, 10]
    box.start()
    assert box.exec("/bin/id", "-G").stdout == "0 6 10\n"
    assert box.runtime("exec", "-u", "1000:1000", box.name, "/bin/id", "-G").stdout == "1000\n"
    got = box.runtime("exec", "-u", "1000:1000", "-g", "7", box.name, "/bin/id", "-G")
    assert got.stdout == "1000 7\n"


@pytest.mark.parametrize("user", ["4294967295", "1000:4294967295", "4294967296", "\u0663", "-1", "x"])
def test_exec_with_an_invalid_user_does_not_stay_root(box: Box, user: str) -> None:
    """As in CVE-2024-40635: to the kernel 4294967295 is -1, which changes nothing."""
    box.start()
    got = box.runtime("exec", f"--user={user}", box.name, "/bin/id")
    assert got.stdout == ""
    assert got.stderr.startswith("ringfence-runtime: --user: ")
    assert "--additional-gids" in box.runtime("exec", "-g", "4294967295", box.name, "/bin/id").stderr


def test_exec_of_a_process_file(box: Box, tmp_path: Path) -> None:
    """Used by engines."""
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
    words = ["exec", "--detach", "--pid-file", str(file), box.name, "/bin/sleep", "600"]
    assert box.runtime(*words, capture=False).returncode == 0
    assert Path(f"/proc/{file.read_text()}/cmdline").read_bytes() == b"/bin/sleep\x00600\x00"


def test_exec_of_a_missing_program_is_an_error(box: Box) -> None:
    """The message that engines look for, and a failure."""
    box.start()
    got = box.exec("/no/such/program")
    assert got.returncode != 0
    assert "no such file or directory" in got.stderr
    assert "not found in $PATH" in box.exec("nosuchprogram").stderr


def cpus(box: Box, *words: str) -> str:
    """Returns the CPUs that a process of `exec --process` may use, after the shell ran `words`."""
    got = box.runtime("exec", *words, box.name)
    assert got.returncode == 0, got.stderr
    return got.stdout.split()[-1]


def test_cpu_affinity_of_exec(box: Box, tmp_path: Path) -> None:
    """execCPUAffinity: `final` is the process's
    affinity. Without it the caller's is not inherited.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        force.elsewhere("one processor has no choice")
    box.start()
    process = {**box.config["process"], "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]}
    file = tmp_path / "process.json"
    file.write_text(json.dumps({**process, "execCPUAffinity": {"initial": "0", "final": str(allowed[-1])}}))
    assert cpus(box, "--process", str(file)) == str(allowed[-1])
    file.write_text(json.dumps(process))
    os.sched_setaffinity(0, allowed[:1])
    try:
        shown = cpus(box, "--process", str(file))
    finally:
        os.sched_setaffinity(0, allowed)
    assert shown != str(allowed[0])


def test_exec_has_the_personality_and_the_memory_policy(box: Box) -> None:
    """They are the container's, not its first process's."""
    box.config["linux"]["personality"] = {"domain": "LINUX32"}
    box.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    box.start()
    script = "cat /proc/self/personality; head -n 1 /proc/self/numa_maps"
    init = Path(f"/proc/{box.state()['pid']}")
    words = box.exec("/bin/sh", "-c", script).stdout.split()
    assert (words[0], words[2]) == ("00000008", "bind:0")
    assert (init / "personality").read_text() == "00000008\n"
    assert (init / "numa_maps").read_text().split()[1] == "bind:0"


def test_an_invalid_initial_affinity_is_an_error(box: Box, tmp_path: Path) -> None:
    """With its place."""
    box.start()
    file = tmp_path / "process.json"
    process = {**box.config["process"], "args": ["/bin/true"], "execCPUAffinity": {"initial": "4000"}}
    file.write_text(json.dumps(process))
    assert "process.execCPUAffinity.initial" in box.runtime("exec", "--process", str(file), box.name).stderr


PROCESS = '{"args":["/bin/echo","piped"],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]}'


def test_exec_reads_a_process_from_a_pipe(box: Box, tmp_path: Path) -> None:
    """A shell's `<(...)`, and a FIFO that is opened for writing only later."""
    box.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = f"{box.runtime.executable} --root {box.runtime.root} exec --process"
    for script in (
        f"{command} <(printf %s '{PROCESS}') {box.name}",
        f"(sleep 0.5; printf %s '{PROCESS}' > {fifo}) & {command} {fifo} {box.name}",
    ):
        got = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=patience(30), check=False
        )
        assert (got.returncode, got.stdout) == (0, "piped\n"), got.stderr
    got = box.runtime("exec", "--process", "/dev/zero", box.name)
    assert "/dev/zero is not a regular file" in got.stderr


def test_a_failed_exec_has_a_status_of_its_own(box: Box) -> None:
    """255, as with runc: scripts distinguish it from the result of a process."""
    box.start()
    assert box.exec("/bin/false").returncode == 1
    for words in (
        [box.name, "/nothing"],
        [box.name],
        ["--cwd", "x", box.name, "/bin/true"],
        ["--process", "/nothing", box.name],
        ["--console-socket", "/nothing", "--tty", box.name, "/bin/true"],
        ["rftest-none", "/bin/true"],
    ):
        assert box.runtime("exec", *words).returncode == 255, words
    assert box.runtime("exec", "--nothing", box.name, "/bin/true").returncode == 1
    assert box.do("pause").returncode == 0
    assert box.exec("/bin/true").returncode == 255
    assert box.do("resume").returncode == 0
