# SPDX-License-Identifier: Apache-2.0
"""systemd as a container's first process, under the pack with the exceptions that policies/README.md names.

It mounts, so the policies about mounts, namespaces and the kernel leave its container out by name; all others
hold. Needs cgroups of version 2 only, as systemd in a container does: the virtual machines run it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benign.machine import host_root, new_bundle
from tests.benign.test_benign import POLICIES, need, stopped
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, is_pure_v2
from tests.support.container import Container
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

NAME = "rf-systemd"
LEFT_OUT = ("mounts.yaml", "namespaces.yaml", "kernel.yaml")
UNIT = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'systemd-detect-virt --container > /srv/virt; echo done > /srv/done'
"""


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Agent]:
    """An agent with the pack, three files of which leave the container out."""
    directory = tmp_path / "policies"
    directory.mkdir()
    for file in POLICIES.glob("*.yaml"):
        text = file.read_text()
        if file.name in LEFT_OUT:
            text, count = re.subn(
                r"(?m)^( +)containers: all$",
                rf"\1containers: all\n\1except: {{names: [{NAME}]}}\n\1unidentified: wait",
                text,
            )
            assert count == 1, file
        (directory / file.name).write_text(text)
    with running_agent(tmp_path / "agent", policies=[directory], mode="enforce") as agent:
        yield agent


def test_systemd_boots(guard: Agent, tmp_path: Path) -> None:
    """To its target, with a service of ours run, and nothing denied."""
    if not is_pure_v2():
        force.elsewhere("systemd in a container wants cgroup version 2 only")
    need(("systemctl",))
    with host_root(tmp_path / "machine") as root:
        bundle = new_bundle(tmp_path, root, "", ("CAP_SYS_ADMIN",))
        bundle.config["process"]["args"] = [
            "/lib/systemd/systemd",
            "--unit=rf.service",
            "--log-target=console",
        ]
        bundle.config["process"]["env"] += ["container=oci"]
        bundle.config["annotations"]["nerdctl/name"] = NAME
        bundle.config["linux"]["maskedPaths"] = bundle.config["linux"]["readonlyPaths"] = []
        bundle.add_mount("/sys/fs/cgroup", "cgroup", "rw")
        bundle.add_mount("/run/lock", "tmpfs", "mode=755")
        (root / "etc/systemd/system/rf.service").write_text(UNIT)
        name = f"{PREFIX}benign-systemd-{secrets.token_hex(3)}"
        container = Container(name, bundle.write(name))
        before = stopped(guard)
        try:
            container.start()
            done = Path(f"/proc/{container.pid}/root/srv/done")
            wait_for(done.exists, "systemd to run its service", seconds=60)
            assert Path(f"/proc/{container.pid}/root/srv/virt").read_text().strip() == "oci"
        finally:
            container.remove()
    assert stopped(guard) == before, guard.alerts(name)
