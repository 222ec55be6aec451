# SPDX-License-Identifier: Apache-2.0
"""/etc/ringfence/agent.yaml: every key with its help text and default, all of it commented."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ringfence.config.accepted import Acceptance
from ringfence.config.keys import KEYS
from ringfence.config.receivers import Receiver
from ringfence.config.values import Key, Pattern

__all__ = ["sample", "shown", "shown_value"]

_HEAD = """\
# The configuration of the Ringfence agent (ringfence-agent.service).
#
# Every key is here with its default; remove the # before a key, and before its section's name, to
# set it. `ringfence agent --check` checks the file; `systemctl restart ringfence-agent` applies it.
# The variable RINGFENCE_SECTION_KEY and the flag --section-key set the same key.
"""


def shown(key: Key) -> Any:
    """Returns the default as YAML has it: strings and lists of strings."""
    return shown_value(key, key.default)


def shown_value(key: Key, value: Any) -> Any:
    """Returns a value of the key as YAML has it. Of a receiver's URL only the server: the rest may be
    secret.
    """
    if isinstance(value, Mapping):
        return [f"{name}={part}" for name, part in value.items()]
    if key.many:
        return [_item(one) for one in value]
    if value is None:
        return "stdout" if key.path == "output" else "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.metavar == "SIZE":
        return f"{value >> 20}MiB" if value % (1 << 20) == 0 else f"{value >> 10}KiB"
    return str(value)


def _item(value: Any) -> str:
    """Returns one item of a list as a flag takes it."""
    if isinstance(value, Receiver):
        parts = urlsplit(value.url)
        return f"{parts.scheme}://{parts.netloc}{'/...' if parts.path.strip('/') else ''}"
    if isinstance(value, Pattern):
        return value.prefix + ("{hex64}" if value.hex64 else "*")
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    return " ".join(value) if isinstance(value, Acceptance) else str(value)


def _value(value: Any) -> str:
    # JSON is YAML. A plain word needs no quotes.
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value) if re.fullmatch(r"[A-Za-z0-9/._-]+", value) else json.dumps(value)


def sample(mode: str = "") -> str:
    """Returns the whole file; with a mode, that is set."""
    plain = [key for key in KEYS if "." not in key.path]
    lines = [_HEAD]
    for key in plain:
        *words, line, end = _entry(key, "")
        lines += [*words, f"mode: {mode}" if mode and key.path == "mode" else line, end]
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
