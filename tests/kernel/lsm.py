# SPDX-License-Identifier: Apache-2.0
"""Shared by tests of files and LSM hooks: operands, and evade.c in a container with its outcome."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.abi import EventKind
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup

__all__ = ["FLAGS", "MAGIC", "NAME", "REFUSED", "TYPE", "Outcome", "evading", "mounted", "named"]

MAGIC, FLAGS, TYPE, NAME = range(4)  # operands of events on files


class Outcome(NamedTuple):
    """The outcome of an evasion: the errno of the call that failed, or 0."""

    error: int


REFUSED = Outcome(errno.EPERM)


def evading(cgroup: Cgroup, evade: str, *words: object, **options: Any) -> Outcome:
    """Run the evasion in the container and return its outcome."""
    argv = [evade, *map(str, words)]
    done = cgroup.run(argv, capture_output=True, text=True, **options)
    said = done.stdout.split()
    assert done.returncode == 0, done

    return Outcome(int(said[1])) if said[0] == "refused" else Outcome(0)


def named(name: str, event: EventKind = EventKind.FILE_OPEN) -> Rule:
    """Returns a rule that denies files of that name."""
    return Rule(event, "deny", {NAME: {name_hash(name.encode())}})


@contextmanager
def mounted(*words: object) -> Iterator[None]:
    """`mount` with these words, the last being the mount point; unmounted at the end."""
    subprocess.run(["mount", *map(str, words)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(Path(str(words[-1])))], check=True)
