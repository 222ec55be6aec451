# SPDX-License-Identifier: Apache-2.0
"""The status page of a real agent in a real browser, with containers named <script>."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import Listen
from ringfence.export.page import PageServer
from tests.support import force
from tests.support.agent import Agent, free_port
from tests.support.cgroups import PREFIX, new_cgroup
from tests.support.policies import user_namespace
from tests.support.receivers import alert
from tests.support.waiting import patience

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Dom(HTMLParser):
    """What the browser made of the page: texts by the id of the nearest element, tags, and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.texts: dict[str, str] = {}
        self.attributes: dict[str, str | None] = {}
        self._path: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "html":
            self.attributes = dict(attrs)
        named = dict(attrs).get("id")
        if tag not in ("meta", "br", "img", "link"):
            self._path.append(named or (self._path[-1] if self._path else tag))

    def handle_endtag(self, tag: str) -> None:
        if self._path:
            self._path.pop()

    def handle_data(self, data: str) -> None:
        if self._path:
            self.texts[self._path[-1]] = self.texts.get(self._path[-1], "") + data + " "


def browser(directory: Path, url: str, *words: str) -> str:
    """What Chromium prints. It runs six seconds of the page's own time, however slow the machine."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        force.missing("browser", "needs the program chromium")
    argv = [
        binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--window-size=1200,1600", f"--user-data-dir={directory}/profile",
        "--virtual-time-budget=6000", *words, url,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=patience(90), check=True)
    return done.stdout


def test_a_hostile_agent_answer_stays_text(tmp_path: Path) -> None:
    """Every text of every document is markup: none becomes an element, and none runs."""

    def evil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: evil(item) for key, item in value.items()}
        if isinstance(value, list):
            return [evil(item) for item in value]
        return EVIL if isinstance(value, str) and not re.match(r"\d{4}-", value) else value

    counts = {"x": 1}
    status = {
        "problems": ["p"], "node": {"kernel": "k", "hierarchy": "h", "blind": ["b"]}, "version": "v",
        "uptime_seconds": 5, "mode": "m", "containers": {"live": 1, "armed_tasks": 1}, "alerts": counts,
        "lost": counts, "process": {"rss_bytes": 1, "cpu_seconds": 1.0},
        "policies": {"policies": 1, "rules": 1, "generation": 1, "mechanisms": counts, "problems": ["q"]},
    }  # fmt: skip
    row = {"id": "i", "name": "n", "image": "i", "runtime": "r", "namespace": "n", "pod": "p", "state": "s"}
    rule = dict.fromkeys(
        ("policy", "rule", "severity", "mode", "asked", "enforced", "mechanism", "why", "file"), "x"
    )
    answers = {
        "status": status, "policies": [{**rule, "line": 3}],
        "top": {"containers": [{**row, "tasks": 1, "counts": {"open": 2}}]},
    }  # fmt: skip

    def answer(op: str, request: Mapping[str, Any]) -> Any:
        return evil(answers[op])

    server = PageServer(Listen("127.0.0.1", 0), answer, lambda kind, most: [evil(alert())])
    server.start()
    try:
        dom = Dom(browser(tmp_path, f"http://{server.address}/", "--dump-dom"))
    finally:
        server.close()
    assert int(dom.attributes.get("data-polls") or 0) >= 1
    assert dom.texts["title" if "title" in dom.texts else "html"].strip().startswith("Ringfence")
    assert dom.tags.count("script") == 1
    assert "img" not in dom.tags
    assert not dom.handlers
    for part in ("problems", "facts", "containers", "alerts", "policies", "blind"):
        assert "<script>" in dom.texts[part], part


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


@pytest.mark.root
def test_the_page_shows_what_the_agent_knows(tmp_path: Path, agent: tuple[Agent, int]) -> None:
    """Container, alert whose arguments are markup, time line, policy, state; and a screenshot."""
    made, port = agent
    with new_cgroup("page") as cgroup, cgroup.popen(["/bin/sleep", "300"]) as sleeper:
        cgroup.run(["unshare", "--user", EVIL], stderr=subprocess.DEVNULL)
        made.wait_alert("page-user-namespace", cgroup.name)
        dom = Dom(browser(tmp_path, f"http://127.0.0.1:{port}/", "--dump-dom"))
        shot = tmp_path / "page.png"
        browser(tmp_path, f"http://127.0.0.1:{port}/", f"--screenshot={shot}")
        sleeper.kill()
    assert dom.texts["state"].strip() == "ready"
    assert cgroup.name[:12] in dom.texts["containers"]
    assert "page-user-namespace" in dom.texts["alerts"]
    assert "T1611" in dom.texts["alerts"]
    assert "<script>" in dom.texts["alerts"]
    assert "img" not in dom.tags
    assert made.get("/api/status")[0] == 404  # where the metrics are, the page is not
    assert "circle" in dom.tags
    assert "page-user-namespace" in dom.texts["policies"]
    assert dom.tags.count("script") == 1
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert shot.stat().st_size > 10_000
