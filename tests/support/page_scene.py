# SPDX-License-Identifier: Apache-2.0
"""The answers of an agent to its status page: a night with three incidents on one node.

The rules are the shipped ones, so titles, severities and blind rules are true.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from ringfence.config import Listen
from ringfence.daemon.queries.policies import PolicyQuery
from ringfence.export.page import PageServer
from ringfence.export.records import worded
from ringfence.policy import NodeTiers, compile_policies, load_policies

__all__ = ["CI", "NOW", "REPORT", "WEB", "Attempt", "Scene", "alerts_of_a_night", "page_alert", "serving"]

Record = dict[str, Any]
NOW = datetime(2026, 12, 2, 2, 14, 20, tzinfo=UTC)
_PACK = Path(__file__).resolve().parents[2] / "policies"


class Attempt(NamedTuple):
    """One call of a container: seconds before NOW, the rule, how it ended, the command, the operands."""

    ago: float
    rule: str
    outcome: str
    mechanism: str
    argv: tuple[str, ...]
    details: Mapping[str, Any] = {}


@cache
def _compiled() -> Any:
    return compile_policies(load_policies([_PACK]), NodeTiers.usual(), "enforce")


@cache
def _rules() -> Mapping[str, tuple[Any, Any]]:
    return {rule.id: (policy, rule) for policy in _compiled().policies.policies for rule in policy.rules}


def page_alert(attempt: Attempt, number: int, container: Record, chain: Sequence[str] = ()) -> Record:
    """The record of one attempt; `chain` has the programs above the process, the parent first."""
    policy, rule = _rules()[attempt.rule]
    ancestry: list[Record] = [
        {"pid": 2560 - n, "comm": Path(exe).name, "exe": exe} for n, exe in enumerate(chain)
    ]
    ancestry.append({"pid": 2500, "comm": "(runtime exec)"})
    record: Record = {
        "version": 1,
        "time": f"{NOW - timedelta(seconds=attempt.ago):%Y-%m-%dT%H:%M:%S.%fZ}",
        "event": next(iter(rule.events)).label, "kind": "alert", "id": f"2866c188da39f1d0-{number:x}",
        "severity": rule.severity,
        "rule": {"id": rule.id, "title": rule.title, "policy": policy.name, "line": rule.place.line,
                 "file": f"/etc/ringfence/policies/{Path(rule.place.file).name}",
                 "attack": list(rule.attack), "mode": "enforce"},
        "action": rule.action.label, "outcome": attempt.outcome, "mechanism": attempt.mechanism,
        "container": container,
        "process": {"pid": 2573 + number, "ppid": 2560, "vpid": 31 + number, "uid": 0, "gid": 0,
                    "comm": Path(attempt.argv[0]).name[:15], "facts": ["root", "cap-sys-admin"],
                    "exe": f"/usr/bin/{Path(attempt.argv[0]).name}", "args": list(attempt.argv),
                    "ancestry": ancestry},
        "details": dict(attempt.details), "latency_us": 369, "generation": 1, "node": "node-a1",
        "allow": f"add to rule {rule.id}:\n  exceptions:\n    - exe: /usr/bin/{Path(attempt.argv[0]).name}\n"
                 f"      for: {{namespaces: [{container.get('namespace', '')}]}}",
        "policy_digest": "5f2c81d0a7be", "labels": {"cluster": "prod-eu"},
    }  # fmt: skip
    return worded(record)


_IDS = {"ci-runner-0": "9b1f", "web-7c9d-x2k4q": "41aa", "report-5b7c9d": "c07e", "db-0": "7730"}


def _pod(namespace: str, pod: str, name: str, image: str, owner: str = "", score: int = 12) -> Record:
    record: Record = {
        "id": _IDS.get(pod, "d1aa") + "5e" * 30, "cgroup": 66115, "runtime": "containerd", "name": name,
        "image": image, "namespace": namespace, "pod": pod, "privileged": score > 90,
        "posture": {"score": score, "reasons": ["runtime-socket", "CAP_SYS_ADMIN"] if score > 50 else []},
    }  # fmt: skip
    if owner:
        record["owner"] = owner
    record["id"] = {"ci-runner-0": "9b1f", "web-7c9d-x2k4q": "41aa", "report-5b7c9d": "c07e"}.get(
        pod, "d1"
    ) + "5e" * 30
    return record


CI = _pod("team-b", "ci-runner-0", "build", "docker.io/library/debian:12", score=100)
WEB = _pod("shop", "web-7c9d-x2k4q", "web", "registry.example/shop/web:1.27", "Deployment/web")
REPORT = _pod("team-a", "report-5b7c9d", "report", "registry.example/team-a/report:1.0")

_K, _C = ("killed", "kill"), ("denied", "cgroup")
_CI = [
    Attempt(262, "cloud-metadata", *_C, ("curl", "-s", "http://169.254.169.254/latest/meta-data/iam/"),
            {"address": "169.254.169.254", "port": 80, "protocol": "tcp"}),
    Attempt(251, "userns-create", *_K, ("unshare", "-Urm", "/bin/sh"), {"flags": "CLONE_NEWUSER"}),
    Attempt(244, "mount-call", *_K, ("mount", "-t", "ext4", "/dev/vda1", "/mnt"), {"fstype": "ext4"}),
    Attempt(236, "block-device", *_C, ("dd", "if=/dev/vda", "of=/tmp/x", "bs=1M", "count=16"),
            {"access": "read", "device": "block 254:0"}),
    Attempt(221, "sysctl-helper", *_C, ("sh", "-c", "echo '|/tmp/x' > /proc/sys/kernel/core_pattern"),
            {"access": "write", "sysctl": "kernel/core_pattern"}),
    Attempt(209, "file-by-handle", *_K, ("./shocker", "/etc/shadow")),
    Attempt(197, "setns-host", *_K, ("nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "sh")),
    Attempt(190, "runtime-socket", "denied", "hook", ("curl", "--unix-socket", "/var/run/docker.sock",
            "http://localhost/containers/json"), {"socket": "/var/run/docker.sock"}),
    Attempt(182, "bpf-call", *_K, ("bpftool", "prog", "list")),
    Attempt(171, "kernel-log", *_K, ("dmesg",)),
    Attempt(163, "packet-socket", *_K, ("tcpdump", "-i", "eth0", "-w", "/tmp/all.pcap"),
            {"family": "AF_PACKET", "type": "SOCK_RAW"}),
    Attempt(151, "ptrace-foreign", *_K, ("gdb", "-p", "1")),
    Attempt(120, "token-by-tool", "seen", "observe",
            ("cat", "/run/secrets/kubernetes.io/serviceaccount/token"),
            {"filesystem": "tmpfs", "path": "/token", "access": "read"}),
    Attempt(96, "host-loads-container-code", "seen", "observe", ("runc", "init"),
            {"filesystem": "overlay", "path": "/lib/libnss_files.so.2", "access": "execute"}),
]  # fmt: skip


def _sweep(number: int) -> Record:
    found = page_alert(
        Attempt(150, "mount-call", "seen", "observe", ("sh", "/tmp/deepce.sh")),
        number,
        CI,
        ("/usr/bin/bash",),
    )
    found |= {"event": "finding", "severity": "high", "action": "alert",
              "tried": "A container triggers many different rules within a few seconds",
              "ended": "12 of the 12 calls were stopped",
              "details": {"rules": [one.rule for one in _CI[:12]], "tried": 12, "stopped": 12,
                          "seconds": 111}}  # fmt: skip
    found["allow"] = "to disable: `detectors: {off: [sweep]}` in the agent's configuration"
    rule = {"id": "sweep", "policy": "detectors", "file": "", "line": 0, "mode": "report"}
    found["rule"] = {**found["rule"], **rule, "title": found["tried"]}
    return found


def alerts_of_a_night() -> list[Record]:
    """The alerts, the newest first."""
    chain = ("/usr/bin/dash", "/usr/bin/python3.11")
    found = [page_alert(one, number, CI, chain) for number, one in enumerate(_CI)]
    found.append(_sweep(100))
    probe = ("php-fpm: pool www", "-c", "curl 169.254.169.254")
    found += [
        page_alert(Attempt(1900 + 40 * n, "cloud-metadata", *_C, probe,
                           {"address": "169.254.169.254", "port": 80, "protocol": "tcp"}), 200 + n, WEB)
        for n in range(6)
    ]  # fmt: skip
    found.append(
        page_alert(Attempt(2890, "keyring-use", "seen", "observe", ("report", "--month", "11")), 300, REPORT)
    )
    return sorted(found, key=lambda record: str(record["time"]), reverse=True)


def _status(now: datetime) -> Record:
    blind = [
        f"rule {one.rule.id}"
        + ("" if one.whole else f" on {', '.join(kind.label for kind in one.events)}")
        + f": {one.why}"
        for one in _compiled().blind
    ]
    return {
        "version": "0.1.0", "time": now.timestamp(), "pid": 4711, "uptime_seconds": 86000.0, "problems": [],
        "mode": "enforce",
        "policies": {"generation": 3, "digest": "5f2c81d0a7be", "policies": 12, "rules": 106, "problems": [],
                     "mechanisms": {"kill": 60, "deny by cgroup": 18, "alert": 15, "blind": len(blind)}},
        "containers": {"live": 7, "armed_tasks": 41},
        "alerts": {"denied": 10, "killed": 8, "seen": 4}, "lost": {},
        "node": {"name": "node-a1", "cluster": "prod-eu", "kernel": "6.18.5", "hierarchy": "v2",
                 "blind": blind},
        "process": {"cpu_seconds": 93.2, "rss_bytes": 61 << 20},
    }  # fmt: skip


def _row(container: Mapping[str, Any], tasks: int, **counts: int) -> Record:
    names = ("id", "cgroup", "name", "image", "runtime", "namespace", "pod")
    row = {name: container.get(name, "") for name in names}
    return row | {"state": "running", "tasks": tasks, "counts": {"exec": 40, "open": 1800, **counts}}


class Scene:
    """What the fake agent answers; tests change it while the page is open."""

    def __init__(self, alerts: list[Record] | None = None, now: datetime = NOW) -> None:
        self.alerts = alerts_of_a_night() if alerts is None else alerts
        self.status = _status(now)
        self.containers = [
            _row(CI, 3, alert=4, deny=10, kill=8), _row(WEB, 12, deny=6), _row(REPORT, 1, alert=1),
            _row(_pod("shop", "db-0", "postgres", "docker.io/library/postgres:15"), 9),
            _row(_pod("shop", "cache-0", "redis", "docker.io/library/redis:7"), 5),
        ]  # fmt: skip
        manager = cast(Any, SimpleNamespace(compiled=_compiled()))
        self.policies = PolicyQuery(manager, "enforce").rules({})

    def answer(self, op: str, _request: Mapping[str, Any]) -> Any:
        """As the agent's local socket."""
        return {"status": self.status, "top": {"containers": self.containers}, "policies": self.policies}[op]

    def recent(self, _kind: str, most: int) -> list[Record]:
        """The last alerts."""
        return self.alerts[:most]


@contextlib.contextmanager
def serving(scene: Scene) -> Iterator[str]:
    """The address of the page's real server, with these answers."""
    server = PageServer(Listen("127.0.0.1", 0), scene.answer, scene.recent)
    server.start()
    try:
        yield f"http://{server.address}/"
    finally:
        server.close()
