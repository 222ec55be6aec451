# SPDX-License-Identifier: Apache-2.0
"""Commands on a terminal of 40 columns, with NO_COLOR, and with a pipe that closes. test_top.py has the same
for `top`, and test_commands.py for each help. Then: how far a command is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli.output import columns
from tests.unit.cli.terminal import Terminal, agent, terminal

ROOT = Path(__file__).resolve().parents[3]
#: each prints a table that is wider than 80 columns where nothing limits it
TABLES = [
    pytest.param(("config", "show"), id="config"),
    pytest.param(("policy", "test", "--list"), id="policy-test"),
    pytest.param(("policy", "list"), id="policy-list"),
]
RULE = {
    "rule": "a-rule-with-a-name-of-some-length", "severity": "high", "policy": "a-policy-with-a-long-name",
    "asked": "deny", "action": "kill", "mechanism": "kprobe", "file": "/etc/ringfence/policies/a.yaml",
    "line": 3,
}  # fmt: skip


@pytest.mark.parametrize("words", TABLES)
def test_a_table_fits_40_columns(words: tuple[str, ...], tmp_path: Path) -> None:
    """No line is wider, and none is empty."""
    with agent(tmp_path, lambda _: [RULE]) as socket:
        extra = ("--socket", str(socket)) if words == ("policy", "list") else ()
        with terminal(*words, *extra, size=(40, 24)) as made:
            assert made.ended() == 0, made.written
    lines = re.sub(r"\x1b\[[0-9;]*m", "", made.written).splitlines()
    assert len(lines) > 1
    assert not [line for line in lines if not 0 < columns(line) <= 40]


STEPS = """
import sys
from ringfence.cli.progress import progress
with progress("[bold]checking", total=3) as count:
    for _ in range(3):
        count()
    print("a result")
sys.stderr.write(f"{'rich' in sys.modules}\\n")
"""


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """And is gone afterwards. Standard output has the results alone, wherever it leads."""
    made = Terminal(
        ["sh", "-c", 'exec "$0" -c "$1" > "$2"', sys.executable, STEPS, str(tmp_path / "out")], (60, 10), {}
    )
    assert made.ended() == 0, made.written
    made.close()
    assert (tmp_path / "out").read_text() == "a result\n"
    assert "[bold]checking" in made.written
    assert "3/3" in made.written
    assert made.written.rpartition("\x1b[2K")[2] == "True\r\n"


def test_a_result_is_printed_above_the_bar() -> None:
    """On one terminal for both."""
    made = Terminal([sys.executable, "-c", STEPS], (60, 10), {})
    assert made.ended() == 0, made.written
    made.close()
    after = made.written.partition("a result")[2]
    assert after.startswith("\r\n")
    assert "3/3" in after


def test_progress_elsewhere_is_silent_and_loads_no_library() -> None:
    """As in a script."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a result\n", "False\n")


@pytest.mark.parametrize("words", [("doctor",), ("config", "show")])
@pytest.mark.parametrize("value", ["1", ""])
def test_no_color_is_respected(words: tuple[str, ...], value: str) -> None:
    """See https://no-color.org: any value but an empty one."""
    with terminal(*words, environment={"NO_COLOR": value}) as made:
        made.ended()
    assert ("\x1b[" in made.written) == (value == "")


@pytest.mark.parametrize(
    "words",
    [("--help",), ("config", "show"), ("policy", "test", "--list"), ("policy", "schema"), ("doctor",)],
)
def test_a_pipe_that_closes_is_no_error(words: tuple[str, ...]) -> None:
    """Before the first line, as `ringfence ... | true`: nothing on standard error, and exit code 0."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "ringfence", *words],
            stdout=closed, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert ended.stderr == ""
    assert ended.returncode == 0
