# SPDX-License-Identifier: Apache-2.0
"""What the tests of LSM hooks share: fixtures/evade.c in a container, and what came of it."""

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

__all__ = ["MAGIC", "NAME", "REFUSED", "TYPE", "Came", "evading", "mounted", "named"]

MAGIC, FLAGS, TYPE, NAME = range(4)  # operands of file.open


class Came(NamedTuple):
    """What an evasion came to: the errno of the call that failed, 0 where none did."""

    error: int


REFUSED = Came(errno.EPERM)


def evading(cgroup: Cgroup, evade: str, *words: object, **options: Any) -> Came:
    """Run it in the container."""
    argv = [evade, *map(str, words)]
    done = cgroup.run(argv, capture_output=True, text=True, **options)
    said = done.stdout.split()
    assert done.returncode == 0, done

    return Came(int(said[1])) if said[0] == "refused" else Came(0)


def named(name: str, event: EventKind = EventKind.FILE_OPEN) -> Rule:
    """A rule that denies files of that name."""
    return Rule(event, "deny", {NAME: {name_hash(name.encode())}})


@contextmanager
def mounted(*words: object) -> Iterator[None]:
    """`mount` with these words, the last being the place; until the end."""
    subprocess.run(["mount", *map(str, words)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(Path(str(words[-1])))], check=True)
