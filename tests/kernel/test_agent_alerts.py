# SPDX-License-Identifier: Apache-2.0
"""The real agent and real containers: alerts are
complete and fast; policies change while they run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.cli.client import request, subscribe
from ringfence.errors import AgentUnreachableError
from ringfence.export.records import boot_offset_ns
from tests.support.agent import Agent, cli
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.container import Bundle, Container, new_container
from tests.support.force import need_program
from tests.support.policies import user_namespace, written
from tests.support.scenes import agent_fixture, cgroup_fixture
from tests.support.waiting import busy, patience, wait_for

pytestmark = pytest.mark.root

POLICY = (
    user_namespace()
    + """\
    - id: test-personality
      title: A container asks for its execution domain
      severity: low
      attack: [T1082]
      event: personality
      match: {flags: [ADDR_NO_RANDOMIZE]}
      action: alert
"""
)
LABEL = "alerts"  # in the names of this test's cgroups: another test's agent must not enroll them

BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with one policy."""
    return written(tmp_path, POLICY)


small = agent_fixture(LABEL)
cgroup = cgroup_fixture(LABEL, after="small")


@pytest.fixture
def container(small: Agent, bundle: Bundle) -> Iterator[Container]:
    """A runc container that is created while the agent runs."""
    need_program("runc")
    with new_container(bundle, LABEL) as made:
        yield made


def forbidden(cgroup: Cgroup) -> None:
    """Do what the policy kills for."""
    assert cgroup.run(["unshare", "--user", "true"]).returncode == -signal.SIGKILL


def test_an_alert_has_process_container_rule_and_reason(small: Agent, container: Container) -> None:
    """In a real runc container: killed; the line has rule, process, container and how to allow it."""
    ended = container.exec("unshare", "-U", "true")
    assert ended.returncode == 128 + signal.SIGKILL
    alert = small.wait_alert("test-user-namespace", container.name)
    assert alert["event"] == "unshare"
    node = NodeCapabilities.detect()
    by = node.hook_mechanism.label if "userns_create" in node.lsm_hooks else "kill"
    assert (alert["action"], alert["outcome"], alert["mechanism"]) == ("kill", "killed", by)
    assert alert["severity"] == "high"
    assert alert["rule"]["file"].endswith("policies/test.yaml")
    assert alert["rule"]["line"] == 9
    assert alert["rule"]["attack"] == ["T1611"]
    assert "CLONE_NEWUSER" in alert["details"]["flags"]
    assert alert["process"]["exe"].endswith("busybox") or alert["process"]["comm"] == "unshare"
    assert alert["process"]["args"] == ["unshare", "-U", "true"]
    assert alert["allow"]


def test_an_idle_machine_writes_the_line_within_ten_milliseconds(small: Agent, cgroup: Cgroup) -> None:
    """From the call in the kernel to the line read here, as many times as one rule's burst allows."""
    script = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nfor n in range(10):\n"
        " sys.stdin.readline()\n libc.personality(0x0040000 | n)\n"
    )

    def enough(count: int) -> bool:
        return len(small.alerts(rule="test-personality")) >= count

    with cgroup.popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(10):
            process.stdin.write(b"\n")
            process.stdin.flush()
            wait_for(functools.partial(enough, number + 1), "a line")
    latencies = [
        (arrived - int(datetime.fromisoformat(record["time"]).timestamp() * 1e9) + boot_offset_ns()) / 1e6
        for arrived, record in zip(small.arrived, small.records, strict=True)
        if record["kind"] == "alert"
    ]
    assert sorted(latencies)[len(latencies) // 2] < patience(10) * busy(), latencies


def test_policies_are_loaded_again_when_files_change(small: Agent, policies: Path, cgroup: Cgroup) -> None:
    """A new rule is in force without a restart, and the removed rule is not."""
    forbidden(cgroup)
    changed = POLICY.replace("test-user-namespace", "new-rule").replace("CLONE_NEWUSER", "CLONE_NEWUTS")
    (policies / "test.yaml").write_text(changed)
    wait_for(lambda: request(small.socket, "status")["policies"]["generation"] == 2, "generation 2")
    assert cgroup.run(["unshare", "--user", "true"]).returncode == 0
    assert cgroup.run(["unshare", "--uts", "true"]).returncode == -signal.SIGKILL
    assert small.wait_alert("new-rule", cgroup.name)["generation"] == 2


def test_a_bad_set_is_refused_and_the_running_one_stays_in_force(
    small: Agent, policies: Path, cgroup: Cgroup
) -> None:
    """Status, metric and log report it; the old rules
    stay in force; a correct set is accepted again.
    """
    (policies / "bad.yaml").write_text("apiVersion: ringfence.dev/v1\nkind: Polciy\n")
    wait_for(lambda: small.metrics()["ringfence_policy_up_to_date", ()] == 0, "the refusal")
    forbidden(cgroup)
    status = request(small.socket, "status")
    assert status["policies"]["generation"] == 1
    assert any(f"{policies}/bad.yaml:2:" in problem for problem in status["policies"]["problems"])
    assert "policies refused" in small.tail()
    assert cli(small, "status").returncode == 1
    (policies / "bad.yaml").unlink()
    wait_for(lambda: small.metrics()["ringfence_policy_up_to_date", ()] == 1, "the good set")
    assert request(small.socket, "status")["problems"] == []


def test_sighup_reads_the_policies_at_once(small: Agent) -> None:
    """Also without a change of files."""
    os.kill(small.pid, signal.SIGHUP)
    wait_for(lambda: request(small.socket, "status")["policies"]["generation"] == 2, "generation 2")


def test_rules_stay_in_force_while_policies_are_swapped(small: Agent, cgroup: Cgroup) -> None:
    """Ten reloads; a forbidden call during each of them is killed."""
    for _ in range(10):
        os.kill(small.pid, signal.SIGHUP)
        forbidden(cgroup)


def test_commands_show_what_happens(small: Agent, container: Container) -> None:
    """status, events, top, tree and policy list, against a running container."""
    container.exec("unshare", "-U", "true")
    small.wait_alert("test-user-namespace", container.name)
    status = json.loads(cli(small, "status", "-o", "json").stdout)
    assert status["containers"]["live"] >= 1
    assert status["alerts"] == {"killed": 1}
    events = cli(small, "events", "--rule", "test-user-namespace")
    assert events.returncode == 0
    assert "killed" in events.stdout
    assert "test-user-namespace" in events.stdout
    top = json.loads(cli(small, "top", "--once", "-i", "0.1", "-o", "json").stdout)
    assert container.name in [row["id"] for row in top]
    tree = json.loads(cli(small, "tree", container.name, "-o", "json").stdout)
    assert container.pid in [process["pid"] for process in tree[0]["processes"]]
    assert container.name[:12] in cli(small, "tree").stdout
    assert "test-user-namespace" in cli(small, "policy", "list").stdout
    layer = json.loads(cli(small, "policy", "list", "-o", "attack-layer").stdout)
    comments = [one["comment"] for one in layer["techniques"]]
    assert any("test-user-namespace: killed (kill)" in comment.splitlines() for comment in comments)
    assert cli(small, "tree", "rftest-no-such").returncode == 1


def test_the_tree_has_no_secrets_of_command_lines(small: Agent, cgroup: Cgroup) -> None:
    """What is redacted in alerts is redacted here, too (docs/reference/alerts-out.md)."""
    argv = ["/bin/sh", "-c", "echo; read end", "x", "--password=hunter2", "TOKEN=abc"]
    with cgroup.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs by then

        def shown() -> list[str]:
            tree = request(small.socket, "tree")
            return next((p["args"] for one in tree for p in one["processes"] if p["pid"] == child.pid), [])

        words = wait_for(shown, "the process in the tree")
        child.communicate(b"\n")
    assert words[3:] == ["x", "--password=[redacted]", "TOKEN=[redacted]"]


def test_a_follower_receives_the_activity_that_it_requests(small: Agent, cgroup: Cgroup) -> None:
    """process.exec is not written to the output; a client that requests it gets it."""
    found: list[dict[str, Any]] = []

    def follow() -> None:
        with contextlib.suppress(AgentUnreachableError):  # at the end
            found.extend(subscribe(small.socket, follow=True, events=["process.exec"]))

    threading.Thread(target=follow, daemon=True).start()
    wait_for(lambda: small.metrics()["ringfence_stream_clients", ()] == 1, "the client")
    cgroup.run(["/bin/echo", "needle"])
    wait_for(lambda: [r for r in found if r["details"].get("args") == ["/bin/echo", "needle"]], "the exec")
    assert not [record for record in small.records if record["event"] == "process.exec"]


def test_hostile_names_break_nothing(small: Agent, tmp_path: Path) -> None:
    """A cgroup, a program and an argument with
    newlines, escape codes and bytes that are not UTF-8.
    """
    program = os.fsencode(tmp_path) + b"/evil\n\x1b[31m\xff"
    Path(os.fsdecode(program)).symlink_to("/usr/bin/unshare")
    (tmp_path / "sleep\x1b[2J").symlink_to("/bin/sleep")
    with new_cgroup(f"{LABEL}-evil\x1b\x07\u202e") as cgroup:
        ended = cgroup.run([program, b"--user", b"\xff\xfe\n"])  # type: ignore[list-item]
        assert ended.returncode == -signal.SIGKILL
        alert = small.wait_alert("test-user-namespace")
        sleeper = cgroup.popen([os.fsencode(tmp_path) + b"/sleep\x1b[2J", b"60"])  # type: ignore[list-item]
        try:
            commands = (["events"], ["top", "--once"], ["tree"], ["status"])
            shown = [cli(small, *words, *more).stdout for words in commands for more in ([], ["-o", "json"])]
        finally:
            sleeper.kill()
            sleeper.wait()
    assert alert["process"]["args"][-1] == "\\xff\\xfe\\n"
    for text in shown:
        assert text
        assert all(line.isprintable() for line in text.splitlines())
    for text in (shown[0], shown[3], shown[4]):  # events; top and tree have the name, or the program
        assert "\\x1b" in text
    assert "\x1b" not in small.get("/metrics")[1]


def test_a_removed_container_is_named_in_its_last_alert(small: Agent) -> None:
    """The cgroup is removed at once; the alert still has the container's name."""
    names = []
    for _ in range(20):
        with new_cgroup(f"{LABEL}-short") as cgroup:
            names.append(cgroup.name)
            forbidden(cgroup)
    for name in names:
        small.wait_alert("test-user-namespace", name)


def test_a_fork_bomb_is_survived(small: Agent) -> None:
    """Limited by the cgroup's pids limit: alerts of others still arrive, memory stays bounded."""
    with new_cgroup(f"{LABEL}-bomb") as bomb, new_cgroup(f"{LABEL}-calm") as calm:
        bomb.paths.get("pids", bomb.path).joinpath("pids.max").write_text("200")
        with bomb.popen([sys.executable, "-c", BOMB]) as process:
            wait_for(lambda: len(bomb.pids()) > 100, "the bomb")
            forbidden(calm)
            small.wait_alert("test-user-namespace", calm.name)
            bomb.remove()
            process.wait()
    samples = small.metrics()
    assert not any(v for (name, _), v in samples.items() if name == "ringfence_handler_errors_total")
    assert samples["process_resident_memory_bytes", ()] < 80e6
    assert request(small.socket, "status")["problems"] == []


def test_a_broken_pipe_of_a_reader_causes_no_error_message(small: Agent, cgroup: Cgroup) -> None:
    """`ringfence events

    head -1`: no traceback, no message.
    """
    forbidden(cgroup)
    small.wait_alert("test-user-namespace", cgroup.name)
    line = f"{sys.executable} -m ringfence events --socket {small.socket} | head -n 1"
    piped = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=patience(60), check=False
    )
    assert piped.stdout.count("\n") == 1
    assert piped.stderr == ""
