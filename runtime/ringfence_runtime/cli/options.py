# SPDX-License-Identifier: Apache-2.0
"""Command line parsing like Go's and runc's, without argparse (10 ms of a start)."""

from __future__ import annotations

import os
import stat

from ringfence_runtime.errors import Error, UsageError

__all__ = ["Globals", "Parsed", "expect", "parse", "parse_globals"]

_GLOBAL = {
    "root": "s",
    "log": "s",
    "log-format": "s",
    "log-level": "s",
    "debug": "f",
    "systemd-cgroup": "f",
    "rootless": "s",
    "criu": "s",
    "cgroup-manager": "s",
    "version": "f",
    "help": "f",
    "v": "=version",
    "h": "=help",
}


class Parsed:
    """Options by name, and the rest. A flag's value is "true"; a repeated option keeps all its values."""

    __slots__ = ("_values", "rest")

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self.rest: list[str] = []

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def texts(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        return self.text(name) in ("true", "1", "t", "T", "TRUE", "True")

    def number(self, name: str, default: int = 0) -> int:
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise UsageError(f"--{name}: {value!r} is not a number") from None


class Globals:
    """The options before the command."""

    __slots__ = ("cgroups", "help", "log", "log_format", "log_level", "root", "version")

    def __init__(self, parsed: Parsed) -> None:
        self.root = os.path.abspath(parsed.text("root") or default_root())
        self.log = parsed.text("log")
        self.log_format = parsed.text("log-format", "text")
        self.log_level = "debug" if parsed.flag("debug") else parsed.text("log-level", "warning")
        self.version = parsed.flag("version")
        self.help = parsed.flag("help")
        if parsed.flag("systemd-cgroup") or parsed.text("cgroup-manager", "cgroupfs") == "systemd":
            raise UsageError(
                "the systemd cgroup manager is not supported",
                hint="use cgroupfs (Podman: --cgroup-manager=cgroupfs)",
            )
        manager = parsed.text("cgroup-manager", "cgroupfs")
        if manager not in ("cgroupfs", "disabled"):
            raise UsageError(f"unknown cgroup manager {manager!r}", hint="cgroupfs or disabled")
        self.cgroups = manager == "cgroupfs"


def default_root() -> str:
    """Returns the directory of states without --root."""
    if os.geteuid() == 0:
        return "/run/ringfence/runtime"
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(given, "ringfence")
    return os.path.join(private_directory(f"/tmp/ringfence-{os.geteuid()}"), "ringfence")


def private_directory(path: str) -> str:
    """Returns the directory, creating it if missing. Error if others can write to it, as in /tmp."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise Error(
            f"{path} is not a private directory of this user", hint="remove it, or set another with --root"
        )
    return path


def parse(arguments: list[str], options: dict[str, str], *, interleaved: bool = False) -> Parsed:
    """Splits `arguments` by `options`: name -> `f` flag, `s` with a value, `=other` alias.

    Options end at the first other word; `interleaved` allows them anywhere.
    """
    parsed = Parsed()
    index = 0
    while index < len(arguments):
        word = arguments[index]
        index += 1
        if word == "--":
            parsed.rest += arguments[index:]
            break
        if not word.startswith("-") or word == "-":
            parsed.rest.append(word)
            if interleaved:
                continue
            parsed.rest += arguments[index:]
            break
        index = _option(parsed, word, arguments, index, options)
    return parsed


def _option(parsed: Parsed, word: str, arguments: list[str], index: int, options: dict[str, str]) -> int:
    name, equals, value = word.lstrip("-").partition("=")
    kind = options.get(name)
    if kind is None and not word.startswith("--") and len(name) > 1 and options.get(name[0]):
        return _cluster(parsed, word[1:], arguments, index, options)
    if kind is None:
        from difflib import get_close_matches

        near = get_close_matches(name, [each for each in options if len(each) > 1], 1)
        raise UsageError(
            f"unknown option {word.split('=')[0]}", hint=f"did you mean --{near[0]}?" if near else ""
        )
    if kind.startswith("="):
        name = kind[1:]
        kind = options[name]
    if kind == "f":
        parsed.add(name, value if equals else "true")
    elif equals:
        parsed.add(name, value)
    elif index < len(arguments):
        parsed.add(name, arguments[index])
        return index + 1
    else:
        raise UsageError(f"option {word} needs a value")
    return index


def _cluster(parsed: Parsed, letters: str, arguments: list[str], index: int, options: dict[str, str]) -> int:
    """Parses `-it` or `-p5`: combined short flags, or a short option followed by its value."""
    for position, letter in enumerate(letters):
        kind = options.get(letter)
        if kind is None:
            raise UsageError(f"unknown option -{letter}")
        target = kind[1:] if kind.startswith("=") else letter
        if options[target] == "f":
            parsed.add(target, "true")
            continue
        value = letters[position + 1 :]
        if value:
            parsed.add(target, value)
            return index
        if index >= len(arguments):
            raise UsageError(f"option -{letter} needs a value")
        parsed.add(target, arguments[index])
        return index + 1
    return index


def parse_globals(arguments: list[str]) -> tuple[Globals, list[str]]:
    """Returns the options before the command, and the rest."""
    parsed = parse(arguments, _GLOBAL)
    return Globals(parsed), parsed.rest


def expect(parsed: Parsed, command: str, low: int, high: int | None = None) -> list[str]:
    """Returns the remaining words, if their number is within bounds."""
    count = len(parsed.rest)
    if count < low or (high is not None and count > high):
        wanted = str(low) if high == low else f"at least {low}"
        raise UsageError(
            f"{command}: expected {wanted} argument(s), got {count}",
            hint=f"ringfence-runtime {command} --help",
        )
    return parsed.rest
