# SPDX-License-Identifier: Apache-2.0
"""The last set of policy files that was in force, kept on the node's disk (`policies_kept`).

An agent that starts with a broken set uses it, and says so: otherwise one mistake would leave every
node unguarded that boots before it is mended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence import log
from ringfence.errors import PolicyError
from ringfence.export.escape import escape
from ringfence.policy import CompiledPolicies, PolicySet, load_bytes
from ringfence.policy.probe_rules import ProbeWords
from ringfence.policy.reader import expand
from ringfence_linux.atomicfile import replace_file

__all__ = ["FirstSet", "LastGood"]

_MAX_BYTES = 64 << 20
_SHOWN = 20


class FirstSet(NamedTuple):
    """The set that an agent starts with. `problems`: those of the files, if the kept set is used."""

    compiled: CompiledPolicies
    problems: Sequence[str] = ()


class LastGood:
    """One file, written as a whole. Without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._log = log.get_logger("policies")

    def first(
        self, load: Callable[[], CompiledPolicies], compiled: Callable[[PolicySet], CompiledPolicies],
        probes: Mapping[str, ProbeWords],
    ) -> FirstSet:  # fmt: skip
        """Returns what `load` returns; if the files are refused, the kept set.

        Raises PolicyError if there is none.
        """
        try:
            return FirstSet(load())
        except PolicyError as error:
            problems = [escape(str(problem)) for problem in error.problems]
            kept = self._read(probes)
            if kept is None:
                raise
            found = FirstSet(compiled(kept), problems)
            self._log.error(
                "policies refused; the last good set of this node is used",
                digest=kept.digest,
                problems=problems[:_SHOWN],
                count=len(problems),
            )
            return found

    def keep(self, paths: Sequence[Path], digest: str, probes: Mapping[str, ProbeWords]) -> None:
        """Keeps the files, if they still hold the set with this digest. A failure is logged."""
        if self._path is None or not digest:
            return
        try:
            files, problems = expand(list(paths))
            texts = {str(path): path.read_bytes().decode() for path in files}
            changed = problems or load_bytes(_encoded(texts), probes).digest != digest
            if not changed:
                self._write(json.dumps(texts).encode())
        except (OSError, ValueError, PolicyError) as error:
            self._log.warning("the policies cannot be kept for the next start", error=escape(str(error)))

    def _write(self, data: bytes) -> None:
        assert self._path is not None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, data, durable=True)

    def _read(self, probes: Mapping[str, ProbeWords]) -> PolicySet | None:
        """Returns the kept set; None if there is none, or if it is unusable."""
        if self._path is None:
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                texts = json.loads(file.read(_MAX_BYTES))
            if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
                raise ValueError("it is not a set of files")
            return load_bytes(_encoded(texts), probes)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, PolicyError) as error:
            self._log.error("the last good set of policies is unusable", error=escape(str(error)))
            return None


def _encoded(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items()}
