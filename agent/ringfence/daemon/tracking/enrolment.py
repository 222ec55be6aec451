# SPDX-License-Identifier: Apache-2.0
"""Enrolls one container at the request of its runtime: writes its entry to the kernel's maps, and
reads it back.

The kernel may have enrolled the cgroup already when it was created. As in adoption, a slot is
written before its number is published, and the loser of a race returns its slot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ringfence.abi import LEVELS
from ringfence.containers.hierarchy import Hierarchy
from ringfence.containers.model import Facts
from ringfence.containers.registry import restored
from ringfence.daemon.parts import Loaded
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.tracking.enrolment_store import EnrolmentRecord, EnrolmentStore
from ringfence.errors import Error
from ringfence.policy import Policy

__all__ = ["Enrolment"]


class Enrolment:
    """Used by the loop only."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        loaded: Loaded,
        tracker: ContainerTracker,
        store: EnrolmentStore,
        never: frozenset[int] = frozenset(),
    ) -> None:
        """`never`: ids of cgroups that must not be enrolled, because they hold the agent."""
        self._hierarchy, self._store, self._tracker = hierarchy, store, tracker
        self._slots, self._generations = loaded.slots, loaded.generations
        self._device = os.stat(hierarchy.mount).st_dev
        self._never = never

    def suits(self, fd: int) -> bool:
        """Returns True if this is a directory of the hierarchy that identifies containers."""
        return os.fstat(fd).st_dev == self._device

    def enter(
        self, cgroup: int, facts: Facts, name: str, chosen: tuple[str, ...], *, remember: bool = True
    ) -> list[str]:
        """Enroll the cgroup behind a descriptor. Returns the names of the policies that apply to
        it.

        Raises Error if that is impossible, or if the kernel's entry differs afterwards.
        """
        self._check_names(chosen)
        cgroup_id = os.fstat(cgroup).st_ino
        if cgroup_id in self._never:
            raise Error("this cgroup holds the agent itself")
        path = self._path(cgroup)
        slot = self._slots.owner(cgroup_id)
        if slot is None:
            self._check_place(cgroup, path or str(cgroup_id))
            slot = self._enroll(cgroup_id, cgroup)
        value = self._slots.read(slot)
        if value is None or value.cgroup != cgroup_id:
            raise Error(f"the cgroup {path or cgroup_id} cannot be enrolled")
        container = restored(slot, value).at(path)
        known, policies = self._tracker.enroll(container, facts, name, chosen)
        written = self._slots.owner(cgroup_id) == slot and self._generations.confirm(slot, policies, known)
        if not written:
            raise Error("the kernel's entry does not match what was written")
        if remember:
            self._store.keep(EnrolmentRecord(cgroup_id, container.cgroup_path, name, facts, chosen))
        compiled = self._generations.compiled
        return [compiled.policies.policies[index].name for index in sorted(policies)] if compiled else []

    def _is_loaded(self, name: str) -> bool:
        compiled = self._generations.compiled
        known: Sequence[Policy] = compiled.policies.policies if compiled else ()
        return any(name == (policy.bound or policy.name) for policy in known)

    def enter_again(self, record: EnrolmentRecord, chosen: tuple[str, ...]) -> bool:
        """Enroll a container that an earlier agent had enrolled. Returns False if it is gone, or
        cannot be.
        """
        try:
            cgroup = os.open(
                self._hierarchy.directory(record.path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except OSError:
            return False
        try:
            if not record.path or os.fstat(cgroup).st_ino != record.cgroup_id:
                return False
            # A policy that is not loaded any more is no reason to drop the container.
            left = tuple(name for name in chosen if self._is_loaded(name))
            self.enter(cgroup, record.facts, record.name, left, remember=False)
        except Error:
            return False
        finally:
            os.close(cgroup)
        return True

    def _check_place(self, cgroup: int, name: str) -> None:
        """Raises Error if the cgroup is inside a container, or too deep: the kernel looks LEVELS
        down from the root.
        """
        at, root = os.dup(cgroup), os.stat(self._hierarchy.mount).st_ino
        try:
            for _ in range(LEVELS):
                above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = above
                here = os.fstat(at)
                if here.st_ino == root or here.st_dev != self._device:
                    return
                if self._slots.owner(here.st_ino) is not None:
                    raise Error(
                        f"the cgroup {name} is inside another container's cgroup",
                        hint="a container in a container is that container: give it a cgroup beside it",
                    )
        finally:
            os.close(at)
        raise Error(
            f"the cgroup {name} lies too deep",
            hint=f"at most {LEVELS} levels below the root of its hierarchy",
        )

    def _check_names(self, chosen: Sequence[str]) -> None:
        for name in chosen:
            if not self._is_loaded(name):
                raise Error(
                    f"no policy {name!r} is loaded", hint="`ringfence policy list` shows those that are"
                )

    def _enroll(self, cgroup_id: int, cgroup: int) -> int:
        slot = self._slots.take()
        if slot is None:
            raise Error("the table of containers is full", hint="containers.max of the configuration")
        self._slots.fill(slot, cgroup_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME), adopted=False)
        if not self._slots.bind(cgroup_id, slot):
            self._slots.put_back(slot)
            owner = self._slots.owner(cgroup_id)
            if owner is not None:
                return owner
        elif _alive(cgroup):
            return slot
        else:
            self._slots.free(slot, cgroup_id)
        raise Error("the container's cgroup is gone")

    def _path(self, cgroup: int) -> str:
        """Its path in the hierarchy; empty if it is not visible from here."""
        try:
            shown = os.readlink(f"/proc/self/fd/{cgroup}")
            path = "/" + os.path.relpath(shown, self._hierarchy.mount)
            same = os.stat(self._hierarchy.directory(path)).st_ino == os.fstat(cgroup).st_ino
        except OSError:
            return ""
        return path if same else ""


def _alive(cgroup: int) -> bool:
    try:
        os.stat("cgroup.procs", dir_fd=cgroup)
    except OSError:
        return False
    return True
