# SPDX-License-Identifier: Apache-2.0
"""Limits of a container without a cgroup: none can be set, so each is an error."""

from __future__ import annotations

from ringfence_runtime import log
from ringfence_runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec.resources import Resources

__all__ = ["apply"]


def apply(group: Cgroup, resources: Resources, *, update: bool = False) -> None:
    """Refuses every limit. Rules for devices need no cgroup in a user namespace.

    There no process can create or open a device node (mount(2), SB_I_NODEV); elsewhere a warning is logged.
    """
    for member in resources.given:
        if member != "devices" or update:
            raise SpecError(
                f"{resources.path}.{member}", "the container has no cgroup, so it cannot be limited"
            )
    if not resources.in_userns:
        log.warn("the container has no cgroup: it can use all devices that it has nodes of")
