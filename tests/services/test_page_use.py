# SPDX-License-Identifier: Apache-2.0
"""What a person does with the status page: read, filter, share, walk by keyboard, copy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.chromium import Browser, Tab, chromium
from tests.support.page_scene import CI, NOW, WEB, Attempt, Scene, page_alert, serving

FIXED = f"Date.now = () => {int(NOW.timestamp() * 1000)};"
# The page asks every two seconds; here, more often.
HASTE = "const later = setTimeout; setTimeout = (work, time) => later(work, time === 2000 ? 150 : time);"
FIXED += HASTE
POLLS = "Number(document.documentElement.dataset.polls)"
HEADS = "[...document.querySelectorAll('.incident')].map((one) => one.querySelector('.head').innerText)"
GREEN, RED = "#2e9e4f", "#d32f2f"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests; no page of it may raise, or violate its security policy."""
    with chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made
        assert not made.faults


@pytest.fixture
def scene() -> Scene:
    """A night with three incidents."""
    return Scene()


@pytest.fixture
def url(scene: Scene) -> Iterator[str]:
    """Where they are shown."""
    with serving(scene) as address:
        yield address


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[Tab]:
    """The page, at NOW."""
    with browser.tab(url, before=FIXED) as made:
        yield ready(made)


def ready(tab: Tab) -> Tab:
    """Wait until the first answers are shown."""
    tab.wait(f"{POLLS} >= 1", "the first answers")
    return tab


def refreshed(tab: Tab, times: int = 1) -> None:
    """Wait until the page has asked again, for the whole answer."""
    before = tab.run(POLLS)
    tab.wait(f"{POLLS} >= {before + times + 1}", "the next answers")


def text(tab: Tab, selector: str) -> str:
    """What is shown there."""
    return str(tab.run(f"document.querySelector({json.dumps(selector)}).innerText"))


def favicon(tab: Tab) -> str:
    """The picture of the browser's tab."""
    return unquote(tab.run("document.querySelector('link[rel=icon]').href"))


def late(number: int = 7000, rule: str = "bpf-call") -> Any:
    """An alert that comes while the page is open, of the first incident."""
    return page_alert(Attempt(4, rule, "killed", "kill", ("bpftool", "map")), number, CI)


# -- reading -----------------------------------------------------------------------------------------


def test_alerts_are_grouped_by_workload_and_ten_minutes(tab: Tab) -> None:
    """With how many rules were stopped, and how many were only seen."""
    first, second, third = tab.run(HEADS)
    assert "team-b/ci-runner-0" in first
    assert "14 rules, 12 stopped, 2 seen, 1 finding" in first
    assert "15 alerts" in first
    assert "03:09:58 to 03:12:44" in first
    assert "shop/Deployment/web" in second
    assert "1 rule, 1 stopped" in second
    assert "6 alerts" in second
    assert "team-a/report-5b7c9d" in third


def test_ten_minutes_after_its_first_alert_an_incident_is_over(browser: Browser) -> None:
    """The eleventh minute is another incident, of the same workload; another pod of it is the same one."""
    seconds = (900.0, 600.0, 301.0, 299.0, 10.0)
    found = [
        page_alert(Attempt(ago, "bpf-call", "killed", "kill", ("x",)), n, WEB)
        for n, ago in enumerate(seconds)
    ]
    found[1]["container"] = {**WEB, "pod": "web-of-another-name", "id": "0" * 64}
    scene = Scene(found[::-1])
    with serving(scene) as url, browser.tab(url, before=FIXED) as tab:
        assert [head.count("3 alerts") for head in ready(tab).run(HEADS)] == [0, 1]


def test_the_title_names_node_cluster_and_trouble(tab: Tab, scene: Scene) -> None:
    """And the head of the page does, too."""
    assert tab.run("document.title") == "1 not stopped: node-a1 (prod-eu) · Ringfence"
    assert text(tab, "h1") == "node-a1"
    assert "prod-eu" in text(tab, ".who")
    scene.status["node"]["cluster"] = ""
    scene.alerts = []
    refreshed(tab)
    assert tab.run("document.title") == "node-a1 · Ringfence"


def test_the_favicon_turns_red(tab: Tab, scene: Scene) -> None:
    """Red if something critical may have taken effect in the last hour; not by what was stopped."""
    assert RED in favicon(tab)
    scene.alerts = [one for one in scene.alerts if one["outcome"] != "seen"]
    refreshed(tab)
    assert RED not in favicon(tab)
    scene.alerts = []
    refreshed(tab)
    assert GREEN in favicon(tab)
    scene.status["problems"] = ["a receiver does not answer"]
    refreshed(tab)
    assert RED in favicon(tab)
    assert "a receiver does not answer" in text(tab, "#problems")
    assert text(tab, "#state") == "not well"


def test_an_agent_that_does_not_answer_is_seen(browser: Browser, scene: Scene) -> None:
    """What was known stays, with the time since when it is old; it heals by itself."""
    server = serving(scene)
    url = server.__enter__()
    with browser.tab(url, before=FIXED) as tab:
        ready(tab)
        broken, scene.status = scene.status, {"node": {}}
        tab.run("window.realFetch = fetch; fetch = () => Promise.reject(new Error('gone')); 0")
        tab.wait("document.getElementById('state').innerText === 'no answer'", "the loss")
        assert RED in favicon(tab)
        assert tab.run("document.title").startswith("No answer: node-a1")
        assert "has not answered since 03:14:20" in text(tab, "#problems")
        assert len(tab.run(HEADS)) == 3
        scene.status = broken
        tab.run("fetch = window.realFetch; 0")
        tab.wait("document.getElementById('state').innerText === 'ready'", "the return")
    server.__exit__(None, None, None)


def test_times_have_a_zone(tab: Tab, url: str, browser: Browser) -> None:
    """The browser's, or UTC; the choice is in the address."""
    assert text(tab, "#zone") == "Europe/Berlin (UTC+01:00)"
    assert "03:09:58" in tab.run(HEADS)[0]
    tab.run("document.getElementById('zone').click()")
    assert text(tab, "#zone") == "UTC"
    assert "02:09:58" in tab.run(HEADS)[0]
    with browser.tab(url + tab.run("location.search"), before=FIXED) as other:
        assert "02:09:58" in ready(other).run(HEADS)[0]


def test_clocks_that_differ_are_noticed(browser: Browser, url: str) -> None:
    """Times are the node's, so `the last hour` is right with a wrong clock on the desk, too."""
    slow = f"Date.now = () => {int(NOW.timestamp() * 1000) - 7_200_000};"
    with browser.tab(url, before=slow) as tab:
        ready(tab)
        tab.wait("document.getElementById('problems').innerText.includes('differ by 2 h')", "the warning")
        assert tab.run("document.querySelectorAll('#timeline rect').length") > 5


def test_blind_rules_are_listed_where_rules_are(tab: Tab) -> None:
    """First in the table, each with its reason; on the tab; and in what the node does not see."""
    assert "9 blind" in text(tab, "#tabs [data-focus=rules]")
    tab.run("document.querySelector('#tabs [data-focus=rules]').click()")
    rows = tab.run("[...document.querySelectorAll('#rules tbody tr')].map((row) => row.innerText)")
    assert ["blind" in row for row in rows[:10]] == [True] * 9 + [False]
    assert any("log-symlink" in row and "only BPF-LSM sees it" in row for row in rows[:9])
    tab.run("document.querySelector('#tabs [data-focus=node]').click()")
    assert "rule log-symlink: only BPF-LSM sees it" in text(tab, "#blind")
    assert "rule foreign-file on file.map, file.receive" in text(tab, "#blind")


# -- the detail --------------------------------------------------------------------------------------


def choose(tab: Tab, words: str) -> None:
    """Open the detail of the row with these words."""
    row = f"[...document.querySelectorAll('.row')].find((one) => one.innerText.includes({json.dumps(words)}))"
    tab.run(f"{row}.click()")


def test_the_detail_has_the_story(tab: Tab) -> None:
    """Tree, command, what it means, where, what to do, the runbook, the exception, the whole record."""
    choose(tab, "A container mounts a filesystem")
    shown = text(tab, "#detail")
    assert "killed; the call may have taken effect: look for a mount" in shown
    assert tab.run("[...document.querySelectorAll('.tree > li')].map((one) => one.firstChild.innerText)") == [
        "(runtime exec)", "python3.11", "dash", "mount"]  # fmt: skip
    for words in (
        "mount -t ext4 /dev/vda1 /mnt", "kubectl -n team-b describe pod ci-runner-0", "prod-eu", "T1611",
        "add to rule mount-call", "docker.io/library/debian:12", "2026-12-02 03:10:16 Europe/Berlin",
    ):  # fmt: skip
        assert words in shown, words
    links = tab.run("[...document.querySelectorAll('#detail a')].map((one) => one.href)")
    assert links == [
        "https://github.com/ringfence/ringfence/blob/main/docs/runbooks/escape-denied.md",
        "https://attack.mitre.org/techniques/T1611",
    ]


def test_commands_are_quoted_for_a_shell(browser: Browser) -> None:
    """Names of containers are hostile: pasted into a shell, each stays one word, and none is an option."""
    pod, name = "x'; touch /tmp/owned; '$(id)`id`", "-rf"
    container = {**CI, "pod": pod, "name": name, "namespace": "a b"}
    scene = Scene(
        [page_alert(Attempt(5, "bpf-call", "killed", "kill", ("echo", "a'b", "$(id)", "")), 1, container)]
    )
    with serving(scene) as url, browser.tab(url, before=FIXED) as tab:
        ready(tab)
        choose(tab, "bpf")
        boxes = tab.run("[...document.querySelectorAll('#detail .copied pre')].map((one) => one.textContent)")
    assert shlex.split(boxes[0]) == ["echo", "a'b", "$(id)", ""]
    commands = [shlex.split(box) for box in boxes[1:5]]
    assert commands[0] == ["kubectl", "-n", "a b", "describe", "pod", pod]
    assert commands[1] == ["kubectl", "-n", "a b", "logs", pod, "--since=30m"]


def test_a_click_copies(browser: Browser, tab: Tab, url: str) -> None:
    """The command, as it is shown."""
    choose(tab, "A container mounts a filesystem")
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    button = "document.querySelectorAll('#detail .copied')[1].lastElementChild"
    tab.run(f"{button}.click()")
    tab.wait(f"{button}.innerText === 'Copied'", "the copy")
    assert tab.run("navigator.clipboard.readText()") == "kubectl -n team-b describe pod ci-runner-0"


def test_the_times_of_a_rule_lead_to_its_alerts(tab: Tab) -> None:
    """Six alerts of one rule are one row; each can be chosen."""
    tab.run("document.querySelectorAll('.head')[1].click()")
    choose(tab, "6 \N{MULTIPLICATION SIGN}")
    assert "6 alerts of this rule in this incident" in text(tab, "#detail")
    tab.run("[...document.querySelectorAll('.times button')].pop().click()")
    assert "2026-12-02 02:39:20" in text(tab, "#detail")


# -- filters and addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "incidents", "alerts"),
    [
        ("?namespace=shop", 1, 6),
        ("?severity=critical", 1, 7),
        ("?ending=seen", 2, 3),
        ("?ending=finding", 1, 1),
        ("?q=nsenter", 1, 1),
        ("?q=T1552.005", 2, 7),
        ("?q=team-b/ci-runner-0/build+tcpdump", 1, 1),
        ("?q=nothing+of+this&namespace=shop", 0, 0),
        ("?view=nonsense&severity=nonsense", 3, 22),
    ],
)
def test_an_address_filters(browser: Browser, url: str, query: str, incidents: int, alerts: int) -> None:
    """What is shared is what is seen."""
    with browser.tab(url + query, before=FIXED) as tab:
        ready(tab)
        assert len(tab.run(HEADS)) == incidents
        count = text(tab, "#count")
        assert count.startswith(f"{incidents} incident")
        assert f", {alerts}" in count
        if not incidents:
            assert "No alert matches the filters." in text(tab, "#incidents")


def test_filters_are_in_the_address(tab: Tab, browser: Browser, url: str) -> None:
    """Typed, chosen and pressed; another browser with this address shows the same; clearing removes them."""
    tab.run("document.getElementById('q').focus()")
    tab.type("curl 169.254")
    tab.run(
        "const one = document.getElementById('namespace'); one.value = 'team-b';"
        "one.dispatchEvent(new Event('change'))"
    )
    tab.run("document.querySelector('.tile[data-focus=stopped]').click()")
    heads, search = tab.run(HEADS), tab.run("location.search")
    assert search == "?q=curl+169.254&namespace=team-b&ending=stopped"
    assert len(heads) == 1
    with browser.tab(url + search, before=FIXED) as other:
        assert ready(other).run(HEADS) == heads
        assert other.run("document.getElementById('q').value") == "curl 169.254"
        assert other.run("document.querySelector('.tile[data-focus=stopped]').ariaPressed") == "true"
    tab.run("document.getElementById('clear').click()")
    assert tab.run("location.search") == ""
    assert len(tab.run(HEADS)) == 3


def test_an_alert_can_be_shared(tab: Tab, browser: Browser, url: str, scene: Scene) -> None:
    """Its address opens its detail, and says so if the agent remembers it no longer. Back closes it."""
    choose(tab, "A container mounts a filesystem")
    search = tab.run("location.search")
    with browser.tab(url + search, before=FIXED) as other:
        ready(other)
        assert "A container mounts a filesystem" in text(other, "#detail h2")
        scene.alerts = [one for one in scene.alerts if one["rule"]["id"] != "mount-call"]
        refreshed(other)
        assert "remembers this alert no longer" in text(other, "#detail")
    tab.run("history.back()")
    tab.wait("document.getElementById('detail').hidden", "the list")


def test_a_container_leads_to_its_alerts(tab: Tab) -> None:
    """By its number of verdicts."""
    tab.run("document.querySelector('#tabs [data-focus=containers]').click()")
    tab.run("document.querySelector('#containers .link').click()")
    assert [head.splitlines()[0] for head in tab.run(HEADS)] == ["team-b/ci-runner-0 critical"]


# -- the refresh leaves the person alone -------------------------------------------------------------


def test_a_selection_survives_the_refresh(tab: Tab, scene: Scene) -> None:
    """Of text in the detail, while alerts arrive; so do the open incident, the focus and the scroll."""
    tab.run("document.querySelectorAll('.head')[1].click()")
    choose(tab, "A container mounts a filesystem")
    tab.run("getSelection().selectAllChildren([...document.querySelectorAll('#detail pre')][1])")
    tab.run("document.querySelectorAll('.row')[3].focus(); scrollTo(0, 240)")
    scroll = tab.run("scrollY")
    chosen = "kubectl -n team-b describe pod ci-runner-0"
    assert tab.run("getSelection().toString()") == chosen
    for number in range(2):
        scene.alerts.insert(0, late(7000 + number))
        refreshed(tab)
        assert f"{16 + number} alerts" in tab.run(HEADS)[0]
        assert tab.run("getSelection().toString()") == chosen
        assert tab.run("scrollY") == scroll
        assert tab.run("document.activeElement.className") == "row"
        assert tab.run("[...document.querySelectorAll('.head')].map((one) => one.ariaExpanded)") == [
            "true",
            "true",
            "false",
        ]
    assert "A container mounts a filesystem" in text(tab, "#detail h2")


def test_a_selection_over_rows_survives_a_new_incident(tab: Tab, scene: Scene) -> None:
    """Text of an incident that did not change is not touched by one above it."""
    tab.run("getSelection().selectAllChildren(document.querySelectorAll('.incident')[1])")
    before = tab.run("getSelection().toString()")
    assert "Deployment/web" in before
    other = {**WEB, "namespace": "new", "owner": "Deployment/new"}
    scene.alerts.insert(0, page_alert(Attempt(3, "bpf-call", "killed", "kill", ("bpftool",)), 8000, other))
    refreshed(tab)
    assert "new/Deployment/new" in tab.run(HEADS)[0]
    assert tab.run("getSelection().toString()") == before


def test_the_first_filter_keeps_what_is_typed(tab: Tab) -> None:
    """A refresh in the middle of a word does not take the focus or the text."""
    tab.run("document.getElementById('q').focus()")
    tab.type("team")
    refreshed(tab)
    tab.type("-b")
    assert tab.run("document.activeElement.value") == "team-b"


# -- the keyboard ------------------------------------------------------------------------------------

ACTIVE = (
    "(document.activeElement.dataset.focus || document.activeElement.id || document.activeElement.className)"
)
OUTLINED = """(({outlineStyle, outlineWidth}) => outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)(
  getComputedStyle(document.activeElement))"""


def test_everything_is_reached_by_keyboard(tab: Tab) -> None:
    """In the order of the page, each with an outline; the first stop skips to the alerts."""
    tab.run("for (const one of [...document.querySelectorAll('.head')].slice(0, 1)) one.click()")
    wanted = tab.run(
        "[...document.querySelectorAll('a, button, input, select')].filter((one) => one.checkVisibility())"
        ".map((one) => one.dataset.focus || one.id || one.className)"
    )
    walked = []
    for _ in wanted:
        tab.key("Tab")
        walked.append(tab.run(ACTIVE))
        assert tab.run(OUTLINED), walked[-1]
    assert walked == wanted
    assert walked[0] == "skip"
    assert {"zone", "incidents", "rules", "q", "namespace", "severity", "link", "stopped", "head"} <= set(
        walked
    )


def test_an_alert_is_opened_and_closed_by_keyboard(tab: Tab) -> None:
    """Arrows walk over incidents and rules, Enter opens, Escape goes back to where it was."""
    tab.run("document.querySelector('.head').focus()")
    for key, expected in (
        ("ArrowDown", "row"),
        ("ArrowDown", "row"),
        ("ArrowUp", "row"),
        ("Home", "head"),
        ("ArrowLeft", "head"),
    ):
        tab.key(key)
        assert tab.run("document.activeElement.className") == expected, key
    assert tab.run("document.activeElement.ariaExpanded") == "false"
    tab.key("ArrowRight")
    assert tab.run("document.activeElement.ariaExpanded") == "true"
    tab.key("ArrowDown")
    row = tab.run("document.activeElement.dataset.row")
    tab.key("Enter")
    assert tab.run("document.activeElement.id") == "detail-title"
    assert tab.run("location.search") == f"?alert={row}"
    tab.key("Tab")
    assert tab.run(ACTIVE) == "close"
    tab.key("Escape")
    assert tab.run("document.getElementById('detail').hidden")
    assert tab.run("document.activeElement.dataset.row") == row
    tab.key("End")
    assert tab.run("document.activeElement.className") == "head"


def test_a_view_and_a_filter_by_keyboard(tab: Tab) -> None:
    """A tab is a link, a tile is a switch."""
    tab.run("document.querySelector('.tile[data-focus=seen]').focus()")
    tab.key(" ")
    assert tab.run("location.search") == "?ending=seen"
    assert tab.run(ACTIVE) == "seen"
    tab.run("document.querySelector('#tabs [data-focus=rules]').focus()")
    tab.key("Enter")
    assert tab.run("document.getElementById('rules').checkVisibility()")
    assert tab.run(ACTIVE) == "rules"
    assert tab.run("document.activeElement.ariaCurrent") == "page"
