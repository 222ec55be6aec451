# SPDX-License-Identifier: Apache-2.0
"""launcher: serves commands from a warm process."""

from __future__ import annotations

from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.launcher import SOCKET

__all__ = ["launcher"]


def launcher(settings: Globals, arguments: list[str]) -> int:
    """Serves on --socket until SIGTERM."""
    del settings
    parsed = parse(arguments, {"socket": "s"}, interleaved=True)
    expect(parsed, "launcher", 0, 0)
    from ringfence_runtime.launcher.server import serve

    return serve(parsed.text("socket", SOCKET))
