# SPDX-License-Identifier: Apache-2.0
"""Control groups of version 2, version 1 and both at once (hybrid), behind one interface."""

from ringfence_linux.cgroups import Hierarchies
from ringfence_runtime.cgroup.group import Cgroup, enter
from ringfence_runtime.cgroup.hierarchy import detect

__all__ = ["Cgroup", "Hierarchies", "detect", "enter"]
