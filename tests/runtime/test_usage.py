# SPDX-License-Identifier: Apache-2.0
"""The help of each command of the runtime names what the command accepts."""

from __future__ import annotations

import re

import pytest

from ringfence_runtime.cli import COMMANDS, execute, lifecycle, update
from ringfence_runtime.cli.options import expect, parse
from ringfence_runtime.cli.usage import OPTIONS, of_command
from ringfence_runtime.errors import UsageError

# Accepted for runc's sake without an effect, or refused.
SILENT = {"no-subreaper", "l3-cache-schema", "mem-bw-schema"}
TAKEN = {
    "create": lifecycle._CREATE,
    "run": lifecycle._RUN,
    "exec": execute._OPTIONS,
    "update": update._OPTIONS,
}


@pytest.mark.parametrize("command", TAKEN)
def test_every_option_is_in_the_help(command: str) -> None:
    """And nothing else is."""
    named = set(re.findall(r"(?<![\w-])--?([a-z][\w-]*)", " ".join(option for option, _ in OPTIONS[command])))
    assert named == set(TAKEN[command]) - SILENT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Its usage, and a line about each option."""
    text = of_command(command)
    assert text.startswith(f"usage: ringfence-runtime {command}")
    assert all(option in text for option, _ in OPTIONS.get(command, ()))


def test_a_wrong_number_of_words_refers_to_the_help() -> None:
    """By a hint."""
    with pytest.raises(UsageError) as caught:
        expect(parse([], {}), "run", 1, 1)
    assert caught.value.hint == "ringfence-runtime run --help"
