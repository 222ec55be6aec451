# SPDX-License-Identifier: Apache-2.0
"""`ringfence probe`."""

from __future__ import annotations

from typing import Any

from ringfence.cli.parser import Commands, add_command, add_output


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "probe",
        run,
        help="what this kernel offers",
        text="Say what this kernel offers: for each event and each rule deny, kill, see or blind, and what to change\n"
        "to get more. Loads nothing into the kernel.",
        examples="ringfence probe\nringfence probe -o json | jq .missing",
    )
    add_output(parser, "text", "json")


def run(options: Any) -> int:
    """Find out and print."""
    return 0
