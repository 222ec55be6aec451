# SPDX-License-Identifier: Apache-2.0
"""The real agent under bad input and sudden ends: what was in force stays in force."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.abi import MAX_RULES
from ringfence.cli.client import request
from ringfence.policy.reader import MAX_BYTES
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import user_namespace, written
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

LABEL = "faults"  # in the names of this test's cgroups: another test's agent must not enroll them
POLICY = user_namespace()
KILLED = -signal.SIGKILL
BASES = (Path("/sys/fs/bpf/ringfence"), Path("/run/ringfence/bpf/ringfence"))


def _too_many_rules() -> bytes:
    rule = POLICY[POLICY.index("    - id:") :]
    head = POLICY[: POLICY.index("    - id:")].replace("name: test", "name: other")
    many = (rule.replace("test-user-namespace", f"many-{n}") for n in range(MAX_RULES + 1))
    return (head + "".join(many)).encode()


#: name -> (bytes of a file, words of the refusal)
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "oversized": (lambda: b"#" * (MAX_BYTES + 1), "is larger than 4 MiB"),
    "half written": (lambda: POLICY[: POLICY.index("action")].encode(), "action"),
    "torn inside a word": (lambda: POLICY[:-30].encode(), "is not YAML"),
    "not UTF-8": (lambda: POLICY.encode() + b"# \xff\xfe", "is not UTF-8 (byte 0xff)"),
    "binary": (lambda: bytes(range(256)) * 8, "is not"),
    "empty": (lambda: b"", "contains no document"),
    "a billion nodes": (lambda: b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and aliases"),
    "very deep": (lambda: b"[" * 100_000, "levels deep"),
    "more rules than fit": (_too_many_rules, f"there are {MAX_RULES}"),
    "the same names again": (POLICY.encode, "is already defined at"),
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one policy."""
    return written(tmp_path_factory.mktemp("faults"), POLICY)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, policies: Path) -> Iterator[Agent]:
    """One agent for all tests of bad input: it must survive each of them."""
    directory = tmp_path_factory.mktemp("agent")
    with running_agent(directory, policies=[policies], patterns=[f"{PREFIX}{LABEL}-*"]) as made:
        yield made


def forbidden(cgroup: Cgroup) -> int:
    """Do what the policy kills for. Returns how the process ended."""
    return int(cgroup.run(["unshare", "--user", "true"]).returncode)


def refused(agent: Agent, *words: str) -> bool:
    """Returns True if a problem of the newest set has all
    these words; without words, if there is any problem.
    """
    problems = request(agent.socket, "status")["policies"]["problems"]
    return any(all(word in problem for word in words) for problem in problems)


def reread(agent: Agent) -> None:
    """Do not wait for the periodic check (which runs as well, so a read may happen twice)."""
    os.kill(agent.pid, signal.SIGHUP)


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_refused_with_its_whole_set(agent: Agent, policies: Path, kind: str) -> None:
    """The previous rules stay in force, the reason is
    reported, and without the file the set loads again.
    """
    content, words = FILES[kind]
    bad = policies / "bad.yaml"
    bad.write_bytes(content())
    try:
        reread(agent)
        wait_for(lambda: refused(agent, "bad.yaml", words), "the refusal")
        assert [rule["rule"] for rule in request(agent.socket, "policies")] == ["test-user-namespace"]
        with new_cgroup(LABEL) as cgroup:
            assert forbidden(cgroup) == KILLED
    finally:
        bad.unlink()
    reread(agent)
    wait_for(lambda: not refused(agent), "the good set")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "not a regular file"),
        ("dangling link", "No such file"),
        ("link to itself", "symbolic links"),
    ],
)
def test_a_policy_path_that_is_no_file_is_refused_without_blocking(
    agent: Agent, policies: Path, kind: str, words: str
) -> None:
    """A FIFO without a writer, and links to nonexistent files."""
    bad = policies / "bad.yaml"
    if kind == "fifo":
        os.mkfifo(bad)
    else:
        bad.symlink_to(bad if kind == "link to itself" else policies / "nothing")
    try:
        reread(agent)
        wait_for(lambda: refused(agent, f"{bad}: ", words), "the refusal")
    finally:
        bad.unlink()
    reread(agent)
    wait_for(lambda: not refused(agent), "the good set")


def test_names_of_four_thousand_bytes_are_reported_shortened(agent: Agent, tmp_path: Path) -> None:
    """A program whose path and argument have the kernel's
    maximum length: killed, and reported shortened.
    """
    name = "n" * 250
    directory = tmp_path
    while len(os.fsencode(directory)) + 2 * len(name) < 4000:
        directory /= name
    # The final path is deeper than PATH_MAX from the root, so it is made step by step.
    directory.mkdir(parents=True)
    program = directory / "long\nname\x1b"
    program.symlink_to("/usr/bin/unshare")
    with new_cgroup(LABEL) as cgroup:
        ended = cgroup.run([str(program), "--user", "a" * 4096])
        assert ended.returncode == KILLED
        alert = agent.wait_alert("test-user-namespace", cgroup.name)
    assert len(str(alert)) < 8192
    assert "\x1b" not in str(alert)
    assert alert["process"]["args"][0].startswith(str(tmp_path)[:40])


def pins() -> list[Path]:
    """Returns all pins of agents on this node."""
    return [path for base in BASES if base.is_dir() for path in base.iterdir()]


def _uninstall(agent: Agent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*agent.argv, "--uninstall"], capture_output=True, text=True, timeout=patience(60), check=False
    )


def test_enforcement_outlives_kill_9_and_a_takeover_without_a_gap(tmp_path: Path, policies: Path) -> None:
    """Without an agent the call is killed in old and new containers. During the
    next agent's start no call succeeds. After --uninstall no process is killed.
    """
    if pins():
        pytest.skip("another agent has pinned something on this node")
    agent = Agent(
        tmp_path / "agent", policies=[policies], patterns=[f"{PREFIX}{LABEL}9-*"],
        flags={"pins": "auto", "containers-adopt": "yes"},
    )  # fmt: skip
    try:
        agent.start()
        with new_cgroup(f"{LABEL}9") as old:
            os.kill(agent.pid, signal.SIGKILL)
            wait_for(lambda: agent.status is not None, "the end")
            assert forbidden(old) == KILLED
            with new_cgroup(f"{LABEL}9") as young:
                assert forbidden(young) == KILLED
                agent.start(wait=False)
                ended = [forbidden(young)]
                while not _ready(agent):
                    ended.append(forbidden(young))
                ended += [forbidden(young), forbidden(old)]
                assert set(ended) == {KILLED}
                assert len(ended) > 3
    finally:
        agent.stop()
        removed = _uninstall(agent)
    assert removed.returncode == 0
    assert pins() == []
    with new_cgroup(f"{LABEL}9") as free:
        wait_for(lambda: forbidden(free) != KILLED, "the programs to go")


def _ready(agent: Agent) -> bool:
    assert agent.status is None, agent.tail()
    try:
        return agent.get("/readyz")[0] == 200
    except OSError:
        return False


def test_uninstall_without_pins_succeeds(tmp_path: Path, policies: Path) -> None:
    """The second time succeeds, too."""
    if pins():
        pytest.skip("another agent has pinned something on this node")
    agent = Agent(tmp_path / "agent", policies=[policies])
    for _ in range(2):
        done = _uninstall(agent)
        assert (done.returncode, done.stderr) == (0, "")
    assert agent.argv[0] == sys.executable
