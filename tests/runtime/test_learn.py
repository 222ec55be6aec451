# SPDX-License-Identifier: Apache-2.0
"""`ringfence run --learn` and `--verify`, with a real agent, kernel and workload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.policy import Policy
from ringfence.policy.load import load_bytes
from tests.runtime.test_run_fences import Front, front, tree

__all__ = ["front", "tree"]
pytestmark = [pytest.mark.root, pytest.mark.slow]

WORK = (
    "echo hi >/tmp/x; ls /etc >/dev/null; chown 1000 /tmp/x; nc -w1 127.0.0.1 9; cat /etc/passwd >/dev/null"
)


@pytest.fixture
def lessons(front: Front, tmp_path: Path) -> Path:
    """The fences learned from one run of WORK."""
    directory = tmp_path / "work.d"
    _, got = front("--learn", str(directory), "--network", "host", words=("sh", "-c", WORK))
    assert got.returncode == 0, got.stderr
    return directory


def calls(directory: Path) -> set[str]:
    """Returns the calls that the learned profile allows."""
    profile = json.loads((directory / "seccomp.json").read_text())
    return {
        name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]
    }


def names_of(policy: Policy) -> tuple[str, ...]:
    """Returns the globs of names that it selects."""
    assert policy.selector.only is not None
    return policy.selector.only.names


def test_a_run_is_learned_with_a_reason_on_each_line(lessons: Path) -> None:
    """The calls, capabilities, paths, addresses and programs that it used, and no others."""
    allowed = calls(lessons)
    assert {"openat", "chown", "connect", "socket", "execve", "getdents64"} <= allowed
    assert not {"mkdir", "rename", "unlink", "ptrace", "listen", "io_uring_setup"} & allowed
    lines = (lessons / "capabilities.txt").read_text().splitlines()
    assert any(line.startswith("CAP_CHOWN  # ") and "chown" in line for line in lines)
    assert "# CAP_NET_RAW: granted but never used" in lines
    rules = json.loads((lessons / "landlock.json").read_text())
    assert all(rule["comment"] for rule in rules)
    found = {(rule.get("path") or rule["port"], rule["access"]) for rule in rules}
    assert {("/tmp", "write"), ("/etc", "read"), (9, "connectTcp")} <= found
    assert ("/", "write") not in found
    profile = json.loads((lessons / "seccomp.json").read_text())
    assert all(rule["comment"] for rule in profile["syscalls"])
    families = [rule["args"][0]["valueTwo"] for rule in profile["syscalls"] if rule["names"] == ["socket"]]
    assert families == [2]  # AF_INET


def test_the_learned_policy_is_valid(lessons: Path) -> None:
    """The agent's own reader accepts it; the observed program and address are its exceptions."""
    text = (lessons / "policy.yaml").read_bytes()
    [policy] = load_bytes({"policy.yaml": text}).policies
    assert policy.name == "work-learned"
    assert {rule.id for rule in policy.rules} == {"work-program", "work-connects", "work-binds", "work-call"}
    words = json.loads((lessons / "run.json").read_text())["words"]
    assert names_of(policy) == (words[words.index("--name") + 1],)
    assert b'{path: "/bin/busybox"}  # ' in text
    assert b'{address: "127.0.0.1", port: 9}  # 1 time: nc 1' in text


def test_the_policy_of_a_run_without_a_name_selects_its_runs(front: Front, tmp_path: Path) -> None:
    """The sandbox has a random name, so the policy has a pattern of it, and not the directory's name."""
    directory = tmp_path / "other.d"
    _, got = front.bare("--learn", str(directory), "--rootfs", str(front.tree), "true")
    assert got.returncode == 0, got.stderr
    [policy] = load_bytes({"policy.yaml": (directory / "policy.yaml").read_bytes()}).policies
    assert names_of(policy) == (f"{front.tree.name}-??????",)


def test_the_learned_profile_allows_the_same_run(front: Front, lessons: Path) -> None:
    """--verify runs it again, and nothing is refused."""
    _, got = front.bare("--verify", str(lessons))
    assert "nothing was denied" in got.stderr, got.stderr
    assert got.returncode == 0


def test_the_learned_profile_refuses_everything_else_and_verify_names_it(front: Front, lessons: Path) -> None:
    """Another call, another directory, another port, another capability: each is named."""
    record = lessons / "run.json"
    other = "mkdir /tmp/new; ls /root; nc -w1 127.0.0.1 10; chmod 600 /tmp/x; true"
    record.write_text(record.read_text().replace(json.dumps(WORK)[1:-1], other))
    _, got = front.bare("--verify", str(lessons))
    assert got.returncode == 1
    for line in (
        "seccomp denied mkdir",
        "seccomp denied chmod",
        "openat was denied",
        "connect was denied",
    ):
        assert line in got.stderr


def test_a_program_and_an_address_that_were_not_learned_match_the_policy(
    front: Front, lessons: Path, tmp_path: Path
) -> None:
    """Landlock and seccomp allow it, but the agent's rule does not."""
    (front.tree / "bin/other").write_bytes((front.tree / "bin/busybox").read_bytes())
    (front.tree / "bin/other").chmod(0o755)
    record = lessons / "run.json"
    record.write_text(record.read_text().replace(json.dumps(WORK)[1:-1], "/bin/other cat /etc/passwd"))
    _, got = front.bare("--verify", str(lessons))
    assert got.returncode == 137
    assert "policy rule work-program: process.exec" in got.stderr
    assert "root:x:0" not in got.stdout


def test_learned_fences_apply_without_an_agent(front: Front, lessons: Path) -> None:
    """--fences: capabilities, seccomp and Landlock of the directory."""
    _, got = front("--fences", str(lessons), "--network", "host", words=("sh", "-c", "mkdir /tmp/new"))
    assert got.returncode == 1
    assert "Operation not permitted" in got.stderr
    _, got = front("--fences", str(lessons), "--network", "host", words=("sh", "-c", WORK))
    assert got.returncode == 0, got.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("landlock.json", "[{}]"),
        ("landlock.json", "{"),
        ("capabilities.txt", "CAP_NO_SUCH\n"),
        ("seccomp.json", '{"defaultAction": "SCMP_ACT_NO"}'),
        ("seccomp.json", "[]"),
        ("run.json", "{}"),
        ("policy.yaml", "x: 1"),
    ],
)
def test_a_damaged_profile_prevents_the_start(front: Front, lessons: Path, file: str, text: str) -> None:
    """One error that names the file, or the position in it."""
    (lessons / file).write_text(text)
    _, got = front.bare("--verify", str(lessons))
    assert got.returncode != 0
    assert "Traceback" not in got.stderr
    assert "nothing was denied" not in got.stderr
