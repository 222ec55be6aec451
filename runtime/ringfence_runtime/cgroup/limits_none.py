# SPDX-License-Identifier: Apache-2.0
"""Limits of a container that has no cgroup: none can be set, and so each is an error."""

from __future__ import annotations

from ringfence_runtime import log
from ringfence_runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec.resources import Resources

__all__ = ["apply"]


def apply(group: Cgroup, resources: Resources, *, update: bool = False) -> None:
    """Refuse whatever is asked for. Rules for devices need no cgroup in a user namespace: it lets nobody make
    or open a node of its own (mount(2), SB_I_NODEV), and elsewhere they are missed.
    """
    for member in resources.given:
        if member != "devices" or update:
            raise SpecError(
                f"{resources.path}.{member}", "the container has no cgroup, so it cannot be limited"
            )
    if not resources.in_userns:
        log.warn("the container has no cgroup: nothing keeps it from the devices that it has nodes of")
