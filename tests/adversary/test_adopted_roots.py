# SPDX-License-Identifier: Apache-2.0
"""A process chooses its root directory, but not what the next agent takes for its container's own files."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, make_rootfs, new_container
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "busybox")]

LABEL = "root"
#: waits for the host's word, then writes a file of the host
_WRITER = "while :; do [ -e {top}/go ] && echo evil > {top}/file; sleep 0.2; done"
#: what precedes the shell; the directory as the shell sees it; the directory, below that of the host
WAYS = {
    "by its path": ((), "/host", ""),
    "below its root directory": (("chroot", "/host"), "", ""),
    "below that of a mount in it": (("chroot", "/host/deeper"), "", "deeper"),
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An enforcing agent with pins of its own, not started."""
    force.need_root()
    patterns = [f"{PREFIX}{LABEL}*"]
    with pinned_agent(tmp_path / "agent", policies=[PACK], mode="enforce", patterns=patterns) as made:
        yield made


@pytest.fixture
def host() -> Iterator[Path]:
    """A directory of the host that containers are not commonly given, with programs."""
    directory = Path("/run") / f"rfadopted-{secrets.token_hex(4)}"
    busybox = force.need_program("busybox")
    make_rootfs(directory, busybox=busybox)
    make_rootfs(directory / "deeper", busybox=busybox)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("way", WAYS)
def test_a_root_directory_is_not_the_containers_own(
    agent: Agent, host: Path, bundle: Bundle, way: str
) -> None:
    """The container is there when an agent starts; then it writes, and is killed at the open."""
    before, seen_as, below = WAYS[way]
    top = host / below
    (top / "file").write_text("kept")
    bundle.bind(host, "/host")
    bundle.config["process"]["args"] = [*before, "/bin/sh", "-c", _WRITER.format(top=seen_as)]
    agent.start()
    with new_container(bundle, LABEL) as container:
        agent.stop()
        agent.start()
        assert container.cgroup.pids()
        (top / "go").touch()
        wait_for(lambda: not container.cgroup.pids(), "the end of the container")
        wait_for(
            lambda: any(one["rule"]["id"] == "host-file-write" for one in agent.alerts(container.name)),
            "the alert",
        )
    assert "evil" not in (top / "file").read_text()
