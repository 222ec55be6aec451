# SPDX-License-Identifier: Apache-2.0
"""Parsers of configuration values. Each raises ValueError naming the value it got and what it expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ringfence import abi

__all__ = [
    "DETECTORS",
    "RUNTIMES",
    "Choice",
    "Key",
    "Listen",
    "Pattern",
    "absolute_path",
    "any_paths",
    "boolean",
    "choice",
    "detectors",
    "integer",
    "listen",
    "observe",
    "off_or",
    "output",
    "pairs",
    "paths",
    "patterns",
    "pins",
    "ring_size",
    "roots",
    "size",
    "suggest",
    "words",
]

#: the ids in ringfence.response.detectors, which this module must not import; a test compares the two
DETECTORS = (
    "image-link", "spec-sysctl", "spec-loader", "spec-text", "host-root", "helper-changed",
    "agent-tampered", "preemption-changed", "limit-hit",
    "task-burst", "sweep",
)  # fmt: skip
RUNTIMES = ("containerd", "crun", "docker", "podman", "runc")
_LEVELS = ("off", "activity", "alerts")
_SIZE = re.compile(r"([0-9]{1,12}) ?(|K|KiB|M|MiB|G|GiB)")
_SHIFTS = {"": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30}
_HEX = "{hex64}"


class Listen(NamedTuple):
    """An address to serve on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Pattern(NamedTuple):
    """Cgroup names of containers: the prefix, then 64 hex digits, 25 base-36 digits, or anything."""

    prefix: str
    hex64: bool
    build: bool = False  # BuildKit's base-36 digits; without a prefix, only in a cgroup named buildkit


class Key(NamedTuple):
    """One configuration key: its path in the file, its parser, default and help text."""

    path: str
    field: str
    parse: Callable[[Any], Any]  # takes plain YAML values (str, list, dict); raises ValueError
    default: Any
    help: str
    metavar: str
    many: bool = False  # the flag may be given more than once; the variable is comma-separated

    @property
    def flag(self) -> str:
        """The command-line flag of this key."""
        return "--" + self.path.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable of this key."""
        return "RINGFENCE_" + self.path.replace(".", "_").upper()


def suggest(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean X?` if a known word is similar, else the list of known words."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


class Choice:
    """A parser of one of these words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def __call__(self, value: Any) -> str:
        """Returns the word. Raises ValueError."""
        if value not in self.words:
            raise ValueError(f"{_shown(value)} is not one of {', '.join(map(repr, self.words))}")
        return str(value)


def choice(*words: str) -> Choice:
    """One of these words."""
    return Choice(words)


def integer(least: int, most: int) -> Callable[[Any], int]:
    """A whole number between two bounds."""

    def parse(value: Any) -> int:
        if (
            not isinstance(value, str)
            or not re.fullmatch(r"[0-9]{1,18}", value)
            or not least <= int(value) <= most
        ):
            raise ValueError(f"{_shown(value)} is not a whole number from {least} to {most}")
        return int(value)

    return parse


def boolean(value: Any) -> bool:
    """yes/true/on or no/false/off, in any case."""
    if isinstance(value, str) and value.lower() in ("yes", "true", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("no", "false", "off"):
        return False
    raise ValueError(f"{_shown(value)} is neither 'yes' nor 'no'")


def ring_size(value: Any) -> int:
    """The size of a ring buffer in bytes: a power of two that the kernel accepts."""
    found = _bytes(value)
    if not 1 << 16 <= found <= 1 << 28 or found & (found - 1):
        raise ValueError(f"{_shown(value)} is not a power of two from 64KiB to 256MiB, such as '4MiB'")
    return found


def size(value: Any) -> int:
    """The size of a file, a queue or memory, in bytes."""
    found = _bytes(value)
    if not 1 << 20 <= found <= 1 << 40:
        raise ValueError(f"{_shown(value)} is not a size from 1MiB to 1024GiB, such as '64MiB'")
    return found


def _bytes(value: Any) -> int:
    """Returns the number of bytes, or 0 if the value is not a size."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) << _SHIFTS[match[2]] if match else 0


def listen(value: Any) -> Listen | None:
    """HOST:PORT, [IPv6]:PORT, or off."""
    if value == "off":
        return None
    host, colon, port = str(value).rpartition(":") if isinstance(value, str) else ("", "", "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{_shown(value)} is not HOST:PORT, [IPv6]:PORT or 'off'")
    return Listen(host, int(port))


def absolute_path(value: Any) -> Path:
    """A path that does not depend on the working directory."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"{_shown(value)} is not an absolute path")
    return Path(value)


def pins(value: Any) -> str:
    """auto, off or an absolute path."""
    if value in ("auto", "off"):
        return str(value)
    try:
        return str(absolute_path(value))
    except ValueError:
        raise ValueError(f"{_shown(value)} is not 'auto', 'off' or an absolute path") from None


def output(value: Any) -> Path | None:
    """Standard output (None) or a file."""
    return None if value == "stdout" else absolute_path(value)


def off_or(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a parser that maps `off` to None and everything else through `parse`."""
    return lambda value: None if value == "off" else parse(value)


def detectors(value: Any) -> tuple[str, ...]:
    """Ids of detectors."""
    given = tuple(words(value))
    for word in given:
        if word not in DETECTORS:
            raise ValueError(f"{_shown(word)} is not a detector{suggest(word, DETECTORS)}")
    return given


def paths(value: Any) -> tuple[Path, ...]:
    """A list of at least one path; relative ones are resolved against the working directory."""
    given = words(value)
    if not given or not all(given):
        raise ValueError("expected at least one path")
    return tuple(Path(word).absolute() for word in given)


def any_paths(value: Any) -> tuple[Path, ...]:
    """As `paths`, or an empty list."""
    return () if value == [] else paths(value)


def patterns(value: Any) -> tuple[Pattern, ...]:
    """Names of cgroups: PREFIX* or PREFIX{hex64}. A bare `*` is refused: it matches all of the host."""
    return tuple(_pattern(word) for word in words(value))


def _pattern(word: str) -> Pattern:
    hex64 = word.endswith(_HEX)
    prefix = word.removesuffix(_HEX) if hex64 else word.removesuffix("*")
    if not hex64 and not word.endswith("*"):
        raise ValueError(f"{_shown(word)} ends neither with '*' nor with '{_HEX}'")
    if not prefix or set(prefix) & set("*{}/"):
        raise ValueError(f"{_shown(word)} needs a name without '/' before its '*' or '{_HEX}'")
    if len(prefix.encode()) > abi.PATTERN_LEN - 2:
        raise ValueError(f"{_shown(word)} is longer than {abi.PATTERN_LEN - 2} bytes")
    return Pattern(prefix, hex64)


def observe(value: Any) -> dict[str, str]:
    """EVENT -> off, activity or alerts. In a list: EVENT=LEVEL."""
    labels = [kind.label for kind in abi.EventKind]
    chosen = {}
    for label, level in pairs(value, "EVENT=LEVEL"):
        if label not in labels:
            raise ValueError(f"{_shown(label)} is not an event{suggest(label, labels)}")
        if level not in _LEVELS:
            raise ValueError(f"{label}: {_shown(level)} is not one of {', '.join(map(repr, _LEVELS))}")
        chosen[label] = level
    return chosen


def roots(value: Any) -> dict[str, Path]:
    """RUNTIME -> its state directory or socket. In a list: RUNTIME=PATH."""
    chosen = {}
    for runtime, path in pairs(value, "RUNTIME=PATH"):
        if runtime not in RUNTIMES:
            raise ValueError(f"{_shown(runtime)} is not a known runtime{suggest(runtime, RUNTIMES)}")
        chosen[runtime] = absolute_path(path)
    return chosen


def words(value: Any) -> list[str]:
    """A list of strings, or a single one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("expected a list of words")
    return value


def pairs(value: Any, shape: str) -> Iterable[tuple[str, Any]]:
    """Returns the items of a mapping, or of a list of strings of the form `shape`, such as NAME=VALUE."""
    if isinstance(value, Mapping):
        return value.items()
    found = []
    for word in words(value):
        left, equals, right = word.partition("=")
        if not equals:
            raise ValueError(f"{_shown(word)} is not {shape}")
        found.append((left, right))
    return found


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) and len(value) <= 80 else f"this ({type(value).__name__})"
