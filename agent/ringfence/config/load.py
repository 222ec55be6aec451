# SPDX-License-Identifier: Apache-2.0
"""Reads a YAML file, RINGFENCE_* variables and flags into a checked Config, or reports all errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.config import values
from ringfence.config.keys import KEYS
from ringfence.config.model import Config
from ringfence.config.receivers import hosts_of_shared_headers, http_receivers
from ringfence.config.values import Key
from ringfence.errors import ConfigError, Problem
from ringfence.places import DEFAULT_FILE, DEFAULT_POLICIES

__all__ = ["DEFAULT", "check_variables", "load", "load_with_sources", "packaged_policies"]

#: the source of a value that is set nowhere
DEFAULT = "default"
#: the bundled policies: in a wheel, and in a checkout
_PACKAGED = (Path(__file__).parents[1] / "_policies", Path(__file__).parents[3] / "policies")
_BY_PATH = {key.path: key for key in KEYS}
#: variables that are no keys: of a cluster's service `ringfence` or `ringfence-NAME` (service links), of the
#: runtime, and of this project's tests
_OTHERS = re.compile(
    r"RINGFENCE_(?:"
    r"(?:[A-Z0-9_]+_)?SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)"
    r"|(?:[A-Z0-9_]+_)?PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?"
    r"|ENROLL_SOCKET|USERNS_DIR|USERNS_POOL"
    r"|FORCE|FUZZ|CLUSTER_CACHE|VM|(?:VM|TEST|ADVERSARY)_[A-Z0-9_]+"
    r")"
)
_SECTIONS = {key.path.split(".")[0] for key in KEYS if "." in key.path}


def packaged_policies() -> Path | None:
    """Returns the directory of the bundled policies (optional ones in `optional` below it), or None."""
    return next((path for path in _PACKAGED if path.is_dir()), None)


def load(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Config:
    """Returns the configuration from all three sources; raises ConfigError with one problem per line.

    `file` None means DEFAULT_FILE, which may be absent; a file that was named must exist. `flags` maps a
    key's path to the values given.
    """
    return load_with_sources(file, environment, flags)[0]


def load_with_sources(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Config, dict[str, str]]:
    """As `load`; also returns where each key's value is from: a file, a variable, a flag, or DEFAULT."""
    chosen: dict[str, Any] = {key.path: key.default for key in KEYS}
    sources = dict.fromkeys(chosen, DEFAULT)
    problems = _from_file(file, chosen, sources)
    problems += _from_environment(environment, chosen, sources)
    for path, words in (flags or {}).items():
        problems += _take_words(_BY_PATH[path], _BY_PATH[path].flag, words, chosen, sources)
    problems += _cross_checks(chosen)
    if chosen["policies"] == (DEFAULT_POLICIES,) and not DEFAULT_POLICIES.exists():
        chosen["policies"] = (packaged_policies() or DEFAULT_POLICIES,)
    if problems:
        raise ConfigError(
            "\n".join(str(problem) for problem in problems),
            hint="`ringfence agent --help` lists the keys; `ringfence agent --check` checks a configuration",
        )
    return Config(file=file or DEFAULT_FILE, **{key.field: chosen[key.path] for key in KEYS}), sources


def _from_file(file: Path | None, chosen: dict[str, Any], sources: dict[str, str]) -> list[Problem]:
    try:
        text = (file or DEFAULT_FILE).read_bytes()
    except FileNotFoundError:
        return [] if file is None else [Problem(str(file), 0, 0, "", "no such file")]
    except OSError as error:
        return [Problem(str(file or DEFAULT_FILE), 0, 0, "", f"cannot be read: {error.strerror}")]
    # Importing YAML takes 30 ms: only if there is a file.
    from ringfence.config.file import read

    def take(path: str, value: Any) -> str | None:
        key = _BY_PATH.get(path)
        if key is None:
            section, _, word = path.rpartition(".")
            return f"unknown key{values.suggest(word, _known_in(section))}"
        try:
            chosen[path] = key.parse(value)
        except ValueError as error:
            return str(error)
        sources[path] = str(file or DEFAULT_FILE)
        return None

    return read(str(file or DEFAULT_FILE), text, take, _SECTIONS)


def _known_in(section: str) -> list[str]:
    if section:
        return [key.path.rpartition(".")[2] for key in KEYS if key.path.rpartition(".")[0] == section]
    return sorted({key.path.split(".")[0] for key in KEYS})


def check_variables(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError if a RINGFENCE_ variable is unknown, for commands that read no configuration."""
    known = {key.variable for key in KEYS}
    rest = {name: value for name, value in environment.items() if name not in known}
    if problems := _from_environment(rest, {}, {}):
        raise ConfigError("\n".join(map(str, problems)), hint="`ringfence agent --help` lists the keys")


def _from_environment(
    environment: Mapping[str, str], chosen: dict[str, Any], sources: dict[str, str]
) -> list[Problem]:
    problems = []
    variables = {key.variable: key for key in KEYS}
    for name, value in sorted(environment.items()):
        if not name.startswith("RINGFENCE_"):
            continue
        if key := variables.get(name):
            value = value.rstrip("\n")  # a secret that was created from a file may end with a newline
            words = [word for word in value.split(",") if word] if key.many else [value]
            problems += _take_words(key, name, words, chosen, sources)
        elif not _OTHERS.fullmatch(name):
            import difflib

            near = difflib.get_close_matches(name[10:], [v[10:] for v in variables], n=1, cutoff=0.6)
            suggestion = f"; did you mean 'RINGFENCE_{near[0]}'?" if near else ""
            problems.append(Problem(name, 0, 0, "", f"unknown variable{suggestion}"))
    return problems


def _take_words(
    key: Key, where: str, words: Sequence[str], chosen: dict[str, Any], sources: dict[str, str]
) -> list[Problem]:
    try:
        chosen[key.path] = key.parse(list(words) if key.many else words[-1])
    except ValueError as error:
        return [Problem(where, 0, 0, "", str(error))]
    sources[key.path] = where
    return []


def _cross_checks(chosen: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if chosen["activity.rate"] > 0 and chosen["activity.burst"] < chosen["activity.rate"] // 100:
        problems.append(
            Problem("activity.burst", 0, 0, "", "less than 10 ms of activity.rate: all records would be lost")
        )
    if chosen["output"] is not None and chosen["output"] == chosen["socket"]:
        problems.append(Problem("output", 0, 0, "", "is the same path as `socket`"))
    if chosen["alerts.file"] is not None and chosen["alerts.file"] in (chosen["output"], chosen["socket"]):
        problems.append(Problem("alerts.file", 0, 0, "", "is the same path as `output` or `socket`"))
    http = [one for key in KEYS if key.parse is http_receivers for one in chosen[key.path]]
    if chosen["alerts.headers"] is not None and len(hosts := hosts_of_shared_headers(http)) > 1:
        text = f"would be sent to {', '.join(hosts)}: set `headers` (or off) for each receiver instead"
        problems.append(Problem("alerts.headers", 0, 0, "", text))
    problems += _same_addresses(chosen)
    return problems


def _same_addresses(chosen: Mapping[str, Any]) -> list[Problem]:
    problems, seen = [], {chosen["http.listen"]: "http.listen"}
    for key in ("health.listen", "page.listen"):
        address = chosen[key]
        if address is not None and address.port and address in seen:
            problems.append(Problem(key, 0, 0, "", f"is the same address as `{seen[address]}`"))
        seen.setdefault(address, key)
    return problems
