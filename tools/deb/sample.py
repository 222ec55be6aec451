# SPDX-License-Identifier: Apache-2.0
"""/etc/ringfence/agent.yaml: every key with its help text and default, all of it commented."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from ringfence.config import KEYS, Key

__all__ = ["sample", "shown"]

_HEAD = """\
# The configuration of the Ringfence agent (ringfence-agent.service).
#
# Every key is here with its default; remove the # before a key, and before its section's name, to
# set it. `ringfence agent --check` checks the file; `systemctl restart ringfence-agent` applies it.
# The variable RINGFENCE_SECTION_KEY and the flag --section-key set the same key.
"""


def shown(key: Key) -> Any:
    """Returns the default as YAML has it: strings and lists of strings."""
    default = key.default
    if key.many:
        return [str(value) for value in default]
    if default is None:
        return "stdout" if key.path == "output" else "off"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if key.metavar == "SIZE":
        return f"{default >> 20}MiB"
    return str(default)


def _value(value: Any) -> str:
    # JSON is YAML. A plain word needs no quotes.
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value) if re.fullmatch(r"[A-Za-z0-9/._-]+", value) else json.dumps(value)


def sample() -> str:
    """Returns the whole file."""
    plain = [key for key in KEYS if "." not in key.path]
    lines = [_HEAD]
    for key in plain:
        lines += _entry(key, "")
    for section in dict.fromkeys(key.path.split(".")[0] for key in KEYS if "." in key.path):
        lines.append(f"#{section}:")
        for key in KEYS:
            if key.path.startswith(f"{section}."):
                lines += _entry(key, "  ")
    return "\n".join(lines).rstrip() + "\n"


def _entry(key: Key, indent: str) -> list[str]:
    text = f"{key.help} ({key.metavar})"
    words = textwrap.wrap(text, 96, initial_indent=f"# {indent}", subsequent_indent=f"# {indent}")
    return [*words, f"#{indent}{key.path.rpartition('.')[2]}: {_value(shown(key))}", ""]
