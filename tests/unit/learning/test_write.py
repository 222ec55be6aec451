# SPDX-License-Identifier: Apache-2.0
"""Fences from observed behaviour: pure, and safe with names that the workload chose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.abi import EventKind
from ringfence.learning.observed import Observed, Peer, observe
from ringfence.learning.write import files
from ringfence.policy import NodeTiers, Rule, compile_policies
from ringfence.policy.load import load_bytes
from ringfence.policy.review import refuse
from ringfence.policy.samples import Sample, file_sample, rule_matches, sample
from ringfence_linux.mountinfo import parse
from ringfence_runtime.security.default_profile import profile

MOUNTINFO = """\
100 99 254:0 /var/lib/root / rw - ext4 /dev/vda rw
101 100 0:65 / /dev rw - tmpfs tmpfs rw
102 100 254:0 /home/me\\040too /data rw - ext4 /dev/vda rw
"""
MASKED = """\
110 100 0:5 /null /dev/null rw - devtmpfs udev rw
111 100 0:5 /null /etc/shadow ro - devtmpfs udev rw
"""
ROOT = next(parse(MOUNTINFO))


def opened(device: str, path: str, access: str) -> dict[str, object]:
    """Returns a record of an open."""
    details = {"device": device, "path": path, "access": access}
    return {"event": "file.open", "kind": "activity", "process": {"comm": "a"}, "details": details}


@pytest.mark.parametrize(
    ("device", "path", "shown"),
    [
        ("254:0", "/var/lib/root/etc/passwd", "/etc/passwd"),
        ("254:0", "/home/me too/x", "/data/x"),
        ("0:65", "/null", "/dev/null"),
        ("254:0", "/var/lib/root", "/"),
        ("254:0", "/var/lib/rootkit/x", ""),
        ("9:9", "/x", ""),
    ],
)
def test_paths_are_those_of_the_sandbox(device: str, path: str, shown: str) -> None:
    """The kernel reports a path on a filesystem; the mounts give the path in the sandbox."""
    seen = observe([], [opened(device, path, "read")], list(parse(MOUNTINFO)), 0)
    assert list(seen.read) == ([shown] if shown else [])


def test_a_mask_is_not_the_path_of_the_null_device() -> None:
    """Both are mounts of the host's /dev/null in a sandbox with its own ids: writes were allowed in /etc."""
    seen = observe([], [opened("0:5", "/null", "write")], list(parse(MOUNTINFO + MASKED)), 0)
    assert list(seen.written) == ["/dev/null"]


def test_calls_and_capabilities_get_their_names() -> None:
    """From numbers of x86_64 and, for 32-bit programs, of i386."""
    rows = [[1, 83, 0, "a", 2], [1, 39, 1, "b", 1], [2, 83, 0, "a", 1], [3, 0, 0, "a", 4], [4, 21, 0, "a", 1]]
    seen = observe(rows, [], [], 0)
    assert seen.calls == {("mkdir", False): Counter(a=2), ("mkdir", True): Counter(b=1)}
    assert seen.refused == {"mkdir": Counter(a=1)}
    assert list(seen.capabilities) == ["CAP_CHOWN"]
    assert list(seen.capabilities_refused) == ["CAP_SYS_ADMIN"]


def test_without_the_tracepoint_all_capabilities_stay_with_a_comment() -> None:
    """A kernel that does not report them must not look like a workload that needs none."""
    seen = Observed(calls={("read", False): Counter(a=1)})
    text = files(seen, "x", "x", ["CAP_CHOWN"], None)["capabilities.txt"]
    assert text.splitlines()[1:] == ["CAP_CHOWN"]
    assert "does not report" in text


def test_a_change_of_an_unknown_directory_has_a_reason() -> None:
    """The path of mkdir is not recorded: everything may be written, and the line has the reason."""
    seen = Observed(calls={("mkdir", False): Counter(a=3)}, written={"/tmp/x": Counter(a=1)})
    rules = json.loads(files(seen, "x", "x", [], None)["landlock.json"])
    assert {"path": "/", "access": "write", "comment": "3 times: mkdir 3"} in rules


def _policy_of(seen: Observed) -> dict[str, Rule]:
    """Returns the learned policy's rules, as loaded by `ringfence policy check` and an agent."""
    text = files(seen, "x", "x", [], None)["policy.yaml"]
    found = load_bytes({"policy.yaml": text.encode()})
    assert compile_policies(found, NodeTiers.usual()).rules
    refuse(found)
    return {rule.id: rule for policy in found.policies for rule in policy.rules}


def _connection(peer: Peer) -> Sample:
    address = ip_address(peer.address).packed
    return sample(
        EventKind.NET_CONNECT, "", address=address, port=peer.port, family="AF_INET", protocol="tcp"
    )


def test_a_learned_policy_passes_the_check() -> None:
    """It selects containers of that name: for all containers, its rules would be refused."""
    once = Counter(sh=1)
    assert _policy_of(Observed(calls={("read", False): once}, programs={"/bin/sh": once}))


def test_a_run_of_many_programs_gets_a_policy_that_loads() -> None:
    """With more programs than a rule can have exceptions, each with its reason."""
    once = Counter(sh=1)
    seen = Observed(calls={("read", False): once}, programs={f"/usr/bin/p{n}": once for n in range(1500)})
    rule = _policy_of(seen)["x-program"]
    for path, matched in ((b"/usr/bin/p0", False), (b"/usr/bin/p1499", False), (b"/usr/bin/p1500", True)):
        assert rule_matches(rule, file_sample(EventKind.PROCESS_EXEC, "overlay", path, "")) is matched
    assert '- "/usr/bin/p7"  # 1 time: sh 1' in files(seen, "x", "x", [], None)["policy.yaml"]


@pytest.mark.parametrize(
    ("ports", "exact"),
    [(lambda n: (443,), True), (lambda n: (80, 443) if n % 2 else (53,), True), (lambda n: (n + 1,), False)],
)
def test_a_run_of_many_connections_gets_a_policy_that_loads(
    ports: Callable[[int], tuple[int, ...]], exact: bool
) -> None:
    """With equal or different ports; with equal ones, no other pair is allowed."""
    once = Counter(curl=1)
    peers = [Peer("tcp", f"10.0.{n // 200}.{n % 200}", port) for n in range(1200) for port in ports(n)]
    rule = _policy_of(Observed(calls={("read", False): once}, connected=dict.fromkeys(peers, once)))[
        "x-connects"
    ]
    assert not any(rule_matches(rule, _connection(peer)) for peer in (peers[0], peers[-1]))
    assert rule_matches(rule, _connection(Peer("tcp", "10.1.0.0", 443)))
    assert rule_matches(rule, _connection(peers[0]._replace(port=6))) is exact


@example("", "/")
@example("", "x*")
@example("", "\U00010000")
@settings(deadline=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=30))
def test_no_name_of_the_workload_breaks_a_file(program: str, path: str) -> None:
    """Programs and paths are untrusted bytes: each file remains valid."""
    counts = Counter({program: 1})
    seen = Observed(
        calls={("read", False): counts},
        capabilities={"CAP_CHOWN": counts},
        programs={f"/{path}": counts},
        written={f"/{path}/x": counts},
        connected={Peer("tcp", "10.0.0.1", 80): counts},
    )
    texts = files(seen, "fuzz", "fuzz", ["CAP_CHOWN"], profile([]))
    [policy] = load_bytes({"policy.yaml": texts["policy.yaml"].encode()}).policies
    assert [rule.action.label for rule in policy.rules] == ["kill", "deny", "deny", "kill"]
    assert json.loads(texts["seccomp.json"])["defaultAction"] == "SCMP_ACT_ERRNO"
    assert json.loads(texts["landlock.json"])
    assert [line.split()[0] for line in texts["capabilities.txt"].splitlines()] == ["CAP_CHOWN"]
