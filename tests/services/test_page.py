# SPDX-License-Identifier: Apache-2.0
"""The status page of a real agent in a real browser, with a process whose argument is <script>."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import force
from tests.support.agent import Agent, free_port
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.chromium import chromium
from tests.support.policies import user_namespace

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, int]]:
    """An agent with its page, and the page's port."""
    force.need_root()
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "page.yaml").write_text(user_namespace("page", action="alert", severity="critical"))
    port = free_port()
    flags = {"page-listen": f"127.0.0.1:{port}"}
    made = Agent(
        tmp_path / "agent", policies=[policies], mode="policy", patterns=[f"{PREFIX}page*"], flags=flags
    )
    try:
        made.start()
        yield made, port
    finally:
        made.stop()


@contextlib.contextmanager
def running(cgroup: Cgroup) -> Iterator[None]:
    """A container that runs for as long as the test."""
    with cgroup.popen(["/bin/sleep", "300"]) as sleeper:
        try:
            yield
        finally:
            sleeper.kill()


@pytest.mark.root
def test_the_page_shows_what_the_agent_knows(tmp_path: Path, agent: tuple[Agent, int]) -> None:
    """An incident whose arguments are markup, its detail, the container, the rule, the node."""
    made, port = agent
    with (
        new_cgroup("page") as cgroup,
        running(cgroup),
        chromium(tmp_path) as browser,
        browser.tab(f"http://127.0.0.1:{port}/") as tab,
    ):
        cgroup.run(["unshare", "--user", EVIL], stderr=subprocess.DEVNULL)
        made.wait_alert("page-user-namespace", cgroup.name)
        tab.wait("document.querySelectorAll('.row').length === 1", "the alert")
        assert tab.run("document.getElementById('state').innerText") == "ready"
        assert "1 rule, 1 seen" in tab.run("document.querySelector('.head').innerText")
        tab.run("document.querySelector('.row').click()")
        detail = tab.run("document.getElementById('detail').innerText")
        assert EVIL.split("'")[0] in detail
        assert "T1611" in detail
        assert cgroup.name in detail
        for view, words in (
            ("containers", cgroup.name[:12]),
            ("rules", "page-user-namespace"),
            ("node", platform.release()),
        ):
            tab.run(f"document.querySelector('#tabs [data-focus={view}]').click()")
            assert words in tab.run(f"document.getElementById('view-{view}').innerText"), view
        assert platform.node().lower() in tab.run("document.title")
        assert tab.run("document.querySelectorAll('body img, script').length") == 1
        assert not browser.faults
    assert made.get("/api/status")[0] == 404  # where the metrics are, the page is not
