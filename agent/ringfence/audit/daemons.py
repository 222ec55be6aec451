# SPDX-License-Identifier: Apache-2.0
"""The configuration of dockerd and the kubelet, from their command lines and configuration files.

Only daemons of the host itself: a dockerd in a container is out of scope.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ringfence.audit.model import CHECKS, Finding, Unseen
from ringfence.containers.enrich import safejson

__all__ = ["docker", "kubelet"]

_CMDLINE_MAX = 1 << 16
_ONLY_HERE = ("tcp://127.", "tcp://localhost", "tcp://[::1]", "tcp://:")  # no host is localhost
_DAEMON_JSON, _KUBELET_TLS, _DOCKER_TLS = "/etc/docker/daemon.json", 10250, 2376


class _Place(NamedTuple):
    """The parts of a node that are read here: its name, /proc, and the root of its disks."""

    name: str
    proc: Path
    host: Path
    ports: Mapping[int, set[bool]]  # listening port -> {on the loopback?}


def docker(name: str, proc: Path, host: Path, ports: Mapping[int, set[bool]]) -> Iterator[Finding | Unseen]:
    """Yields findings about a Docker API by TCP that does not verify client certificates."""
    place = _Place(name, proc, host, ports)
    seen = False
    for argv in _processes(place, "dockerd"):
        seen = True
        yield from _dockerd(place, argv)
    if not seen and _DOCKER_TLS in ports:
        yield Unseen(
            "docker-tcp", f"which program listens on port {_DOCKER_TLS}, and if it verifies certificates"
        )


def _dockerd(place: _Place, argv: Sequence[str]) -> Iterator[Finding | Unseen]:
    path = _last(argv, "--config-file") or _DAEMON_JSON
    try:
        settings = safejson.read(place.host / path.lstrip("/"))
    except FileNotFoundError:
        settings = {}
    except safejson.Unusable as error:
        yield Unseen("docker-tcp", f"{path} {error}")
        return
    hosts = [*_values(argv, "-H"), *_values(argv, "--host")]
    hosts += [one for one in safejson.children(settings, "hosts") if isinstance(one, str)]
    # Source: parseDaemonHost of moby's opts/hosts.go
    hosts = [one if "://" in one else f"tcp://{one}" for one in hosts if one]
    said = _last(argv, "--tlsverify", bare="true")
    verified = said == "true" if said else isinstance(settings, dict) and settings.get("tlsverify") is True
    for address in hosts:
        if address.startswith("tcp:") and not verified:
            points = 75 if address.startswith(_ONLY_HERE) else -1
            detail = f"{address[:100]}, without --tlsverify: no client certificate is required"
            yield Finding(CHECKS["docker-tcp"], place.name, detail, "", points)


def kubelet(name: str, proc: Path, host: Path, ports: Mapping[int, set[bool]]) -> Iterator[Finding | Unseen]:
    """Yields findings about a kubelet that accepts anonymous requests."""
    place = _Place(name, proc, host, ports)
    seen = False
    for argv in _processes(place, "kubelet", of_root=True):
        seen = True
        yield from _kubelet(place, argv)
    if not seen and _KUBELET_TLS in ports:
        yield Unseen("kubelet-anonymous", f"the settings of the program that listens on port {_KUBELET_TLS}")


def _kubelet(place: _Place, argv: Sequence[str]) -> Iterator[Finding | Unseen]:
    """Without a file, the flags' defaults apply: anonymous, all allowed (kubelet, --anonymous-auth)."""
    path = _last(argv, "--config")
    anonymous, mode = ("false", "Webhook") if path else ("true", "AlwaysAllow")
    if path:
        try:
            settings = yaml.safe_load(safejson.read_text(place.host / path.lstrip("/")))
        except (safejson.Unusable, FileNotFoundError, yaml.YAMLError, RecursionError, ValueError) as error:
            yield Unseen("kubelet-anonymous", f"{path}: {type(error).__name__}")
            return
        anonymous = _at(settings, "authentication", "anonymous", "enabled", default=anonymous).lower()
        mode = _at(settings, "authorization", "mode", default=mode)
    anonymous = _last(argv, "--anonymous-auth", bare="true") or anonymous
    mode = _last(argv, "--authorization-mode") or mode
    if anonymous == "true":
        everything = mode == "AlwaysAllow"
        what = "may do everything" if everything else f"may do what {mode[:40]} allows to system:anonymous"
        points = -1 if everything else 60
        detail = f"anonymous requests are accepted, and {what}"
        yield Finding(CHECKS["kubelet-anonymous"], place.name, detail, "", points)


def _at(value: Any, *keys: str, default: str) -> str:
    """Returns the word at this key, never the text of a list: YAML aliases can make it endless."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if isinstance(value, (str, bool)) else default


def _processes(place: _Place, name: str, *, of_root: bool = False) -> Iterator[list[str]]:
    """Yields command lines of host processes of this name. `of_root`: ignore other users' processes."""
    ours = _namespace(place.proc / "1")
    for directory in sorted(place.proc.glob("[0-9]*")):
        try:
            if (directory / "comm").read_text(errors="replace").strip() != name:
                continue
            with (directory / "cmdline").open("rb") as file:
                words = file.read(_CMDLINE_MAX).rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        if _namespace(directory) == ours and (not of_root or _is_roots(directory)):
            yield [word.decode("utf-8", "replace") for word in words]


def _is_roots(directory: Path) -> bool:
    """Returns True if the effective user is root: the directory is also root's for undumpable processes."""
    try:
        status = (directory / "status").read_text(errors="replace")
    except OSError:
        return False
    return re.search(r"^Uid:\s+\d+\s+0\s", status, re.M) is not None


def _namespace(directory: Path) -> str:
    try:
        return os.readlink(directory / "ns/mnt")
    except OSError:
        return ""


def _values(argv: Sequence[str], flag: str, bare: str = "") -> Iterator[str]:
    """Yields the values of a flag, `--flag=x` and `--flag x`; `bare` is the value of a flag without one."""
    for number, word in enumerate(argv):
        if word == flag:
            yield bare or (argv[number + 1] if number + 1 < len(argv) else "")
        elif word.startswith(flag + "="):
            yield word[len(flag) + 1 :]
        elif len(flag) == 2 and word.startswith(flag):  # -Htcp://...
            yield word[2:]


def _last(argv: Sequence[str], flag: str, bare: str = "") -> str:
    return next(reversed([*_values(argv, flag, bare)]), "")
