# SPDX-License-Identifier: Apache-2.0
"""Hooks: their order and input, and the specified lifecycle after a failure."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.test_faults import left_over
from tests.support.waiting import process_state, wait_for

pytestmark = pytest.mark.root

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")


def shell(script: str, **more: object) -> list[dict[str, object]]:
    """Returns a hook of one shell script."""
    return [{"path": "/bin/sh", "args": ["sh", "-c", script], **more}]


def test_hooks_run_in_their_order(box: Box, tmp_path: Path) -> None:
    """All six kinds, each with the state on its standard input."""
    log = tmp_path / "log"
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    box.config["hooks"] = {kind: shell(f"grep -q {box.name} && echo {kind} >> {log}") for kind in kinds}
    box.config["hooks"]["startContainer"] = shell("echo start > /started")
    got = box.args("/bin/true").run()
    assert got.returncode == 0, got.stderr
    assert log.read_text().split() == list(kinds)
    assert (box.rootfs / "started").read_text() == "start\n"


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"])
def test_a_start_hook_is_under_the_filter_of_the_workload(
    box: Box, tmp_path: Path, action: str, no_new_privileges: bool
) -> None:
    """It is a program of the image: neither it nor the workload may make the call of the profile."""
    box.config["process"]["noNewPrivileges"] = no_new_privileges
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": action}]}
    box.config["linux"]["seccomp"] = seccomp
    script = "grep Seccomp: /proc/self/status > /hook; mkdir /made 2>&1; grep NoNewPrivs /proc/self/status"
    box.config["hooks"] = {"startContainer": shell(f"({script}) >> /hook; true")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        if action == "SCMP_ACT_NOTIFY":
            agent.bind(str(tmp_path / "agent"))
            agent.listen(1)
            seccomp["listenerPath"] = str(tmp_path / "agent")
        got = box.args("/bin/true").run()
    assert got.returncode == 0, got.stderr
    said = (box.rootfs / "hook").read_text()
    assert "Seccomp:\t2" in said
    assert f"NoNewPrivs:\t{int(no_new_privileges)}" in said
    assert not (box.rootfs / "made").exists()


def test_a_start_hook_without_an_environment_has_the_workloads(box: Box) -> None:
    """With one it has that alone. Hooks of the host never have the container's (CVE-2025-23266)."""
    box.config["process"]["env"] += ["MINE=value", "HOME=/root"]
    box.config["hooks"] = {
        "startContainer": shell("echo $MINE $HOME > /without")
        + shell("echo $MINE $OWN > /with", env=["OWN=hook", "PATH=/bin"]),
    }
    assert box.args("/bin/true").run().returncode == 0
    assert (box.rootfs / "without").read_text() == "value /root\n"
    assert (box.rootfs / "with").read_text() == "hook\n"


def test_a_failing_hooks_message_is_in_the_error(box: Box) -> None:
    """In the error, with its place."""
    box.config["hooks"] = {"createRuntime": shell("echo why; exit 5")}
    message = box.refused()
    assert "hooks.createRuntime[0]" in message
    assert "why" in message


def test_a_hanging_hook_is_killed(box: Box) -> None:
    """After its timeout; the launch fails."""
    box.config["hooks"] = {"prestart": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
    assert "within 1 s" in box.refused()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["hangs", "fails", "is missing"])
def test_a_hook_that_fails_ends_the_launch(box: Box, tmp_path: Path, kind: str, how: str) -> None:
    """Each kind, each failure: one error with the hook's place, and nothing is left.

    poststop hooks have run (runtime.md#lifecycle, steps 3 to 9 continue at 12), each once and
    whatever the previous one did.
    """
    words = {"hangs": ["sleep", "100"], "fails": ["false"], "is missing": ["x"]}[how]
    # startContainer runs in the container: busybox is there, too.
    path = "/bin/no-such-hook" if how == "is missing" else f"/bin/{words[0]}"
    log = tmp_path / "stopped"
    box.config["hooks"] = {
        kind: [{"path": path, "args": words, "timeout": 1}],
        "poststop": shell(f"cat >> {log}; exit 1") + shell(f"echo second >> {log}"),
    }
    got = box.run()
    assert got.returncode != 0
    assert f"hooks.{kind}[0]" in got.stderr
    assert "Traceback" not in got.stderr
    said = log.read_text()
    assert (said.count('"stopped"'), said.count("second")) == (1, 1)
    assert "poststop hook failed with exit code 1: hooks.poststop[0]: /bin/sh" in got.stderr
    wait_for(lambda: not left_over(box), f"nothing to be left of {kind}")


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_hook_that_fails_at_start_destroys_a_created_container(box: Box, tmp_path: Path, kind: str) -> None:
    """`start` reports it; the workload of a failed poststart is stopped."""
    log = tmp_path / "stopped"
    # a `false` of the host and of the container
    box.config["hooks"] = {kind: [{"path": "/bin/false"}], "poststop": shell(f"echo once >> {log}")}
    box.write()
    assert box.do("create", capture=False).returncode == 0
    pid = box.state()["pid"]
    got = box.do("start")
    assert got.returncode != 0
    assert f"hooks.{kind}[0]" in got.stderr
    assert log.read_text() == "once\n"
    assert process_state(pid) in "-Z"
    wait_for(lambda: not left_over(box), "nothing to be left")


def test_a_poststop_hook_that_hangs_is_a_warning(box: Box) -> None:
    """The container is still removed."""
    box.config["hooks"] = {"poststop": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
    got = box.args("/bin/true").run()
    assert got.returncode == 0
    assert "hooks.poststop[0]" in got.stderr
    assert not left_over(box)


@pytest.mark.parametrize("code", [0, 1])
def test_a_process_that_a_hook_leaves_in_the_cgroup_is_killed(box: Box, tmp_path: Path, code: int) -> None:
    """createContainer hooks run in the container's cgroup: a process
    left there survives neither a failed launch nor the container.
    """
    file = tmp_path / "pid"
    box.config["linux"]["namespaces"] = [  # the end of the pid namespace would end it
        item for item in box.config["linux"]["namespaces"] if item["type"] != "pid"
    ]
    script = f"sleep 3600 > /dev/null 2>&1 & echo $! > {file}; exit {code}"
    box.config["hooks"] = {"createContainer": shell(script)}
    assert box.args("/bin/true").run().returncode == code
    left = int(file.read_text())
    wait_for(lambda: process_state(left) in "-Z", "the process of the hook to be killed")
    wait_for(lambda: not left_over(box), "nothing to be left")
