# SPDX-License-Identifier: Apache-2.0
"""How far a command is, on standard error if that is a terminal. rich is imported only then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

__all__ = ["progress"]


@contextlib.contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Shows a bar until the end of the block, or without a total the time that passes.

    Yields a function that counts one more of `total`.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counted = (BarColumn(), MofNCompleteColumn()) if total is not None else ()
    shown = (TextColumn("{task.description}", markup=False), *counted, TimeElapsedColumn())
    # On the same terminal, lines are printed above the bar; standard output that leads elsewhere is not ours.
    above = sys.stdout.isatty()
    with Progress(*shown, console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
