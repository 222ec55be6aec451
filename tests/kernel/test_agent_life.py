# SPDX-License-Identifier: Apache-2.0
"""The real agent from start to end: ready in time,
one at a time, a clean stop, clear start errors.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.client import request
from ringfence.errors import Error
from tests.support.agent import Agent, environment
from tests.support.cgroups import PREFIX, new_cgroup
from tests.support.policies import user_namespace, written
from tests.support.waiting import busy, patience, quickest, wait_for

pytestmark = pytest.mark.root

LABEL = "life"  # in the names of this test's cgroups: another test's agent must not enroll them
POLICY = user_namespace()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with one small policy."""
    return written(tmp_path, POLICY)


@pytest.fixture
def stopped(tmp_path: Path, policies: Path) -> Iterator[Agent]:
    """An agent that was not started yet; stopped afterwards in any case."""
    agent = Agent(tmp_path / "agent", policies=[policies], patterns=[f"{PREFIX}{LABEL}-*"])
    yield agent
    agent.stop()


def command(agent: Agent, *more: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `ringfence agent` in the foreground with this
    agent's flags; it is expected to end by itself.
    """
    return subprocess.run(
        [*prefix, *agent.argv, *more],
        capture_output=True, text=True, timeout=patience(60), env=environment(), check=False,
    )  # fmt: skip


def log_of(agent: Agent) -> list[Mapping[str, object]]:
    """The agent's own log."""
    return [json.loads(line) for line in agent.log.read_text().splitlines()]


def test_it_is_ready_within_a_second(stopped: Agent) -> None:
    """Process start to ready by the agent's own clock;
    attaching is the smaller part. Both are metrics.
    """
    attached: list[float] = []

    def started() -> float:
        stopped.stop()
        stopped.start()
        samples = stopped.metrics()
        assert samples["ringfence_ready", ()] == 1
        assert stopped.get("/healthz") == (200, "ok\n")
        attached.append(samples["ringfence_attach_seconds", ()])
        return samples["ringfence_startup_seconds", ()]

    assert quickest(started, patience(1.0) * busy(), tries=5) < patience(1.0) * busy()
    assert min(attached) < patience(0.3) * busy()


def test_sigterm_ends_it_cleanly(stopped: Agent) -> None:
    """Exit code 0, the socket is removed, the log reports it, and no error was a bug."""
    stopped.start()
    assert stopped.socket.exists()
    assert stopped.stop() == 0
    assert not stopped.socket.exists()
    lines = log_of(stopped)
    assert [line["message"] for line in lines][-2:] == ["ready", "stopping"]
    assert not [line for line in lines if line["level"] == "error"]


def test_an_early_reload_does_not_end_the_agent(stopped: Agent) -> None:
    """A log rotation or a policy update may send SIGHUP
    before the agent is ready; the reload is done once it is.
    """
    stopped.start(wait=False)
    wait_for((stopped.directory / "state/agent.lock").exists, "the start", every=0.001)
    os.kill(stopped.pid, signal.SIGHUP)
    wait_for(stopped._is_ready, "the agent to be ready")
    wait_for(lambda: stopped.metrics()["ringfence_policy_generation", ()] == 2, "the reload")


def test_a_second_agent_is_refused(stopped: Agent) -> None:
    """Exit code 5, the pid of the first in the message; the first continues."""
    stopped.start()
    second = command(stopped)
    assert second.returncode == 5
    assert f"pid {stopped.pid}" in second.stderr
    assert second.stderr.startswith("ringfence: error: another agent runs on this node")
    assert "hint: " in second.stderr
    assert request(stopped.socket, "status")["pid"] == stopped.pid


def test_after_a_kill_the_next_agent_starts(stopped: Agent) -> None:
    """After kill -9 the socket and the lock file remain; neither prevents a start."""
    stopped.start()
    os.kill(stopped.pid, signal.SIGKILL)
    wait_for(lambda: stopped.status is not None, "the end")
    assert stopped.socket.exists()
    stopped.start()
    assert request(stopped.socket, "status")["problems"] == []


def pins() -> list[Path]:
    """Returns all pins of agents on this node."""
    base = Path("/sys/fs/bpf/ringfence")
    own = Path("/run/ringfence/bpf/ringfence")
    return [path for directory in (base, own) if directory.is_dir() for path in directory.iterdir()]


def test_pins_outlive_a_kill_are_taken_over_and_uninstalled(tmp_path: Path, policies: Path) -> None:
    """kill -9 leaves links pinned; the next start replaces them; --uninstall leaves nothing."""
    if pins():
        pytest.skip("another agent has pinned something on this node")
    agent = Agent(tmp_path / "agent", policies=[policies], flags={"pins": "auto"})
    try:
        agent.start()
        first = pins()
        assert len(first) == 1
        assert list((first[0] / "links").iterdir())
        os.kill(agent.pid, signal.SIGKILL)
        wait_for(lambda: agent.status is not None, "the end")
        assert pins() == first
        agent.start()
        second = pins()
        assert len(second) == 1
        assert second != first
        assert agent.stop() == 0
        assert pins() == second
    finally:
        agent.stop()
        removed = command(agent, "--uninstall")
    assert removed.returncode == 0
    assert pins() == []
    assert not (agent.directory / "state").exists()


def test_uninstall_is_refused_while_an_agent_runs(stopped: Agent) -> None:
    """The pins are in use."""
    stopped.start()
    assert command(stopped, "--uninstall").returncode == 5


def test_a_caller_that_is_not_root_gets_an_error(stopped: Agent) -> None:
    """Exit code 4 and two lines; no traceback."""
    refused = command(stopped, prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    assert refused.returncode == 4
    assert refused.stderr.startswith("ringfence: error: ")
    assert "root" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_kernel_without_btf_is_an_error(stopped: Agent) -> None:
    """In a mount namespace where /sys/kernel/btf is
    empty: exit code 3, what is missing, what to do.
    """
    script = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    refused = command(stopped, prefix=("unshare", "--mount", "sh", "-c", script, "sh"))
    assert refused.returncode == 3
    assert "no BTF (/sys/kernel/btf/vmlinux)" in refused.stderr
    assert "CONFIG_DEBUG_INFO_BTF" in refused.stderr


def test_bad_policies_are_refused_at_the_start(stopped: Agent, policies: Path) -> None:
    """Exit code 2, every mistake with its position, and nothing was loaded."""
    (policies / "bad.yaml").write_text(POLICY.replace("kill", "kil").replace("name: test", "name: bad"))
    refused = command(stopped)
    assert refused.returncode == 2
    assert f"{policies}/bad.yaml:15:" in refused.stderr
    assert "'kil'" in refused.stderr


def test_a_port_in_use_is_named(stopped: Agent, tmp_path: Path, policies: Path) -> None:
    """Exit code 1, the address and the flag; the first agent is not affected."""
    stopped.start()
    other = Agent(tmp_path / "other", policies=[policies], flags={"http-listen": f"127.0.0.1:{stopped.port}"})
    refused = command(other)
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{stopped.port}" in refused.stderr
    assert "--http-listen" in refused.stderr
    assert stopped.get("/readyz")[0] == 200


@pytest.mark.parametrize("kind", ["closed", "full"])
def test_an_output_that_fails_does_not_end_it(stopped: Agent, kind: str) -> None:
    """A closed pipe and a full disk: counted, logged once, and the agent continues to decide."""
    script = '"$@" > /dev/full' if kind == "full" else 'exec 3>&1; "$@" 3>&- | :'
    stopped.argv = ["sh", "-c", f"exec {script}" if kind == "full" else script, "sh", *stopped.argv]
    try:
        _lose_three_lines(stopped, kind)
    finally:  # a shell between the test and the agent would not forward a signal
        with contextlib.suppress(Error):
            os.kill(request(stopped.socket, "status")["pid"], signal.SIGTERM)
        wait_for(lambda: stopped.status is not None, "the end")


def _lose_three_lines(stopped: Agent, kind: str) -> None:
    stopped.start()
    for _ in range(3):
        with new_cgroup(LABEL) as cgroup:
            assert cgroup.run(["unshare", "--user", "true"]).returncode == -signal.SIGKILL
    reason = {"closed": "closed", "full": "disk_full"}[kind]
    key = ("ringfence_output_lines_dropped_total", (("destination", "stdout"), ("reason", reason)))
    wait_for(lambda: stopped.metrics()[key] >= 3, "lost lines to be counted")
    complaints = [line for line in log_of(stopped) if "lines are lost" in str(line["message"])]
    assert [line["reason"] for line in complaints] == [reason]
    assert request(stopped.socket, "status")["problems"] == ["lines to stdout were lost"]


def test_without_a_network_it_starts_and_decides(stopped: Agent) -> None:
    """Not even the loopback is up. A receiver cannot be reached, and its alert waits."""
    stopped.argv = ["unshare", "--net", *stopped.argv, "--alerts-webhook", "http://192.0.2.1/"]
    stopped.start(wait=False)

    def status() -> Mapping[str, Any] | None:
        with contextlib.suppress(Error):
            found: Mapping[str, Any] = request(stopped.socket, "status")
            return None if found["problems"] else found
        return None

    wait_for(status, "the agent to be ready")
    with new_cgroup(LABEL) as cgroup:
        assert cgroup.run(["unshare", "--user", "true"]).returncode == -signal.SIGKILL
    wait_for(lambda: stopped.records, "the alert's line")
    reason = "192.0.2.1:80: Network is unreachable"
    wait_for(
        lambda: [line for line in log_of(stopped) if line.get("reason") == reason], "a line that says so"
    )


def test_systemd_hears_of_the_whole_life(
    stopped: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready when /readyz says so and not before, alive while the loop turns, stopping at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(patience(60))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        stopped.start(wait=False)
        while (message := systemd.recv(4096)) != b"READY=1\nSTATUS=ready":
            assert message == b"WATCHDOG=1"
        assert stopped.get("/readyz")[0] == 200
        assert systemd.recv(4096) == b"WATCHDOG=1"
        stopped.stop()
        systemd.setblocking(False)
        last = b""
        with contextlib.suppress(BlockingIOError):
            while message := systemd.recv(4096):
                last = message
        assert last == b"STOPPING=1\nSTATUS=stopping"
