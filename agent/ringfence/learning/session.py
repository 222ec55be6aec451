# SPDX-License-Identifier: Apache-2.0
"""An observed run: to learn its fences, or to verify what they deny."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence.child_agent import Ask
from ringfence.errors import Error
from ringfence.learning.observed import Observed, observe
from ringfence.learning.watcher import Follow, Watcher
from ringfence.learning.write import files, write
from ringfence.sandbox import fences, learned
from ringfence.sandbox.place import like
from ringfence.sandbox.request import Request
from ringfence.sandbox.start import run
from ringfence_linux import enroll, mountinfo
from ringfence_linux.mountinfo import MountLine

__all__ = ["command_of", "learn", "verify"]

Say = Callable[[str], None]


class _Run:
    """A request that runs under a private watcher."""

    def __init__(self, request: Request, ask: Ask, follow: Follow) -> None:
        self._request, self._ask, self._follow = request, ask, follow
        self._mounts: list[MountLine] = []
        self.name = ""
        """of the sandbox that ran"""

    def go(self, warn: Say) -> tuple[int, Observed]:
        """Runs the request; returns its exit code and the observed behaviour."""
        from ringfence_runtime.seal import ensure_sealed

        if self._request.detach:
            raise Error("a detached sandbox cannot be observed until its end", hint="remove --detach")
        ensure_sealed()  # restarts this process, so it must precede the watcher
        with Watcher(self._ask, self._follow) as watcher, _environment(enroll.VARIABLE, str(watcher.enroll)):
            status = run(self._request, warn, warn, self._created)
            rows, lost = watcher.finish()
            return status, observe(rows, watcher.records, self._mounts, lost)

    def _created(self, pid: int, name: str) -> None:
        self.name = name
        self._mounts = list(mountinfo.read(Path(f"/proc/{pid}")))


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def learn(
    request: Request, directory: Path, words: Sequence[str], ask: Ask, follow: Follow, warn: Say
) -> int:
    """Runs a request and writes the fences that it needs; returns the run's exit code."""
    request = request._replace(fences=request.fences._replace(require_agent=True))
    watched = _Run(request, ask, follow)
    status, seen = watched.go(warn)
    if not seen.calls:
        raise Error("no system call of the run was observed", hint="did the workload start?")
    granted = fences.capabilities(request.fences)
    name = re.sub(r"[^a-z0-9.-]+", "-", directory.name.lower().removesuffix(".d")).strip("-.")[:40] or "run"
    selected = request.name or like(watched.name)
    texts = files(seen, name, selected, granted, fences.seccomp(request.fences))
    record = {
        "words": list(words),
        "directory": os.getcwd(),
        "status": status,
        "refused": {call: sum(counts.values()) for call, counts in sorted(seen.refused.items())},
    }
    write(directory, texts, record)
    found = f"{len(seen.calls)} calls, {len(seen.capabilities)} capabilities, {len(seen.programs)} programs"
    warn(f"learned {found}: {directory}")
    if seen.lost:
        warn(f"{seen.lost} records were lost: the fences may be incomplete")
    return status


def command_of(directory: Path) -> tuple[list[str], str]:
    """Returns the command line of the learned run, and its working directory."""
    record = _record(directory)
    words, where = record.get("words"), record.get("directory")
    if not isinstance(words, list) or not isinstance(where, str):
        raise Error(f"{directory}/run.json does not contain the command of the run")
    words = [str(word) for word in words]
    return words, where


def _record(directory: Path) -> dict[str, Any]:
    try:
        record = json.loads((directory / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise Error(
            f"{directory}/run.json: {error}", hint="`ringfence run --learn DIR ...` writes it"
        ) from None
    return record if isinstance(record, dict) else {}


def verify(request: Request, directory: Path, ask: Ask, follow: Follow, warn: Say) -> int:
    """Runs a request under learned fences and reports what was denied.

    Returns 1 if something was denied, else the run's exit code.
    """
    under = request.fences._replace(
        learned=str(directory), policy=learned.policy(str(directory)), require_agent=True
    )
    status, seen = _Run(request._replace(fences=under), ask, follow).go(warn)
    record = _record(directory)
    found = list(refusals(seen, directory, record))
    for line in found:
        warn(line)
    if status != record.get("status"):
        warn(f"the exit code is {status}, but was {record.get('status')} when the run was learned")
        return status or 1
    if not found:
        warn("nothing was denied")
    return 1 if found else status


def refusals(seen: Observed, directory: Path, record: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each action that the learned fences denied."""
    allowed = {name for rule in learned.seccomp(str(directory))["syscalls"] for name in rule["names"]}
    before = record.get("refused")
    before = before if isinstance(before, dict) else {}
    for name, counts in sorted(seen.refused.items()):
        times = sum(counts.values())
        if name not in allowed:
            yield f"seccomp denied {name}: {times} times, for {_programs(counts)}"
        elif times > before.get(name, 0):
            more = times - before.get(name, 0)
            yield f"{name} was denied {more} times more than before, for {_programs(counts)} (by Landlock?)"
    for name in learned.unused_capabilities(str(directory)):
        if denied := seen.capabilities_refused.get(name):
            times = sum(denied.values())
            yield f"{name} was needed but is not granted: {times} times, for {_programs(denied)}"
    for alert in seen.alerts:
        rule, details = alert.get("rule") or {}, alert.get("details") or {}
        about = ", ".join(f"{key} {value}" for key, value in details.items() if isinstance(value, (str, int)))
        yield f"policy rule {rule.get('id')}: {alert.get('event')} ({about[:200]}): {alert.get('outcome')}"


def _programs(counts: Any) -> str:
    return ", ".join(name for name, _ in counts.most_common(4))
