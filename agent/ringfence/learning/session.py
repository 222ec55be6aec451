# SPDX-License-Identifier: Apache-2.0
"""One run that is watched: to learn its fences, or to see what they refuse."""

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
from ringfence.sandbox.request import Request
from ringfence.sandbox.start import run
from ringfence_linux import enroll, mountinfo
from ringfence_linux.mountinfo import MountLine

__all__ = ["command_of", "learn", "verify"]

Say = Callable[[str], None]


class _Run:
    """A request run under a watcher of its own."""

    def __init__(self, request: Request, ask: Ask, follow: Follow) -> None:
        self._request, self._ask, self._follow = request, ask, follow
        self._mounts: list[MountLine] = []

    def go(self, warn: Say) -> tuple[int, Observed]:
        """Its status, and what was seen."""
        from ringfence_runtime.seal import ensure_sealed

        if self._request.detach:
            raise Error("a detached sandbox has no end that could be waited for", hint="leave out --detach")
        ensure_sealed()  # executes us again, so before there is a watcher
        with Watcher(self._ask, self._follow) as watcher, _environment(enroll.VARIABLE, str(watcher.enroll)):
            status = run(self._request, warn, warn, self._created)
            rows, lost = watcher.finish()
            return status, observe(rows, watcher.records, self._mounts, lost)

    def _created(self, pid: int) -> None:
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
    """Run it, and write the fences that it needs; gives the run's status."""
    request = request._replace(fences=request.fences._replace(require_agent=True))
    status, seen = _Run(request, ask, follow).go(warn)
    if not seen.calls:
        raise Error("nothing was seen of the run", hint="did the workload start?")
    granted = fences.capabilities(request.fences)
    name = re.sub(r"[^a-z0-9.-]+", "-", directory.name.lower().removesuffix(".d")).strip("-.")[:40] or "run"
    texts = files(seen, name, granted, fences.seccomp(request.fences))
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
        warn(f"{seen.lost} records were lost: something may be missing")
    return status


def command_of(directory: Path) -> tuple[list[str], str]:
    """The words of the run that was learned, and where it was begun."""
    record = _record(directory)
    words, where = record.get("words"), record.get("directory")
    if not isinstance(words, list) or not isinstance(where, str):
        raise Error(f"{directory}/run.json does not say what ran")
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
    """Run it under what was learned, and say what was refused: 1, or the run's status where nothing was."""
    under = request.fences._replace(
        learned=str(directory), policy=learned.policy(str(directory)), require_agent=True
    )
    status, seen = _Run(request._replace(fences=under), ask, follow).go(warn)
    record = _record(directory)
    found = list(refusals(seen, directory, record))
    for line in found:
        warn(line)
    if status != record.get("status"):
        warn(f"it ended with {status}, and with {record.get('status')} when it was learned")
        return status or 1
    if not found:
        warn("nothing was refused")
    return 1 if found else status


def refusals(seen: Observed, directory: Path, record: dict[str, Any]) -> Iterator[str]:
    """A line for each thing that the learned fences refused."""
    allowed = {name for rule in learned.seccomp(str(directory))["syscalls"] for name in rule["names"]}
    before = record.get("refused")
    before = before if isinstance(before, dict) else {}
    for name, counts in sorted(seen.refused.items()):
        times = sum(counts.values())
        if name not in allowed:
            yield f"seccomp refused {name}: {times} times, to {_who(counts)}"
        elif times > before.get(name, 0):
            more = times - before.get(name, 0)
            yield f"{name} was refused {more} times more than before, to {_who(counts)} (by Landlock?)"
    for name in learned.unused_capabilities(str(directory)):
        if asked := seen.capabilities_refused.get(name):
            yield f"{name} was needed and is not granted: {sum(asked.values())} times, to {_who(asked)}"
    for alert in seen.alerts:
        rule, details = alert.get("rule") or {}, alert.get("details") or {}
        about = ", ".join(f"{key} {value}" for key, value in details.items() if isinstance(value, (str, int)))
        yield f"policy rule {rule.get('id')}: {alert.get('event')} ({about[:200]}): {alert.get('outcome')}"


def _who(counts: Any) -> str:
    return ", ".join(name for name, _ in counts.most_common(4))
