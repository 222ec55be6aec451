# SPDX-License-Identifier: Apache-2.0
"""Parses values of the command line, in docker's and podman's syntax, to plain tuples.

Each function raises UsageError, with the option, the given and the expected value.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ringfence.sandbox.errors import UsageError

__all__ = [
    "Device",
    "Limit",
    "Volume",
    "bytes_of",
    "device",
    "extra_host",
    "group",
    "hostname",
    "key_value",
    "limit",
    "mount",
    "security",
    "tmpfs",
    "variables",
    "volume",
]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECURITY = (
    "seccomp=FILE|unconfined, landlock=off, no-new-privileges=false, systempaths=unconfined,"
    " apparmor=PROFILE, label=LABEL"
)
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


class Volume(NamedTuple):
    """A mount: a host path, or (source empty) a tmpfs."""

    source: str
    target: str
    options: tuple[str, ...]


class Device(NamedTuple):
    """A device node of the host."""

    source: str
    target: str
    access: str


class Limit(NamedTuple):
    """An rlimit; -1 is unlimited."""

    name: str
    soft: int
    hard: int


def bytes_of(option: str, text: str) -> int:
    """`512m`, `1.5g`, or bytes."""
    lowered = text.lower().removesuffix("ib")
    number = lowered.rstrip("bkmgt")
    unit = (
        lowered[len(number) :].removesuffix("b") if len(lowered) - len(number) > 1 else lowered[len(number) :]
    )
    try:
        value = float(number) * _UNITS[unit]
        if not 0 <= value < 1 << 62 or number.strip() != number:
            raise ValueError
    except (ValueError, KeyError):
        raise UsageError(
            f"{option}: {text!a} is not a size", hint="write 512m, 1.5g or a number of bytes"
        ) from None
    return int(value)


def key_value(option: str, text: str) -> tuple[str, str]:
    """`KEY=VALUE`; the value may be empty."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{option}: {text!a} is not KEY=VALUE")
    return key, value


def _absolute(option: str, path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise UsageError(f"{option}: {path!a} must be an absolute path in the container, without `..`")
    if os.path.normpath(path) == "/":
        raise UsageError(
            f"{option}: the root directory cannot be mounted over", hint="--rootfs DIR chooses it"
        )
    return os.path.normpath(path)


def _source(option: str, path: str) -> str:
    if not path.startswith(("/", "./", "../")) and path not in (".", ".."):
        raise UsageError(
            f"{option}: {path!a} is not a path", hint=f"there are no named volumes: write /{path} or ./{path}"
        )
    found = os.path.realpath(path)
    if not os.path.exists(found):
        raise UsageError(f"{option}: {path} does not exist", hint="create the directory first")
    return found


def volume(text: str) -> Volume:
    """`HOST:CONTAINER[:OPTIONS]`."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise UsageError(f"--volume: {text!a} is not HOST:CONTAINER[:OPTIONS]")
    options = _volume_options("--volume", parts[2].split(",") if len(parts) == 3 and parts[2] else [])
    return Volume(_source("--volume", parts[0]), _absolute("--volume", parts[1]), options)


def _volume_options(option: str, words: list[str]) -> tuple[str, ...]:
    """Converts docker's options to the runtime's."""
    result = ["rbind", "nosuid", "nodev"]
    propagation = "rprivate"
    for word in words:
        if word in ("ro", "readonly"):
            result += ["ro", "rro"]
        elif word in ("nocopy", "z", "Z", "rw", "cached", "delegated", "consistent"):
            continue  # ignored: no SELinux relabelling, no copying; the others are for other systems
        elif word in ("suid", "dev", "noexec", "exec"):
            result = [*(each for each in result if each not in (f"no{word}",)), word]
        elif word in _PROPAGATION:
            propagation = word
        elif word == "idmap":
            result.append(word)
        else:
            raise UsageError(
                f"{option}: unknown option {word!a}", hint="ro, rw, noexec, suid, dev, idmap, rslave ..."
            )
    return (*result, propagation)


def mount(text: str) -> Volume:
    """`type=bind,source=PATH,target=PATH[,readonly]` or `type=tmpfs,target=PATH[,tmpfs-size=SIZE]`."""
    given: dict[str, str] = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        given[{"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(key, key)] = (
            value
        )
    kind = given.pop("type", "bind")
    target = given.pop("target", "")
    if kind == "tmpfs":
        options = [f"size={bytes_of('--mount', given.pop('tmpfs-size'))}"] if "tmpfs-size" in given else []
        options += [f"mode={given.pop('tmpfs-mode')}"] if "tmpfs-mode" in given else []
        result = tmpfs(":".join((target, ",".join(options))))
    elif kind == "bind":
        words = ["ro"] if given.pop("readonly", "false") in ("", "true", "1") else []
        words += [given.pop("bind-propagation")] if "bind-propagation" in given else []
        source = given.pop("source", "")
        result = Volume(
            _source("--mount", source), _absolute("--mount", target), _volume_options("--mount", words)
        )
    else:
        raise UsageError(f"--mount: type {kind!a} is not supported", hint="bind or tmpfs")
    if given:
        raise UsageError(f"--mount: unknown key {next(iter(given))!a}")
    return result


def tmpfs(text: str) -> Volume:
    """Parses `CONTAINER[:OPTIONS]`, noexec unless `exec` is given."""
    target, _, words = text.partition(":")
    options = ["nosuid", "nodev", "noexec"]
    for word in filter(None, words.split(",")):
        if word in ("exec", "suid", "dev"):
            options = [each for each in options if each != f"no{word}"]
        else:
            options.append(word)
    if not any(word.startswith("mode=") for word in options):
        options.append("mode=1777")
    return Volume("", _absolute("--tmpfs", target), tuple(options))


def device(text: str) -> Device:
    """`HOST[:CONTAINER[:rwm]]`."""
    parts = text.split(":")
    if len(parts) == 2 and parts[1] and not set(parts[1]) - set("rwm"):
        parts = [parts[0], parts[0], parts[1]]
    source, target, access = (*parts, *("", "", "")[len(parts) :])[:3]
    access = access or "rwm"
    if len(parts) > 3 or not source.startswith("/") or set(access) - set("rwm"):
        raise UsageError(f"--device: {text!a} is not HOST[:CONTAINER[:rwm]]")
    return Device(source, _absolute("--device", target or source), access)


def limit(text: str) -> Limit:
    """`nofile=SOFT[:HARD]`; `unlimited` or -1."""
    name, value = key_value("--ulimit", text)
    soft, _, hard = value.partition(":")
    try:
        numbers = [-1 if word == "unlimited" else int(word) for word in (soft, hard or soft)]
        if min(numbers) < -1 or max(numbers) >= 1 << 63:
            raise ValueError
    except ValueError:
        raise UsageError(f"--ulimit: {text!a} is not NAME=SOFT[:HARD]") from None
    return Limit(f"RLIMIT_{name.upper()}", *numbers)


def extra_host(text: str) -> tuple[str, str]:
    """`NAME:ADDRESS`, or `NAME=ADDRESS`."""
    name, sign, address = text.partition("=" if "=" in text else ":")
    if not sign or not name or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise UsageError(f"--add-host: {text!a} is not NAME:ADDRESS")
    if address != "host-gateway":
        import ipaddress

        try:
            address = str(ipaddress.ip_address(address.strip("[]")))
        except ValueError:
            raise UsageError(f"--add-host: {address!a} is not an address") from None
    return name, address


def variables(words: list[str], files: list[str]) -> tuple[str, ...]:
    """Returns NAME=VALUE of `--env-file`s, then of `--env`s; NAME alone takes the caller's value, if set."""
    result = []
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.strip("\r\n") for line in file]
        except OSError as error:
            raise UsageError(f"--env-file: {path}: {error.strerror}") from None
        result += [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for word in [*result, *words]:
        name, equals, _ = word.partition("=")
        if not name or "\0" in word or any(letter.isspace() for letter in name):
            raise UsageError(f"--env: {word!a} is not NAME=VALUE")
        if equals:
            found.append(word)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return tuple(found)


def hostname(text: str) -> str:
    """Parses `--hostname`: it is written to /etc/hosts, so it must be one word."""
    if len(text) > 64 or any(
        not (letter.isascii() and (letter.isalnum() or letter in "-._")) for letter in text
    ):
        raise UsageError(
            f"--hostname: {text!a} is not a valid host name", hint="letters, digits and - . _, 64 at most"
        )
    return text


def group(text: str) -> int:
    """Parses a group's number."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 31:
        raise UsageError(f"--group-add: {text!a} is not a group's number")
    return int(text)


def security(words: list[str]) -> dict[str, Any]:
    """Parses `--security-opt` to members of Fences."""
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=" if "=" in word else ":")
        if key == "seccomp" and value:
            found["seccomp"] = value if value in ("default", "unconfined") else os.path.abspath(value)
        elif key == "landlock" and value in ("off", "on"):
            found["landlock"] = value == "on"
        elif key == "no-new-privileges" and value in ("", "true", "false"):
            found["no_new_privileges"] = value != "false"
        elif word in ("systempaths=unconfined", "mask=off"):
            found["masks"] = False
        elif key == "apparmor" and value:
            found["apparmor"] = value
        elif key == "label" and value:
            found["selinux"] = "" if value == "disable" else value
        else:
            raise UsageError(f"--security-opt: {word!a} is not known", hint=_SECURITY)
    return found
