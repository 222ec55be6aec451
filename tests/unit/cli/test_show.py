# SPDX-License-Identifier: Apache-2.0
"""The format of records, rates, trees and tables."""

from __future__ import annotations

import io
from datetime import datetime, timedelta

import pytest

from ringfence.cli import events, output
from ringfence.cli.events import compact
from ringfence.cli.top import rates
from ringfence.cli.tree import lines
from ringfence.response.alert import Outcome


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_colour_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and TERM=dumb are respected."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.colour("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.colour("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.colour("x", "red", Terminal()) == "x"
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert output.colour("x", "red", Terminal()) == "x"


def test_an_alert_is_one_line() -> None:
    """Time, severity, outcome, container, process, event, rule, details."""
    line = compact(
        {
            "time": "2026-11-24T00:00:00.123456Z",
            "event": "file.open",
            "kind": "alert",
            "severity": "high",
            "outcome": "denied",
            "rule": {"id": "core-pattern"},
            "container": {"id": "a" * 64, "name": "web"},
            "process": {"pid": 7, "comm": "sh"},
            "details": {"path": "sys/kernel/core_pattern", "open": "O_WRONLY"},
        }
    )
    assert ":00.123 high" in line
    for part in ("denied", "web", "sh[7]", "file.open core-pattern", "path=sys/kernel/core_pattern"):
        assert part in line


def test_an_alert_names_pod_command_and_title() -> None:
    """What the person on call asks first; pointers are not shown."""
    record = {
        "time": "2026-11-24T00:00:00.123456Z",
        "event": "mount",
        "kind": "alert",
        "severity": "high",
        "outcome": "killed",
        "rule": {"id": "mount-call", "title": "A container mounts a filesystem"},
        "container": {"id": "a" * 64, "namespace": "team-b", "pod": "ci-runner-0", "name": "build"},
        "process": {"pid": 2573, "comm": "mount", "args": ["mount", "-t", "ext4", "/dev/null", "/mnt"]},
        "details": {"call": "mount", "args": ["0x562ce9104260", "0x0"]},
        "tried": "mount a filesystem ext4",
    }
    words = (
        "killed team-b/ci-runner-0/build mount -t ext4 /dev/null /mnt[2573] mount mount-call"
        " A container mounts a filesystem: mount a filesystem ext4"
    )
    assert " ".join(compact(record).partition(" high ")[2].split()) == words
    activity = {**record, "kind": "activity", "rule": {}, "tried": ""}
    assert compact(activity).endswith("/mnt[2573] mount call=mount")


def test_a_finding_is_shown_with_its_details() -> None:
    """Its title is what was tried."""
    title = "A container matched many different rules"
    record = {"event": "finding", "rule": {"id": "sweep", "title": title}, "tried": title,
              "details": {"tried": 6, "stopped": 6}}  # fmt: skip
    assert compact(record).endswith(f"finding sweep {title} tried=6 stopped=6")


def test_control_characters_in_a_record_are_escaped() -> None:
    """A second line of defence, should a record contain unescaped text."""
    line = compact({"event": "x\x1b[2J", "process": {"comm": "\r\n"}, "details": {"a": ["\x9b"]}})
    assert line.isprintable()
    assert compact({"container": {"id": "\x1b[2J"}, "outcome": "\x1b[31m"}).isprintable()


def test_an_empty_record_is_not_an_error() -> None:
    """Records of another version may lack fields."""
    assert compact({}).isprintable()
    assert "3 records lost" in compact({"event": "dropped", "count": 3})


def test_rates_are_per_second_and_never_negative() -> None:
    """A reused slot starts at 0, which must not give a negative rate."""
    before = {"time": 10.0, "containers": [{"cgroup": 1, "counts": {"open": 100, "exec": 50}}]}
    now = {
        "time": 12.0,
        "containers": [
            {"cgroup": 1, "id": "a", "tasks": 1, "counts": {"open": 300, "exec": 10}},
            {"cgroup": 2, "id": "b", "tasks": 1, "counts": {"open": 20}},
        ],
    }
    first, second = rates(before, now)
    assert (first["rates"]["OPEN"], first["rates"]["EXEC"]) == (100, 0)
    assert second["rates"]["OPEN"] == 10


def process(pid: int, ppid: int, *args: str) -> dict[str, object]:
    """One process of a tree."""
    return {"pid": pid, "ppid": ppid, "comm": "c", "exe": "", "args": list(args), "uid": 0}


def test_children_are_listed_below_their_parents() -> None:
    """A process with a parent outside is a root; a cycle of reused pids is shown once."""
    container = {
        "id": "web",
        "processes": [
            process(1, 999, "init"),
            process(3, 2, "leaf"),
            process(4, 1, "last"),
            process(2, 1, "mid"),
            process(9, 9, "odd"),
        ],
        "more": 5,
    }
    assert list(lines(container)) == [
        "web",
        "      PID USER   START    COMMAND",
        "        1 root   -        init",
        "        2 root   -        \u251c\u2500 mid",
        "        3 root   -        \u2502  \u2514\u2500 leaf",
        "        4 root   -        \u2514\u2500 last",
        "        9 root   -        odd",
        "  ... and 5 more",
    ]


def test_a_tree_has_users_and_start_times() -> None:
    """Today's by the clock, older ones by their day."""
    now = datetime.now().astimezone()
    today = {**process(1, 0, "a"), "uid": 33, "started": now.isoformat()}
    older = {**process(2, 0, "b"), "started": (now - timedelta(days=3)).isoformat()}
    _, _, first, second = lines({"id": "web", "processes": [today, older]})
    assert first == f"        1 33     {now:%H:%M:%S} a"
    assert second == f"        2 root   {now - timedelta(days=3):%b %d}   b"


def test_containers_with_similar_names_are_distinguished() -> None:
    """Only an id of 64 digits is shortened: two cgroups may begin with the same letters."""
    heads = [
        next(lines({"id": name, "processes": []})) for name in ("rftest-eco-x1", "rftest-eco-x2", "a" * 64)
    ]
    assert heads == ["rftest-eco-x1", "rftest-eco-x2", "a" * 12]
    pod = {"id": "a" * 64, "name": "web", "namespace": "shop", "pod": "web-0", "processes": []}
    assert next(lines(pod)) == "shop/web-0/web"


def test_a_very_deep_tree_is_shown() -> None:
    """The tree of a fork bomb does not exceed the recursion limit, and its names stay visible."""
    chain = [process(pid, pid - 1, "x") for pid in range(2, 3000)]
    shown = list(lines({"id": "bomb", "processes": chain}))
    assert len(shown) == 3000
    assert shown[-1].endswith("x")
    assert max(map(len, shown)) < 100


def test_each_outcome_has_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill that failed is the worst of all, and what audit mode let through is no success."""
    assert set(events._COLOURS) == {outcome.value for outcome in Outcome}
    monkeypatch.setattr(output, "shows_colour", lambda stream: True)
    red, green = (f"\x1b[{code}m" for code in ("31", "32"))
    assert f"{red}kill-failed" in compact({"outcome": "kill-failed"})
    for outcome in Outcome:
        assert (green in compact({"outcome": outcome.value})) == (outcome in (Outcome.DENIED, Outcome.KILLED))


def test_lists_of_an_event_are_short() -> None:
    """Unless everything is asked for; an event is cut to the terminal, an alert is not."""
    record = {"event": "container.start", "details": {"capabilities": [f"CAP_{n}" for n in range(14)]}}
    assert "capabilities=CAP_0 CAP_1 CAP_2 +11" in compact(record)
    assert "CAP_13" in compact(record, wide=True)
    assert len(compact(record, 80)) == 80
    assert len(compact({**record, "severity": "high"}, 80)) > 80


@pytest.mark.parametrize("limit", [200, 100, 80, 40, 20])
def test_a_table_fits_the_terminal(limit: int) -> None:
    """Long texts are cut, numbers are not; on a very narrow one the last columns are left out."""
    rows = [["n" * 40, "1234567", "d" * 60, "e" * 5], ["\u6f22" * 30, "7", "short", "f"]]
    shown = output.table(("NAME", "COUNT", "DETAILS", "LAST"), rows, limit=limit)
    assert all(output.columns(line) <= limit for line in shown)
    assert all("1234567" in line for line in shown[1:2]) or limit < 24
    assert ("n" * 40 in shown[1]) == (limit >= 100)
    assert "n" * 40 in output.table(("NAME", "COUNT", "DETAILS", "LAST"), rows)[1]


def test_a_cell_is_no_markup() -> None:
    """Names are foreign: neither styles nor emoji of rich, whose wrong tags would even be an error."""
    cells = ["[red]x[/red]", ":smile:", "[/]"]
    head, row = output.table(("[bold]A", "B", "C"), [cells])
    assert (head.split()[0], row.split()) == ("[bold]A", cells)


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab\u2026"),
        ("\u6f22\u5b57", 3, "\u6f22\u2026"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_a_text_is_cut_by_the_columns_it_takes(text: str, most: int, shown: str) -> None:
    """A wide letter takes two, a combining one none."""
    assert output.cut(text, most) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (12_345, "12.3k"),
        (4.5e6, "4.5M"),
        (0.5, "0.5"),
        (123_456, "123k"),
        (99_960, "100k"),
        (999_600, "1.0M"),
        (123.4, "123"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    """Counts and rates."""
    assert output.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    """The two largest units."""
    assert output.age(seconds) == shown
