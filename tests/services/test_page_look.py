# SPDX-License-Identifier: Apache-2.0
"""How the status page looks in Chromium: with long commands, many alerts, hostile names, in every width."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import layout
from tests.support.chromium import Browser, Tab, chromium
from tests.support.force import elsewhere
from tests.support.page_scene import CI, NOW, Attempt, Scene, page_alert, serving

ROOT = Path(__file__).resolve().parents[2]
AXE = "axe-core@4.14.1"
CACHE = ROOT / "build/axe"
VIEWS = ("incidents", "containers", "rules", "node")
WIDTHS = (420, 700, 1099, 1100, 1280, 2560)
FIXED = f"Date.now = () => {int(NOW.timestamp() * 1000)};"
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\x1b]0;owned\x07\x1b[31mred\x1b[0m \x00\x08",
    "\u202egnp.exe\u202c \u2066isolated\u2069 \u200bzero",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 (latin) \u05d0\u05d1",
    "</script></style><b>&lt;&amp;",
    "a" * 5000,
    "\ud800 lone",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests; no page of it may raise, or violate its security policy."""
    with chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made
        assert not made.faults


def ready(tab: Tab) -> Tab:
    """Wait until the first answers are shown."""
    tab.wait("Number(document.documentElement.dataset.polls) >= 1", "the first answers")
    return tab


def open_detail(tab: Tab, number: int = 0) -> None:
    """Click on a row; incidents are opened as far as it needs."""
    while tab.run("document.querySelectorAll('.row').length") <= number:
        tab.run("document.querySelector('.head[aria-expanded=false]').click()")
    tab.run(f"document.querySelectorAll('.row')[{number}].click()")
    tab.wait("!document.getElementById('detail').hidden", "the detail")


def crowded() -> Scene:
    """200 alerts of 40 workloads, and commands of thousands of characters."""
    scene = Scene()
    commands = (
        ("python3", "-c", "import os; " + "os.system('id'); " * 200),
        ("/opt/" + "deep/" * 60 + "tool", "--flag=" + "x" * 900),
        ("java", *(f"-Dorg.example.configuration.property{n}=value{n}" for n in range(120))),
        ("sh", "-c", "b" * 4000),
    )
    for number in range(200 - len(scene.alerts)):
        pod = f"very-long-name-of-a-deployment-{number % 40}-5b7c9d8f6c-k8z2q"
        container = {**CI, "id": f"{number % 40:x}" * 32, "pod": pod, "namespace": f"team-{number % 7}"}
        attempt = Attempt(
            300 + 17 * number, "mount-call", "killed", "kill", commands[number % 4], {"fstype": "ext4"}
        )
        scene.alerts.append(page_alert(attempt, 1000 + number, container, ("/usr/bin/dash",) * 6))
    row = scene.containers[0]
    scene.containers += [
        {
            **row,
            "id": f"{n:x}" * 32,
            "pod": f"pod-{n}",
            "image": f"registry.example:5000/team/{'part/' * 12}image:{n}",
        }
        for n in range(60)
    ]
    scene.status["problems"] = ["the ring of alerts is nearly full; " * 3, "receiver-" + "r" * 300]
    return scene


def hostile() -> Scene:
    """Every text of every answer, in turn, is one that a container would choose to do harm."""
    number = 0

    def evil(value: Any, key: str = "") -> Any:
        nonlocal number
        if isinstance(value, dict):
            return {name: evil(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [evil(item, key) for item in value]
        if not isinstance(value, str) or key in ("time", "outcome"):
            return value
        number += 1
        return HOSTILE[number % len(HOSTILE)]

    scene = Scene()
    scene.policies = scene.policies[::4]
    for name in ("alerts", "status", "containers", "policies"):
        setattr(scene, name, evil(getattr(scene, name)))
    for n, alert in enumerate(scene.alerts):
        alert["id"] += str(n)
    return scene


@pytest.mark.parametrize("view", VIEWS)
def test_no_text_becomes_markup(browser: Browser, view: str) -> None:
    """Whatever an answer holds is shown as text, and nothing unprintable is shown at all."""
    with serving(hostile()) as url, browser.tab(f"{url}?view={view}") as tab:
        ready(tab)
        if view == "incidents":
            open_detail(tab)
        assert tab.run("document.querySelectorAll('script, style').length") == 2
        assert tab.run("document.querySelectorAll('body img, body b:not(.tile b), iframe').length") == 0
        assert "owned" not in tab.run("document.title").split("<")[0]
        attributes = "[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes])"
        assert tab.run(f"{attributes}.filter((one) => one.name.startsWith('on')).length") == 0
        assert "<script>" in tab.run("document.body.innerText")
        assert layout.hidden_characters(tab) == []
        assert layout.beyond_the_edge(tab) == []
    assert not browser.faults


@pytest.mark.parametrize("make", [Scene, crowded, hostile], ids=["a night", "crowded", "hostile"])
def test_it_fits_every_width(browser: Browser, make: Any) -> None:
    """Nothing is wider than the window, and no word that fits on a line is broken in two."""
    with serving(make()) as url, browser.tab(url) as tab:
        ready(tab)
        for view in VIEWS:
            tab.run(f"document.querySelector('#tabs [data-focus={view}]').click()")
            assert tab.run(f"document.getElementById('view-{view}').checkVisibility()")
            fits(tab, view)
        tab.run("document.querySelector('#tabs [data-focus=incidents]').click()")
        for number in range(2):
            open_detail(tab, number)
            tab.run("document.querySelector('details').open = true")
            fits(tab, f"detail {number}")


def fits(tab: Tab, view: str) -> None:
    """What is shown fits windows of every width."""
    for width in WIDTHS:
        tab.size(width, 900)
        assert (view, width, layout.beyond_the_edge(tab)) == (view, width, [])
        assert (view, width, layout.broken_words(tab)) == (view, width, [])


def test_the_check_of_words_finds_a_broken_one(browser: Browser) -> None:
    """Of two boxes of the same width: one breaks a word that would fit, one a word that cannot fit."""
    html = (
        "<p style='width:200px;font:16px monospace;word-break:break-all'>aaaa bbbb cccc eeeeeeee ffff</p>"
        f"<p style='width:200px;font:16px monospace;overflow-wrap:anywhere'>{'g' * 60}</p>"
    )
    with browser.tab("data:text/html,<p>x</p>") as tab:
        tab.run(f"document.body.innerHTML = {json.dumps(html)}")
        [found] = layout.broken_words(tab)
        assert found.startswith("eeeeeeee")
        assert layout.beyond_the_edge(tab) == []
        tab.run("document.body.innerHTML = '<div style=\"width:5000px\">x</div>'")
        assert layout.beyond_the_edge(tab)[0] == "the page is 5008 px wide"


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core; fetched once."""
    npm = shutil.which("npm")
    found = CACHE / "node_modules/axe-core/axe.min.js"
    if not found.exists():
        if npm is None:
            elsewhere("needs npm, for axe-core")
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text("{}")
        argv = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", AXE]
        done = subprocess.run(argv, cwd=CACHE, capture_output=True, text=True, check=False)
        if done.returncode:
            elsewhere(f"axe-core cannot be had: {done.stderr.strip()[-200:]}")
    return found.read_text()


RUN_AXE = """axe.run(document, {resultTypes: ['violations', 'incomplete']}).then((found) => JSON.stringify([
  found.violations.map((one) => [one.id, one.nodes.slice(0, 3).map((n) => n.html + n.failureSummary)]),
  found.incomplete.filter((one) => one.id === 'color-contrast').flatMap((one) =>
    one.nodes.map((n) => n.html)),
  found.passes.length]))"""


@pytest.mark.parametrize(("width", "dark"), [(420, False), (1280, True)], ids=["narrow, light", "wide, dark"])
def test_axe_finds_no_violation(browser: Browser, axe: str, width: int, dark: bool) -> None:
    """Contrast, names, roles, landmarks, headings: WCAG 2.2 AA and axe's best practices, in every view."""
    scene = Scene()
    scene.status["problems"] = ["a receiver does not answer"]
    scene.policies = scene.policies[::5]
    with serving(scene) as url, browser.tab(url, width, 900, dark=dark) as tab:
        ready(tab)
        tab.run(axe + "; 0")
        for view in (*VIEWS, "detail"):
            shown = "incidents" if view == "detail" else view
            tab.run(f"document.querySelector('#tabs [data-focus={shown}]').click()")
            if view == "detail":
                open_detail(tab, 2)
            violations, unsure, passes = json.loads(tab.run(RUN_AXE))
            assert passes > 10
            assert (view, violations) == (view, [])
            assert (view, unsure) == (view, [])
            assert layout.without_name(tab) == []


def test_the_pictures_of_the_documentation(browser: Browser, tmp_path: Path) -> None:
    """`make screenshots` writes them to docs/reference; otherwise they are made, and thrown away."""
    target = ROOT / "docs/reference" if os.environ.get("RINGFENCE_SCREENSHOTS") else tmp_path
    with serving(Scene()) as url:
        for name, width, height, dark in (
            ("light", 1280, 760, False),
            ("dark", 1100, 560, True),
            ("narrow", 420, 640, False),
        ):
            with browser.tab(url, width, height, dark=dark, before=FIXED) as tab:
                ready(tab)
                if name == "light":
                    rows = "[...document.querySelectorAll('.row')]"
                    tab.run(f"{rows}.find((one) => one.innerText.includes('mounts')).click()")
                if name == "narrow":
                    tab.run("document.querySelector('.incident').scrollIntoView()")
                if name == "dark":
                    tab.run("document.querySelector('#tabs [data-focus=rules]').click()")
                tab.screenshot(target / f"status-page-{name}.png")
    pictures = sorted(target.glob("status-page-*.png"))
    assert [path.read_bytes()[:8] for path in pictures] == [b"\x89PNG\r\n\x1a\n"] * 3
    assert sum(path.stat().st_size for path in pictures) < 300_000
