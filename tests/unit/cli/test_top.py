# SPDX-License-Identifier: Apache-2.0
"""`ringfence top` on terminals of several sizes, and its keys."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.output import columns
from ringfence.cli.top_view import COLUMNS, View, ordered, pressed, screen
from tests.unit.cli.terminal import agent, terminal


def row(name: str, tasks: int = 1, **rates: float) -> dict[str, Any]:
    """A row, with rates of zero but for the given ones."""
    return {"id": name, "name": name, "namespace": "shop", "pod": f"{name}-0", "image": f"registry/{name}:1",
            "tasks": tasks, "rates": {**dict.fromkeys(COLUMNS, 0.0), **rates}}  # fmt: skip


ROWS = [row("web", 3, EXEC=5.0), row("db", 9, OPEN=123456.0), row("attacked", 1, STOPPED=2.0, ALERT=2.0)]


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    """An agent with 15 containers, the counters of which grow with each request."""
    asked = []

    def answer(request: dict[str, Any]) -> Any:
        assert request == {"op": "top"}
        asked.append(1)
        containers = [
            {"cgroup": n, "id": f"{n:064x}", "name": f"box{n:02}", "namespace": "", "pod": "",
             "image": "alpine:3.20", "tasks": n, "counts": {"exec": len(asked) * n * 100}}
            for n in range(15)
        ]  # fmt: skip
        return {"time": time.monotonic(), "containers": containers}

    with agent(tmp_path, answer) as path:
        yield path


@pytest.mark.parametrize("size", [(80, 24), (80, 12), (40, 10), (120, 50), (20, 5), (1, 1)])
def test_the_screen_fits_the_terminal(size: tuple[int, int]) -> None:
    """No line is wider than it, and there are no more lines; heads and keys are always there."""
    rows = [row(f"a-container-with-a-long-name-{n}", 10**n, EXEC=10.0**n) for n in range(9)]
    for view in (View(), View(help=True), View(typing=True, words="a"), View(words="none")):
        lines = screen(rows, view, size)
        assert len(lines) <= size[1]
        assert all(columns(line) <= size[0] for line in lines)


def test_eighty_columns_are_enough() -> None:
    """For all rates, and a name that says which container it is."""
    lines = screen(ROWS, View(), (80, 24))
    heads = "CONTAINER TASKS EXEC FORK OPEN CONN MOUNT KERN OTHER ALERT STOP"
    assert lines[1].split() == heads.split()
    assert lines[2].split()[:5] == ["shop/db-0/db", "9", "-", "-", "123k"]
    assert lines[5].split() == ["TOTAL", "13", "5", "-", "123k", "-", "-", "-", "-", "2", "2"]


def test_forty_columns_show_what_matters() -> None:
    """Alerts and what was stopped; images where there is room."""
    assert screen(ROWS, View(), (40, 24))[1].split() == ["CONTAINER", "TASKS", "EXEC", "ALERT", "STOP"]
    assert screen(ROWS, View(), (120, 24))[1].split()[-1] == "IMAGE"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("", ["db", "web", "attacked"]),
        ("s", ["attacked", "db", "web"]),
        ("ss", ["db", "web", "attacked"]),
        ("sss", ["attacked", "db", "web"]),
        ("ssss", ["db", "web", "attacked"]),
        ("r", ["attacked", "web", "db"]),
        ("/we", ["web"]),
        ("/SHOP/DB\r", ["db"]),
        ("/registry/web\n", ["web"]),
        ("/wx\x7fe", ["web"]),
        ("/nothing", []),
        ("/q\r", []),
        ("/web\x1b", ["db", "web", "attacked"]),
    ],
)
def test_keys_sort_and_filter(keys: str, names: list[str]) -> None:
    """By activity, alerts, tasks, name; by a part of the name, the image or the id."""
    view = View()
    for key in keys:
        view = pressed(view, key)
    assert [one["name"] for one in ordered(ROWS, view)] == names
    assert not view.ended


def test_keys_pause_scroll_and_quit() -> None:
    """As the help says."""
    view = pressed(View(), "p")
    assert view.paused
    assert screen(ROWS, view, (80, 24))[0].startswith("PAUSED")
    assert not pressed(view, " ").paused
    down = pressed(View(), "\x1b[B")
    assert screen(ROWS, down, (80, 6))[2].startswith("shop/web-0/web")
    assert pressed(down, "k").first == 0
    assert pressed(View(), "k").first == 0
    assert "1 more below" in screen(ROWS, View(), (80, 6))[4]
    assert pressed(View(), "q").ended
    helped = pressed(View(), "h")
    assert "quit" in "\n".join(screen(ROWS, helped, (80, 24)))
    assert not pressed(helped, "x").help
    assert pressed(View(), "\x00") == View()


@pytest.mark.parametrize("size", [(80, 12), (40, 10)])
def test_it_leaves_no_trace_on_the_terminal(socket_path: Path, size: tuple[int, int]) -> None:
    """It uses the alternate screen, scrolls nothing, and restores cursor and settings at `q`."""
    with terminal("top", "-i", "0.1", "--socket", str(socket_path), size=size) as made:
        made.shows("box14")
        lines = made.shows("TOTAL")
        assert len(lines) == size[1]
        assert all(len(line) <= size[0] for line in lines)
        made.press("sss")
        made.shows("by name")
        assert made.shows("box00")[2].startswith("box00")
        made.press("/box07\r")
        assert made.shows("filter: box07")[2].startswith("box07")
        made.press("q")
        assert made.ended() == 0
        assert made.attributes() == made.before
        assert made.written.count("\x1b[?1049h") == made.written.count("\x1b[?1049l") == 1
        before, _, inside = made.written.partition("\x1b[?1049h")
        drawings, _, after = inside.partition("\x1b[?1049l")
        assert (before, after) == ("", "")
        assert drawings.endswith("\x1b[?25h")
        for drawn in drawings.split("\x1b[H")[1:]:
            assert drawn.count("\n") < size[1]  # the last line has no end, which would scroll


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_restores_the_terminal(socket_path: Path, number: int, code: int) -> None:
    """Ctrl-C, and an ordinary kill."""
    with terminal("top", "--socket", str(socket_path)) as made:
        made.shows("TOTAL")
        made.process.send_signal(number)
        assert made.ended() == code
        assert made.written.endswith("\x1b[?25h\x1b[?1049l")
        assert made.attributes() == made.before


def test_it_follows_the_size_of_the_terminal(socket_path: Path) -> None:
    """At once, not at the next interval."""
    with terminal("top", "-i", "3600", "--socket", str(socket_path)) as made:
        made.shows("KERN")
        made.resize(40, 10)
        lines = made.shows("TASKS  EXEC ALERT  STOP")
        assert len(lines) == 10


def test_no_color_is_respected(socket_path: Path) -> None:
    """See https://no-color.org."""
    with terminal("top", "--socket", str(socket_path), environment={"NO_COLOR": "1"}) as made:
        made.shows("TOTAL")
        assert "\x1b[1m" not in made.written
        assert "\x1b[2m" not in made.written


def test_a_dumb_terminal_gets_one_table(socket_path: Path) -> None:
    """It has no screen."""
    with terminal("top", "-i", "0.1", "--socket", str(socket_path), environment={"TERM": "dumb"}) as made:
        assert made.ended() == 0
        assert "\x1b" not in made.written
        assert made.written.startswith("CONTAINER")


def test_an_agent_that_ends_leaves_a_message(tmp_path: Path) -> None:
    """On the ordinary screen, with the exit code of all commands."""
    answer = {"time": 1.0, "containers": []}
    with agent(tmp_path, lambda request: answer) as path:
        made = terminal("top", "-i", "0.1", "--socket", str(path))
        opened = made.__enter__()
        opened.shows("no containers")
    try:
        assert opened.ended() == 6
        assert "no agent responds" in opened.written.partition("\x1b[?1049l")[2]
    finally:
        made.__exit__(None, None, None)
