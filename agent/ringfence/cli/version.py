# SPDX-License-Identifier: Apache-2.0
"""`ringfence version`."""

from __future__ import annotations

import os
import platform
from typing import Any

from ringfence import __version__
from ringfence.cli.output import print_document
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "version",
        run,
        text="Print the versions of Ringfence, Python and the kernel.",
        examples="ringfence version\nringfence version -o json",
    )
    add_output(parser)


def run(options: Any) -> int:
    """Prints the versions."""
    facts = {"ringfence": __version__, "python": platform.python_version(), "kernel": os.uname().release}
    if options.output in DOCUMENTS:
        print_document(facts, options.output)
    else:
        print(f"ringfence {facts['ringfence']} (Python {facts['python']}, kernel {facts['kernel']})")
    return 0
