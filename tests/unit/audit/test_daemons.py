# SPDX-License-Identifier: Apache-2.0
"""The configuration of dockerd and the kubelet, from command lines and files; and unexamined facts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ringfence.audit import node
from ringfence.audit.model import Finding, Unseen
from ringfence.audit.node import Node
from ringfence.audit.survey import parted
from tests.unit.audit.test_findings import TCP


class Host:
    """A node's /proc and disks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> None:
        """One file."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, pid: int, *argv: str, namespace: str = "", user: int = 0) -> None:
        """Adds one process; of the host unless it has its own mount namespace."""
        self.write(f"proc/{pid}/status", f"Name:\tx\nUid:\t{user}\t{user}\t{user}\t{user}\n")
        self.write(f"proc/{pid}/comm", argv[0].rpartition("/")[2] + "\n")
        self.write(f"proc/{pid}/cmdline", "\0".join(argv) + "\0")
        for number, name in ((1, "mnt:[1]"), (pid, namespace or "mnt:[1]")):
            link = self.directory / f"proc/{number}/ns/mnt"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(name)

    def look(self, check: str) -> tuple[list[Finding], list[Unseen]]:
        """Returns the findings and unexamined facts of one check."""
        found, unseen = parted(node.findings(Node("n", "6.18.44", "", self.directory)))
        return [one for one in found if one.check.id == check], [one for one in unseen if one.check == check]

    def points(self, check: str) -> list[int]:
        """Returns the scores of one check."""
        return [one.points for one in self.look(check)[0]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node without processes."""
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("argv", "settings", "points"),
    [
        (["-H", "fd://"], {}, []),
        (["-H", "fd://", "-H", "tcp://0.0.0.0:2376"], {}, [95]),
        (["--host=tcp://0.0.0.0:2376", "--tls"], {}, [95]),
        (["--host=tcp://0.0.0.0:2376", "--tlsverify"], {}, []),
        (["--host=tcp://0.0.0.0:2376", "--tlsverify=true"], {}, []),
        (["--host=tcp://0.0.0.0:2376", "--tlsverify=false"], {"tlsverify": True}, [95]),
        (["-H", "tcp://127.0.0.1:2376"], {}, [75]),
        (["-Htcp://0.0.0.0:2376"], {}, [95]),
        (["-H", "0.0.0.0:4243"], {}, [95]),
        (["-H", "unix:///run/docker.sock", "-H", "tcp://:2376"], {}, [75]),
        ([], {"hosts": ["10.0.0.1:4243"]}, [95]),
        ([], {"hosts": ["tcp://10.0.0.1:2376"], "tls": True}, [95]),
        ([], {"hosts": ["tcp://10.0.0.1:2376"], "tlsverify": True}, []),
        ([], {"hosts": "tcp://10.0.0.1:2376"}, []),
        ([], [], []),
    ],
)
def test_a_docker_api_that_asks_for_no_certificate_is_found(
    host: Host, argv: list[str], settings: object, points: list[int]
) -> None:
    """TLS alone authenticates the server, not the clients."""
    host.write("etc/docker/daemon.json", json.dumps(settings))
    host.run(70, "/usr/bin/dockerd", *argv)
    assert host.points("docker-tcp") == points


def test_dockers_file_may_lie_elsewhere_and_may_be_broken(host: Host) -> None:
    """An unreadable file is reported, not ignored."""
    host.run(70, "dockerd", "--config-file", "/etc/d.json")
    host.write("etc/d.json", '{"hosts": ["tcp://0.0.0.0:2376"]}')
    assert host.points("docker-tcp") == [95]
    host.write("etc/d.json", "[" * 200_000)
    assert host.look("docker-tcp") == ([], [Unseen("docker-tcp", "/etc/d.json is nested too deeply")])


def test_a_dockerd_in_a_container_is_not_the_nodes(host: Host) -> None:
    """Its mount namespace is another one."""
    host.run(70, "dockerd", "-H", "tcp://0.0.0.0:2375", namespace="mnt:[2]")
    assert host.points("docker-tcp") == []


def test_listeners_with_unknown_settings_are_unseen(host: Host) -> None:
    """2376 and 10250 are open, but neither dockerd nor the kubelet is in /proc."""
    host.write("proc/1/net/tcp", TCP.format("00000000:0948"))
    host.write("proc/1/net/tcp6", TCP.format("0" * 32 + ":280A"))
    assert [one.check for one in host.look("docker-tcp")[1]] == ["docker-tcp"]
    assert [one.check for one in host.look("kubelet-anonymous")[1]] == ["kubelet-anonymous"]


@pytest.mark.parametrize(
    ("argv", "settings", "points"),
    [
        ([], None, [90]),
        (["--anonymous-auth=false"], None, []),
        (["--anonymous-auth", "--authorization-mode=Webhook"], None, [60]),
        (["--config=/var/lib/kubelet/config.yaml"], "kind: KubeletConfiguration\n", []),
        (["--config", "/var/lib/kubelet/config.yaml"],
         "authentication: {anonymous: {enabled: true}}\n", [60]),
        (["--config=/var/lib/kubelet/config.yaml"],
         "authentication: {anonymous: {enabled: true}}\nauthorization: {mode: AlwaysAllow}\n", [90]),
        (["--config=/var/lib/kubelet/config.yaml", "--anonymous-auth=false"],
         "authentication: {anonymous: {enabled: true}}\n", []),
        (["--config=/var/lib/kubelet/config.yaml"], "authentication: [a, b]\n", []),
        (["--config=/var/lib/kubelet/config.yaml"], "7\n", []),
    ],
)  # fmt: skip
def test_a_kubelet_that_takes_anonymous_requests_is_found(
    host: Host, argv: list[str], settings: str | None, points: list[int]
) -> None:
    """Flags override the file; without a file the old defaults apply: anonymous, all allowed."""
    if settings is not None:
        host.write("var/lib/kubelet/config.yaml", settings)
    host.run(71, "/usr/bin/kubelet", *argv)
    assert host.points("kubelet-anonymous") == points


@pytest.mark.parametrize("settings", [None, "a: [", "&a [*a, *a]: x", "[" * 5000, "\x00"])
def test_an_unreadable_kubelet_file_is_unseen(host: Host, settings: str | None) -> None:
    """Missing, no YAML, or nonsense."""
    if settings is not None:
        host.write("c.yaml", settings)
    host.run(71, "kubelet", "--config=/c.yaml")
    found, unseen = host.look("kubelet-anonymous")
    assert not found
    assert [one.what.partition(":")[0] for one in unseen] == ["/c.yaml"]


def test_runtimes_without_a_queried_version_are_unseen() -> None:
    """The agent runs no program, so these versions are unknown."""
    here = Node(
        "n", "6.18.44", "", Path("/none"), {"containerd": "containerd v1.5.9"}, None, ("runc", "crun")
    )
    found, unseen = parted(node.findings(here))
    assert [one.detail.split()[0] for one in found if one.check.id == "runtime-cve"] == ["CVE-2022-23648"]
    assert [one.what.split(":")[0] for one in unseen] == ["the version of runc", "the version of crun"]


def test_an_inaccessible_socket_is_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod without the permission to enter a directory of the host."""
    real = os.stat

    def refuse(path: object, *rest: object, **more: object) -> os.stat_result:
        if str(path).endswith("docker.sock"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    _, unseen = parted(node.findings(Node("n", "6.18.44", "", tmp_path)))
    assert unseen == [Unseen("runtime-socket-mode", "/run/docker.sock: Permission denied")]


def test_sockets_lie_on_the_hosts_disks(tmp_path: Path) -> None:
    """In a pod /run is the pod's own: the host's is elsewhere."""
    socket = tmp_path / "host/run/docker.sock"
    socket.parent.mkdir(parents=True)
    socket.write_text("")
    socket.chmod(0o666)
    here = Node("n", "6.18.44", "", tmp_path / "own", {}, tmp_path / "host")
    found, _ = parted(node.findings(here))
    assert [one.detail for one in found if one.check.id == "runtime-socket-mode"] == [
        "/run/docker.sock has mode 0666"
    ]


def test_a_kubelet_of_an_ordinary_user_is_none(host: Host) -> None:
    """A user could name a program so, to fake findings or make the audit read files of megabytes."""
    host.run(71, "/home/mallory/kubelet", user=1000)
    assert host.look("kubelet-anonymous") == ([], [])
    host.run(72, "/usr/bin/kubelet")
    assert host.points("kubelet-anonymous")


def test_aliases_do_not_make_a_setting_endless(host: Host) -> None:
    """A list instead of a word: with aliases it would expand to 10^9 words."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
    settings = "authorization: {mode: *l9}\nauthentication: {anonymous: {enabled: *l9}}\n"
    host.write("etc/kubelet.yaml", f"l0: &l0 [x]\n{levels}{settings}")
    host.run(73, "/usr/bin/kubelet", "--config=/etc/kubelet.yaml")
    assert host.look("kubelet-anonymous") == ([], [])
