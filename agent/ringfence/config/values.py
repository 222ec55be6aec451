# SPDX-License-Identifier: Apache-2.0
"""How the words of a configuration become values. Each parser raises ValueError with what it got and
expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ringfence import abi

__all__ = [
    "DETECTORS",
    "RUNTIMES",
    "Key",
    "Listen",
    "Pattern",
    "absolute_path",
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

#: as ringfence.response.detectors has them, which this module cannot import; a test compares
DETECTORS = (
    "image-link", "spec-sysctl", "spec-loader", "spec-text", "host-root", "helper-changed",
    "agent-tampered", "limit-hit",
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
    """Cgroup names that are containers: the prefix, then 64 hex digits, 25 base-36 digits, or anything."""

    prefix: str
    hex64: bool
    build: bool = False  # the base-36 digits of BuildKit; without a prefix, in a cgroup named buildkit alone


class Key(NamedTuple):
    """One key: where it lies in the file, how its text becomes a value, and what it means."""

    path: str
    field: str
    parse: Callable[[Any], Any]  # plain YAML values (str, list, dict) in; ValueError says what was expected
    default: Any
    help: str
    metavar: str
    many: bool = False  # the flag may be given more than once; the variable is comma-separated

    @property
    def flag(self) -> str:
        """The command line's name of this key."""
        return "--" + self.path.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name of this key."""
        return "RINGFENCE_" + self.path.replace(".", "_").upper()


def suggest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` where something known is near, else what is known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}"


def choice(*words: str) -> Callable[[Any], str]:
    """One of these words."""

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{_shown(value)} is not one of {', '.join(map(repr, words))}")
        return str(value)

    return parse


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
    """Yes or no, in YAML's usual words."""
    if isinstance(value, str) and value.lower() in ("yes", "true", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("no", "false", "off"):
        return False
    raise ValueError(f"{_shown(value)} is neither 'yes' nor 'no'")


def ring_size(value: Any) -> int:
    """Bytes of a ring: a power of two that the kernel accepts."""
    found = _bytes(value)
    if not 1 << 16 <= found <= 1 << 28 or found & (found - 1):
        raise ValueError(f"{_shown(value)} is not a power of two from 64KiB to 256MiB, such as '4MiB'")
    return found


def size(value: Any) -> int:
    """Bytes of a file, a queue or memory."""
    found = _bytes(value)
    if not 1 << 20 <= found <= 1 << 40:
        raise ValueError(f"{_shown(value)} is not a size from 1MiB to 1024GiB, such as '64MiB'")
    return found


def _bytes(value: Any) -> int:
    """0: not a size."""
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
    """A path that does not depend on where the agent was started."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"{_shown(value)} is not an absolute path")
    return Path(value)


def pins(value: Any) -> str:
    """Where pins go."""
    if value in ("auto", "off"):
        return str(value)
    try:
        return str(absolute_path(value))
    except ValueError:
        raise ValueError(f"{_shown(value)} is not 'auto', 'off' or an absolute path") from None


def output(value: Any) -> Path | None:
    """Standard output or a file."""
    return None if value == "stdout" else absolute_path(value)


def off_or(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The word off, which means None, or what `parse` makes of it."""
    return lambda value: None if value == "off" else parse(value)


def detectors(value: Any) -> tuple[str, ...]:
    """Names of detectors."""
    given = tuple(words(value))
    for word in given:
        if word not in DETECTORS:
            raise ValueError(f"{_shown(word)} is no detector{suggest(word, DETECTORS)}")
    return given


def paths(value: Any) -> tuple[Path, ...]:
    """A list of paths; relative ones mean the working directory. An empty list is no list of policies."""
    given = words(value)
    if not given or not all(given):
        raise ValueError("expected at least one path")
    return tuple(Path(word).absolute() for word in given)


def patterns(value: Any) -> tuple[Pattern, ...]:
    """Names of cgroups: PREFIX* or PREFIX{hex64}. A bare `*` would take every cgroup of the host."""
    return tuple(_pattern(word) for word in words(value))


def _pattern(word: str) -> Pattern:
    hex64 = word.endswith(_HEX)
    prefix = word.removesuffix(_HEX) if hex64 else word.removesuffix("*")
    if not hex64 and not word.endswith("*"):
        raise ValueError(f"{_shown(word)} ends neither with '*' nor with '{_HEX}'")
    if not prefix or set(prefix) & set("*{}/"):
        raise ValueError(f"{_shown(word)} must be a name before its '*' or '{_HEX}', without '/'")
    if len(prefix.encode()) > abi.PATTERN_LEN - 2:
        raise ValueError(f"{_shown(word)} is longer than {abi.PATTERN_LEN - 2} bytes")
    return Pattern(prefix, hex64)


def observe(value: Any) -> dict[str, str]:
    """EVENT -> off, activity or alerts. As a list of words: EVENT=LEVEL."""
    labels = [kind.label for kind in abi.EventKind]
    chosen = {}
    for label, level in pairs(value, "EVENT=LEVEL"):
        if label not in labels:
            raise ValueError(f"{_shown(label)} is no event{suggest(label, labels)}")
        if level not in _LEVELS:
            raise ValueError(f"{label}: {_shown(level)} is not one of {', '.join(map(repr, _LEVELS))}")
        chosen[label] = level
    return chosen


def roots(value: Any) -> dict[str, Path]:
    """RUNTIME -> its state directory or socket. As a list of words: RUNTIME=PATH."""
    chosen = {}
    for runtime, path in pairs(value, "RUNTIME=PATH"):
        if runtime not in RUNTIMES:
            raise ValueError(f"{_shown(runtime)} is no runtime{suggest(runtime, RUNTIMES)}")
        chosen[runtime] = absolute_path(path)
    return chosen


def words(value: Any) -> list[str]:
    """A list of words, or one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("expected a list of words")
    return value


def pairs(value: Any, shape: str) -> Iterable[tuple[str, Any]]:
    """What a mapping holds, or a list of words of the form `shape`, which has an equals sign."""
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
