# SPDX-License-Identifier: Apache-2.0
"""The runtime and a real agent: the policy is in
force before the first instruction, or nothing runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.enrolling import enrolling_agent, policy
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent whose policies only apply to containers that request them or match them by label."""
    force.need_root()
    selectors = {"by-request": "{names: [nobody-is-called-so]}", "by-label": "{labels: {tier: front}}"}
    with enrolling_agent(tmp_path_factory.mktemp("agent"), selectors) as running:
        yield running


def reloads(agent: Agent) -> float:
    """Returns how often the agent put a set in force."""
    samples = agent.metrics()
    [count] = [
        value
        for (name, labels), value in samples.items()
        if name == "ringfence_policy_loads_total" and ("result", "loaded") in labels
    ]
    return count


@pytest.fixture
def with_agent(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """The runtime of this test connects to the agent of this module."""
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(agent.socket.with_name("enroll.sock")))
    return agent


def add_call(root: Path) -> None:
    """Install /bin/call: its first instructions make the call that the policies kill for."""
    source = root / "call.c"
    source.write_text(
        "#include <sys/personality.h>\n#include <unistd.h>\n"
        'int main(void) { if (personality(0x0040000) < 0) { write(1, "refused\\n", 8); return 1; }\n'
        'write(1, "lived\\n", 6); return 0; }\n'
    )
    compiler = force.need_program("gcc")
    subprocess.run([compiler, "-static", "-O1", "-o", root / "bin/call", source], check=True)


def personality(box: Box) -> Box:
    """Let the container run it."""
    add_call(box.rootfs)
    return box.args("/bin/call")


def test_a_container_without_a_policy_lives(with_agent: Agent, box: Box) -> None:
    """The twin: the agent knows the container, and none of its rules applies."""
    got = personality(box).run()
    assert (got.returncode, got.stdout) == (0, "lived\n"), got.stderr


@pytest.mark.parametrize("how", ["annotation", "option", "label"])
def test_a_policy_applies_from_the_first_instruction(with_agent: Agent, box: Box, how: str) -> None:
    """Named by an engine's annotation, by --policy, or
    selected by a label: twenty starts, all stopped.
    """
    personality(box)
    words = ["--policy", "by-request"] if how == "option" else []
    if how != "option":
        box.config["annotations"] = (
            {"ringfence.io/policy": "by-request"} if how == "annotation" else {"tier": "front"}
        )
    box.write()
    for _ in range(20):
        got = box.do("run", *words)
        assert (got.returncode, got.stdout) == (137, ""), got.stderr
    rule = "by-label-rule" if how == "label" else "by-request-rule"
    alert = with_agent.wait_alert(rule, box.name)
    assert alert["container"]["id"] == box.name


def test_a_policy_file_applies_to_its_container_only(with_agent: Agent, boxes: Any, tmp_path: Path) -> None:
    """--policy FILE: the container that brought it is killed; another one
    beside it lives, and so does the next one of the same name without it.
    """
    file = policy(tmp_path, "from-file", "{containers: all}")
    first, second = personality(boxes()), personality(boxes())
    first.write()
    got = first.do("run", "--policy", str(file))
    assert (got.returncode, got.stdout) == (137, ""), got.stderr
    for other in (second, first):
        got = other.run()
        assert got.stdout == "lived\n", got
    alert = with_agent.wait_alert("from-file-rule", first.name)
    assert alert["rule"]["file"] == str(file)
    assert not with_agent.alerts(second.name)


def test_a_policy_file_does_not_apply_to_an_unknown_container(
    tmp_path: Path, boxes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the container that brought it runs, the next is enrolled by its name alone, and lives."""
    first, second = boxes(), personality(boxes())
    first.shell("while [ ! -e /tmp/go ]; do sleep 0.05; done").write()
    second.write()
    made, file = tmp_path / "policies", policy(tmp_path, "of-the-first", "{containers: all}")
    made.mkdir()
    policy(made, "of-nobody", "{names: [nobody-is-called-so]}")
    with running_agent(tmp_path, policies=[made], patterns=(f"{PREFIX}*",)) as agent:
        monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(agent.socket.with_name("enroll.sock")))
        log = first.directory / "log"
        words = ("--log", str(log), "run", "--detach", "--policy", str(file), first.name)
        got = first.runtime(*words, cwd=first.directory, capture=False)
        assert got.returncode == 0, log.read_text()
        monkeypatch.delenv("RINGFENCE_ENROLL_SOCKET")
        assert [second.run().stdout for _ in range(5)] == ["lived\n"] * 5
        assert first.exec("/bin/touch", "/tmp/go").returncode == 0
        first.wait("stopped")
        assert not agent.alerts(second.name)


def test_a_policy_file_stays_in_force_across_other_files_and_reloads(
    with_agent: Agent, boxes: Any, tmp_path: Path
) -> None:
    """A second file and a reload make new generations;
    the first container's file is in each of them.
    """
    first = boxes()
    personality(first).shell("while [ ! -e /tmp/go ]; do sleep 0.05; done; exec /bin/call >/out")
    first.write()
    log = first.directory / "log"
    file = policy(tmp_path, "stays", "{containers: all}")
    got = first.runtime(
        "--log", str(log), "run", "--detach", "--policy", str(file), first.name,
        cwd=first.directory, capture=False,
    )  # fmt: skip
    assert got.returncode == 0, log.read_text()
    other = personality(boxes())
    other.write()
    other_file = policy(tmp_path, "comes-and-goes", "{containers: all}")
    assert other.do("run", "--policy", str(other_file)).returncode == 137
    before = reloads(with_agent)
    os.kill(with_agent.pid, 1)
    wait_for(
        lambda: reloads(with_agent) > before,
        "the agent read its policies again",
    )
    assert first.exec("/bin/touch", "/tmp/go").returncode == 0
    first.wait("stopped")
    assert not (first.rootfs / "out").read_text()
    with_agent.wait_alert("stays-rule", first.name)


@pytest.mark.parametrize(
    ("words", "annotations", "message"),
    [
        (["--policy", "no-such-policy"], {}, "no policy 'no-such-policy' is loaded"),
        ([], {"ringfence.io/policy": "no-such-policy"}, "no policy 'no-such-policy' is loaded"),
        ([], {"ringfence.io/policy": "/etc/shadow"}, "annotations.ringfence.io/policy"),
        ([], {"ringfence.io/require-agent": "yes please"}, "annotations.ringfence.io/require-agent"),
        (["--policy", "/no/such/file"], {}, "cannot read /no/such/file"),
        (["--policy", "BAD.yaml"], {}, "BAD.yaml:4:"),
    ],
)
def test_a_policy_that_cannot_be_in_force_prevents_the_start(
    with_agent: Agent, box: Box, words: list[str], annotations: dict[str, str], message: str
) -> None:
    """One error, and no cgroup, state or process of the attempt."""
    (box.directory / "BAD.yaml").write_text(
        "apiVersion: ringfence.dev/v1\nkind: Policy\n\nmetadata: {nam: x}\n"
    )
    box.config["annotations"] = annotations
    box.write()
    got = box.do("run", *words)
    assert got.returncode == 1
    assert message in got.stderr
    assert not box.cgroups()
    assert not (box.runtime.root / box.name).exists()


@pytest.mark.parametrize("how", ["option", "annotation"])
def test_a_required_agent_that_is_absent_prevents_the_start(
    box: Box, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--require-agent fails closed with nothing left; the same container without it runs."""
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(tmp_path / "nobody.sock"))
    if how == "annotation":
        box.config["annotations"] = {"ringfence.io/require-agent": "true"}
    box.args("/bin/echo", "ran").write()
    got = box.do("run", *(["--require-agent"] if how == "option" else []))
    assert (got.returncode, got.stdout) == (1, "")
    assert "no agent listens" in got.stderr
    assert not box.cgroups()
    assert not (box.runtime.root / box.name).exists()
    box.config.pop("annotations", None)
    assert box.output() == "ran\n"


class Impostor:
    """A fake agent socket that receives a request and
    runs `how`: a real agent cannot be made to misbehave.
    """

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.bind(str(path))
        self.server.listen(8)
        self.answer = answer
        self.held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            self.held.append(peer)
            if self.answer is not None:
                peer.recv(1 << 16)
                peer.send(self.answer) if self.answer else peer.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the agent ended"),
        (b"{", "cannot be understood"),
        (b'{"ok": "yes"}', "did not take the container"),
        (b'{"ok": false, "error": "full\\u001b[31m"}', "full"),
    ],
)
def test_an_agent_that_fails_counts_as_absent(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes, message: str
) -> None:
    """Required: nothing starts. Not required: a warning, and the runtime's own isolation."""
    path = tmp_path / "enroll.sock"
    impostor = Impostor(path, answer)
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(path))
    box.args("/bin/echo", "ran").write()
    got = box.do("run", "--require-agent")
    assert (got.returncode, got.stdout) == (1, "")
    assert message in got.stderr
    assert "\x1b" not in got.stderr
    assert not box.cgroups()
    got = box.do("run")
    assert (got.returncode, got.stdout) == (0, "ran\n")
    assert "the runtime's own restrictions hold" in got.stderr
    impostor.server.close()


def test_an_agent_without_an_answer_delays_a_start_for_a_bounded_time(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two seconds where no agent was required; then the workload starts."""
    path = tmp_path / "enroll.sock"
    impostor = Impostor(path, None)
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(path))
    got = box.args("/bin/echo", "ran").run()
    assert (got.returncode, got.stdout) == (0, "ran\n")
    assert "does not answer" in got.stderr
    impostor.server.close()


def ask(agent: Agent, data: bytes, fds: list[int]) -> bytes:
    """Send one request to the agent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(str(agent.socket.with_name("enroll.sock")))
        socket.send_fds(sock, [data], fds)
        return sock.recv(1 << 16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "does not fit its descriptors"),
        (b'{"fds": ["cgroup"], "id": "x"}', "does not fit its descriptors"),
        (b'{"fds": [], "id": "../x"}', "names no container"),
        (b'{"fds": [], "id": "x", "policies": {"a": 1}}', "are not names"),
        (b'{"fds": [], "id": "x", "policies": ["file:0123456789abcdef01234567"]}', "are not names"),
        (b'{"fds": [], "id": "x"}', "no cgroup of the container"),
        (b"[" * 30000, "nested too deeply"),
    ],
)
def test_the_agent_refuses_invalid_requests(with_agent: Agent, data: bytes, message: str) -> None:
    """Each with one reason; the agent continues."""
    assert message.encode() in ask(with_agent, data, [])
    assert with_agent.status is None


def test_a_descriptor_that_is_no_cgroup_is_refused(with_agent: Agent, tmp_path: Path) -> None:
    """Other descriptors do not name a container."""
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert b"no cgroup of the container" in ask(with_agent, b'{"fds": ["cgroup"], "id": "x"}', [fd])
    finally:
        os.close(fd)


def test_another_user_is_refused(with_agent: Agent) -> None:
    """The socket's mode excludes others; a user that passes it is still disconnected."""
    path = with_agent.socket.with_name("enroll.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    before = with_agent.metrics()["ringfence_enrolments_total", (("result", "refused"),)]
    path.chmod(0o666)
    path.parent.chmod(0o711)
    try:
        script = (
            "import os,socket,sys\nos.fchdir(3)\nos.setgid(65534); os.setuid(65534)\n"
            "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.settimeout(10)\n"
            "s.connect('enroll.sock')\n"
            "try:\n s.send(b'{}'); print(s.recv(100))\nexcept OSError: print(b'')\n"
        )
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        wrapper = ["python3", "-c", f"import os; os.dup2({fd}, 3); exec({script!r})"]
        got = subprocess.run(wrapper, pass_fds=[fd], capture_output=True, text=True, check=True)
        os.close(fd)
        assert got.stdout == "b''\n"
    finally:
        path.chmod(0o600)
        path.parent.chmod(0o700)
    assert with_agent.metrics()["ringfence_enrolments_total", (("result", "refused"),)] == before
