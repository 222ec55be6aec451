# SPDX-License-Identifier: Apache-2.0
"""Effects of an attack, as they are seen from outside of the container."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.adversary.world import Round

__all__ = ["Effect", "both", "device_held", "exists", "gone", "in_namespace", "mode_is", "received"]
__all__ += ["secret_shown", "signalled", "written", "xattr_set"]

Effect = Callable[[Round], bool]


def secret_shown(one: Round) -> bool:
    """The host's secret is in the attacker's output."""
    return one.world.secret in one.attempt.output


def written(path: str) -> Effect:
    """The text of the attacker is in a file of the host."""

    def look(one: Round) -> bool:
        with contextlib.suppress(OSError):
            return one.token in Path(path.format_map(one.words())).read_text(errors="replace")
        return False

    return look


def exists(path: str) -> Effect:
    """Something has that name."""
    return lambda one: os.path.lexists(path.format_map(one.words()))


def gone(path: str) -> Effect:
    """Nothing has that name any more."""
    return lambda one: not os.path.lexists(path.format_map(one.words()))


def mode_is(path: str, mode: int) -> Effect:
    """The file has these permissions."""
    return lambda one: stat.S_IMODE(os.lstat(path.format_map(one.words())).st_mode) == mode


def both(*effects: Effect) -> Effect:
    """All of them."""
    return lambda one: all(effect(one) for effect in effects)


def xattr_set(path: str, name: str) -> Effect:
    """The file has an attribute."""
    return lambda one: name in os.listxattr(path.format_map(one.words()))


def received(one: Round) -> bool:
    """A server of the host received the attacker's text."""
    return one.world.servers.got(one.token)


def signalled(one: Round) -> bool:
    """A signal ended the victim."""
    return one.victim.process.poll() is not None


def in_namespace(kind: str, pid: str) -> Effect:
    """A process of the container is in that process's namespace, and was not."""

    def look(one: Round) -> bool:
        wanted = os.readlink(f"/proc/{pid.format_map(one.words())}/ns/{kind}")
        for mine in one.hostile.pids():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{mine}/ns/{kind}") == wanted:
                    return True
        return False

    return look


def device_held(major: int) -> Effect:
    """A process of the container has a character device with that major number open."""

    def look(one: Round) -> bool:
        for pid in one.hostile.pids():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == major:
                        return True
        return False

    return look
