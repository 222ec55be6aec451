# SPDX-License-Identifier: Apache-2.0
"""Manual pages, made from the argument parsers: one for the program and one for each command."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator
from unittest import mock

__all__ = ["pages", "preformatted"]


def _escape(text: str) -> str:
    r"""Text as roff shows it: `\`, `-` and a leading `.` or `'` have a meaning there."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in lines)


def _filled(text: str) -> str:
    return "\n.PP\n".join(_escape(" ".join(part.split())) for part in text.split("\n\n"))


def _head(name: str, summary: str, version: str) -> str:
    title = name.replace(" ", "-")
    return (
        f'.TH "{_escape(title.upper())}" "1" "" "Ringfence {version}" "Ringfence"\n'
        f".SH NAME\n{_escape(title)} \\- {_escape(summary)}\n"
    )


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not shown:
            continue
        yield f'.SH "{_escape((group.title or "options").upper())}"\n'
        for action in shown:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    yield f".TP\n.B {_escape(choice.dest)}\n{_filled(choice.help or '')}\n"
            else:
                head = formatter._format_action_invocation(action)
                text = formatter._expand_help(action) if action.help else ""
                yield f".TP\n.B {_escape(head)}\n{_filled(text)}\n"


def _page(parser: argparse.ArgumentParser, summary: str, version: str) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    parts = [
        _head(parser.prog, summary, version),
        f".SH SYNOPSIS\n{_escape(usage)}\n",
        f".SH DESCRIPTION\n{_filled(parser.description or summary)}\n",
        *_options(parser),
    ]
    for section in (parser.epilog or "").split("\n\n"):
        title, _, text = section.partition(":\n")
        parts.append(f".SH {title.upper()}\n.nf\n{_escape(textwrap.dedent(text))}\n.fi\n")
    return "".join(parts)


def pages(parser: argparse.ArgumentParser, version: str) -> Iterator[tuple[str, str]]:
    """Yields (NAME, text) of NAME.1 for the program and for each command and subcommand."""
    with mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}):
        yield from _below(parser, parser.description or "", version)


def _below(parser: argparse.ArgumentParser, summary: str, version: str) -> Iterator[tuple[str, str]]:
    yield parser.prog.replace(" ", "-"), _page(parser, summary.rstrip("."), version)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, part in action.choices.items():
                yield from _below(part, summaries.get(name, ""), version)


def preformatted(name: str, summary: str, version: str, helps: list[str]) -> str:
    """Returns the page of a program without such a parser: its help texts, as they are."""
    blocks = "".join(f".PP\n.nf\n{_escape(text)}\n.fi\n" for text in helps)
    return _head(name, summary, version) + f".SH DESCRIPTION\n{blocks}"
