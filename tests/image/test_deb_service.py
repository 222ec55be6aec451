# SPDX-License-Identifier: Apache-2.0
"""The package under systemd's manager: from the installation to the first alert in three commands, an upgrade
while a container attacks, and a purge that leaves nothing.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.image.system import Machine, booted, overlay
from tests.support.agent import free_port
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, Container, new_container
from tests.support.force import missing, need_program
from tests.support.waiting import busy, wait_for
from tools.deb.__main__ import main as build_deb

pytestmark = [pytest.mark.root, pytest.mark.slow]
UNIT = "ringfence-agent"
LABEL = "packaged"
# Containers of other tests on this machine are not this agent's business.
DROP_IN = """\
[Service]
Environment=RINGFENCE_CONTAINERS_PATTERNS={prefix}{label}-* RINGFENCE_CONTAINERS_KNOWN=no
Environment=RINGFENCE_HTTP_LISTEN=127.0.0.1:{port}
StandardOutput=append:/run/agent.out
StandardError=append:/run/agent.log
"""
ATTACK = "while :; do mount -t tmpfs x /tmp; echo $?; usleep 20000; done"
KILLED, DENIED = 128 + 9, 255  # statuses of busybox' mount
FIRST_ALERT_S = 60.0


@pytest.fixture
def machine(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A manager that runs, and in /tmp the package and one of an older version."""
    for program in ("dpkg-deb", "apt-get", "runc", "nsenter"):
        need_program(program)
    needed = ("python3-yaml", "libbpf1", "libseccomp2")
    if subprocess.run(["dpkg-query", "-W", *needed], capture_output=True, check=False).returncode:
        missing("image", "packages that the package depends on are not installed: tools/deps image")
    monkeypatch.setattr("sys.argv", ["deb", "--wheel", str(wheel), "--output", str(tmp_path / "new")])
    assert build_deb() == 0
    (package,) = (tmp_path / "new").glob("*.deb")
    with overlay(tmp_path) as root:
        shutil.copy(package, root / "tmp/ringfence.deb")
        _make_older(package, root / "tmp/older.deb", tmp_path / "older")
        with booted(root) as made:
            drop_in = root / f"etc/systemd/system/{UNIT}.service.d/test.conf"
            drop_in.parent.mkdir(parents=True)
            drop_in.write_text(DROP_IN.format(prefix=PREFIX, label=LABEL, port=free_port()))
            yield made


def _make_older(package: Path, target: Path, work: Path) -> None:
    """The same content with a lower version: there is no release before this one."""
    subprocess.run(["dpkg-deb", "-R", package, work], check=True)
    control = work / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.0.1", control.read_text(), flags=re.M))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", work, target], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def _alerts(machine: Machine) -> list[dict[str, Any]]:
    lines = machine.run("ringfence", "events", "--alerts", "-o", "json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_three_commands_to_the_first_alert(
    machine: Machine, bundle: Bundle, record_property: Callable[[str, object], None]
) -> None:
    """The documented way. By default the bundled policies only report."""
    began = time.monotonic()
    machine.do("apt-get", "install", "-y", "--no-install-recommends", "/tmp/ringfence.deb")
    assert machine.show(UNIT, "ActiveState") == "inactive", "its start is the administrator's decision"
    machine.do("systemctl", "enable", "--now", UNIT)
    with new_container(bundle, LABEL) as container:
        assert container.exec("mount", "-t", "tmpfs", "x", "/tmp").returncode == 0
        (alert, *_) = wait_for(lambda: _alerts(machine), "an alert")
        seconds = time.monotonic() - began
    assert alert["rule"]["id"] == "mount-call"
    assert alert["outcome"] in ("would-kill", "would-deny")
    record_property("seconds", round(seconds, 1))
    assert seconds < FIRST_ALERT_S * busy()
    _ends_and_starts_again(machine)
    _serves_the_launcher(machine)


def _ends_and_starts_again(machine: Machine) -> None:
    before = machine.show(UNIT, "MainPID")
    machine.do("kill", "-9", before)
    wait_for(lambda: machine.show(UNIT, "MainPID") not in ("0", before), "a new agent")
    wait_for(lambda: machine.show(UNIT, "ActiveState") == "active", "the new agent to be ready")
    machine.do("systemctl", "reload", UNIT)


def _serves_the_launcher(machine: Machine) -> None:
    unit = "ringfence-launcher"
    machine.do("systemctl", "enable", "--now", f"{unit}.socket")
    assert machine.show(f"{unit}.service", "ActiveState") == "inactive"
    connect = "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('{}')"
    machine.do("python3", "-c", connect.format("/run/ringfence/launcher.sock"))
    wait_for(lambda: machine.show(f"{unit}.service", "ActiveState") == "active", "the launcher to start")


def _attacker(bundle: Bundle) -> Container:
    bundle.config["process"]["args"] = ["/bin/sh", "-c", ATTACK]
    name = f"{PREFIX}{LABEL}-{secrets.token_hex(3)}"
    return Container(name, bundle.write(name))


def test_an_upgrade_under_attack_and_a_purge(machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
    """No attempt succeeds while the agent is replaced, and the new one reports the next.

    Afterwards nothing is enforced, and nothing is left.
    """
    install = ("apt-get", "install", "-y", "--no-install-recommends")
    machine.do(*install, "/tmp/older.deb")
    configuration = machine.root.parent / "layers/upper/etc/ringfence/agent.yaml"
    machine.do("sh", "-c", "echo 'mode: enforce' >>/etc/ringfence/agent.yaml")
    machine.do("systemctl", "enable", "--now", UNIT)
    first = machine.show(UNIT, "MainPID")
    container, codes = _attacker(bundle), tmp_path / "codes"
    try:
        with codes.open("wb") as file:
            container.start(stdout=file)
        wait_for(lambda: len(codes.read_bytes().split()) > 5, "attempts")
        machine.do(*install, "/tmp/ringfence.deb")
        assert machine.show(UNIT, "ActiveState") == "active"
        assert machine.show(UNIT, "MainPID") != first
        began = len(codes.read_bytes().split())
        wait_for(lambda: len(codes.read_bytes().split()) > began + 5, "attempts on the new agent")
        wait_for(lambda: _alerts(machine), "an alert of the new agent")
        assert set(map(int, codes.read_bytes().split())) <= {KILLED, DENIED}
        assert "mode: enforce" in configuration.read_text(), "an upgrade keeps the configuration"
        machine.do("apt-get", "purge", "-y", "ringfence")
        wait_for(lambda: b"\n0\n" in codes.read_bytes(), "an attempt that nobody stops")
    finally:
        container.remove()
    assert machine.run("pgrep", "-f", "/usr/bin/ringfence").stdout == ""
    assert machine.do("find", "/sys/fs/bpf", "-mindepth", "1", "-name", "*ringfence*") == ""
    left = machine.do("find", "/etc", "/usr", "/var/lib", "/run", "-iname", "*ringfence*").split()
    assert left == [f"/etc/systemd/system/{UNIT}.service.d"], "the drop-in of this test alone"
