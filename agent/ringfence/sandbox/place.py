# SPDX-License-Identifier: Apache-2.0
"""The directory of one sandbox: STATE/sandboxes/NAME, with its record and the files mounted into it.

The starting process holds an flock on the directory until the start has finished (in the foreground:
until the workload has ended). The kernel releases it when the process exits, so a sweep can distinguish
a running start from a killed one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.request import Roots

__all__ = ["Place", "find", "like", "names", "new_name", "reserve"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A sandbox on disk."""

    def __init__(self, roots: Roots, name: str, record: dict[str, Any], lock: int = -1) -> None:
        # The store of its layer is that of its start, whatever store a later command names.
        self.roots = roots._replace(images=str(record.get("image_root", roots.images)))
        self.name = name
        self.record = record
        self.lock = lock

    @property
    def directory(self) -> str:
        """Its directory."""
        return f"{self.roots.state}/sandboxes/{self.name}"

    @property
    def output(self) -> str:
        """The output file of a detached sandbox: next to its root filesystem, not on a tmpfs."""
        return f"{self.roots.images}/containers/{self.name}/output"

    def save(self) -> None:
        """Writes the record to a temporary file and renames it."""
        from ringfence_runtime.images.records import write_json

        write_json(f"{self.directory}/sandbox.json", self.record, durable=False)

    def write(self, name: str, text: str) -> str:
        """Writes a small, world-readable file to the directory; returns its path."""
        path = f"{self.directory}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(fd, 0o644)
            file.write(text)
        return path

    def hold(self, *, wait: bool = False) -> bool:
        """Takes the lock. Returns False if the directory is gone, or (unless `wait`) a start is running."""
        try:
            self.lock = os.open(self.directory, _DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(self.lock), os.stat(self.directory)):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        self.release()
        return False

    def release(self) -> None:
        """Releases the lock."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def remove(self) -> None:
        """Removes the directory and releases the lock. The record is removed last: it lists what to undo."""
        try:
            for entry in sorted(os.listdir(self.directory), key=lambda entry: entry == "sandbox.json"):
                os.unlink(f"{self.directory}/{entry}")
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass
        self.release()

    def status(self) -> str:
        """Returns the runtime's status (running, paused, stopped, created), or `starting`, or `stopped`."""
        from ringfence_runtime.errors import Error
        from ringfence_runtime.state import Store

        try:
            return Store(self.roots.runtime).load(self.name).status()
        except Error:
            pass
        probe = Place(self.roots, self.name, self.record)
        if probe.hold():
            probe.release()
            return "stopped"
        return "starting"


def new_name(source: str) -> str:
    """Returns a descriptive name: the last part of the image's name and six hex digits."""
    word = source.rstrip("/").rpartition("/")[2].partition("@")[0].partition(":")[0]
    letters = "".join(
        letter for letter in word.lower() if letter.isascii() and (letter.isalnum() or letter in "_-")
    )
    return f"{letters.lstrip('-')[:32] or 'box'}-{secrets.token_hex(3)}"


def like(name: str) -> str:
    """Returns the glob of all names that `new_name` gives to the same source as this one."""
    return f"{name[:-6]}{'?' * 6}"


def reserve(roots: Roots, name: str, record: dict[str, Any]) -> Place:
    """Creates and locks a directory with its record. SandboxError if the name is in use."""
    from ringfence_runtime.state import check_id

    given = {"name": name, "created": time.time(), "image_root": roots.images, **record}
    place = Place(roots, check_id(name), given)
    os.makedirs(f"{roots.state}/sandboxes", 0o700, exist_ok=True)
    while True:
        try:
            os.mkdir(place.directory, 0o700)
        except FileExistsError:
            raise SandboxError(
                f"a sandbox {name} already exists",
                hint=f"ringfence rm {name} removes it; --name chooses another name",
            ) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise SandboxError(f"the name {name[:40]}... is too long") from None
        # A sweep may see the directory before it is locked, and remove it as a leftover of a crash.
        if place.hold(wait=True):
            break
    place.save()
    return place


def find(roots: Roots, name: str) -> Place:
    """Returns an existing sandbox by its name. PermissionError if only root can see whether it exists."""
    from ringfence_runtime.images.errors import StoreError
    from ringfence_runtime.images.records import read_json
    from ringfence_runtime.state import check_id

    directory = f"{roots.state}/sandboxes/{check_id(name)}"
    try:
        os.stat(f"{directory}/")
    except (FileNotFoundError, NotADirectoryError):
        raise SandboxError(f"there is no sandbox {name}", hint="ringfence ps --all lists them") from None
    try:
        record = read_json(f"{directory}/sandbox.json")
    except StoreError:
        record = None  # truncated by a full disk: its name is sufficient to remove it
    return Place(roots, name, record if isinstance(record, dict) else {"name": name, "created": 0})


def names(roots: Roots) -> list[str]:
    """Returns the names of all sandboxes."""
    try:
        return sorted(os.listdir(f"{roots.state}/sandboxes"))
    except FileNotFoundError:
        return []


def places(roots: Roots) -> Iterator[Place]:
    """Yields all sandboxes that still exist."""
    for name in names(roots):
        try:
            yield find(roots, name)
        except SandboxError:
            continue
