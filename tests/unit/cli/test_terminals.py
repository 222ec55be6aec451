# SPDX-License-Identifier: Apache-2.0
"""Commands on a terminal of 40 columns, with NO_COLOR, and with a pipe that closes. test_top.py has the same
for `top`, and test_commands.py for each help.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli.output import columns
from tests.unit.cli.terminal import agent, terminal

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
