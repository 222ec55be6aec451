# SPDX-License-Identifier: Apache-2.0
"""systemd as a container's first process, under the pack: as Podman starts it, and with more capabilities.

The former needs no exception. The latter, for services with their own view of the filesystem, needs
the two exceptions of policies/README.md. systemd in a container requires cgroup v2 only, so these
tests run in the virtual machines.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benign.machine import host_root, new_bundle
from tests.benign.running import need, stopped
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, is_pure_v2
from tests.support.container import Container
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

NAME = "rf-systemd"
REPORTED = {"keyring-add", "keyring-use"}  # systemd gives each service a keyring
SERVICE = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'systemd-detect-virt --container > /srv/virt; echo done > /srv/done'
"""
#: a service that mounts: it has its own view of the filesystem
FENCED = SERVICE + "PrivateTmp=yes\nProtectSystem=yes\nProtectHome=yes\nInaccessiblePaths=/boot\n"


@pytest.fixture(autouse=True)
def _version_2() -> None:
    if not is_pure_v2():
        force.elsewhere("systemd in a container wants cgroup version 2 only")
    need(("systemctl",))


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Agent]:
    """An agent with the unmodified pack."""
    with running_agent(tmp_path / "agent", policies=[PACK], mode="enforce") as agent:
        yield agent


@pytest.fixture
def lenient_guard(tmp_path: Path) -> Iterator[Agent]:
    """An agent with the pack and the exceptions of policies/README.md for systemd with CAP_SYS_ADMIN."""
    directory = tmp_path / "policies"
    directory.mkdir()
    for file in PACK.glob("*.yaml"):
        text = file.read_text()
        if file.name == "mounts.yaml":
            text = _replaced(
                text,
                r"^( +)containers: all$",
                rf"\1containers: all\n\1except: {{names: [{NAME}]}}\n\1unidentified: wait",
            )
        if file.name == "kernel.yaml":
            text = _replaced(
                text,
                r"^( +)event: bpf\n +match: any$",
                r"\g<0>\n\1exceptions: [{why: filters of its services, exe: [/usr/lib/systemd/systemd]}]",
            )
        (directory / file.name).write_text(text)
    with running_agent(tmp_path / "agent", policies=[directory], mode="enforce") as agent:
        yield agent


def _replaced(text: str, pattern: str, by: str) -> str:
    changed, count = re.subn(pattern, by, text, flags=re.M)
    assert count == 1, pattern
    return changed


def test_systemd_boots_as_podman_starts_it(guard: Agent, tmp_path: Path) -> None:
    """With an engine's capabilities and masks: it reaches its target and runs the test's service.

    Nothing is denied, as the engine's profile refuses bpf(2). Without that profile the rule on bpf(2)
    denies it, and systemd continues.
    """
    boot(guard, tmp_path, SERVICE, ())


def test_systemd_gives_its_services_their_own_views(lenient_guard: Agent, tmp_path: Path) -> None:
    """With CAP_SYS_ADMIN: its services mount, and it loads its BPF filters; all other rules are active."""
    boot(lenient_guard, tmp_path, FENCED, ("CAP_SYS_ADMIN",))


#: in every engine's default profile, for containers without CAP_SYS_ADMIN and CAP_BPF
WITHOUT_BPF = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}


def boot(guard: Agent, tmp_path: Path, service: str, capabilities: tuple[str, ...]) -> None:
    """Boots until the service has run; nothing is stopped, and only rules in REPORTED raise alerts."""
    with host_root(tmp_path / "machine") as root:
        bundle = new_bundle(tmp_path, root, "", capabilities)
        bundle.config["process"]["args"] = [
            "/lib/systemd/systemd",
            "--unit=rf.service",
            "--log-target=console",
        ]
        bundle.config["process"]["env"] += ["container=podman"]
        bundle.config["annotations"]["nerdctl/name"] = NAME
        if "CAP_SYS_ADMIN" not in capabilities:
            bundle.config["linux"]["seccomp"] = WITHOUT_BPF
        bundle.add_mount("/sys/fs/cgroup", "cgroup", "rw")
        bundle.add_mount("/run/lock", "tmpfs", "mode=755")
        (root / "etc/systemd/system/rf.service").write_text(service)
        name = f"{PREFIX}benign-systemd-{secrets.token_hex(3)}"
        container = Container(name, bundle.write(name))
        before = stopped(guard)
        try:
            container.start()
            done = Path(f"/proc/{container.pid}/root/srv/done")
            wait_for(done.exists, "systemd to run its service")
            assert Path(f"/proc/{container.pid}/root/srv/virt").read_text().strip() == "podman"
        finally:
            container.remove()
    assert stopped(guard) == before, guard.alerts(name)
    assert {alert["rule"]["id"] for alert in guard.alerts(name)} <= REPORTED
