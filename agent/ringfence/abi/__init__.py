# SPDX-License-Identifier: Apache-2.0
"""What probes and agent share: numbers, structs and maps, generated from the compiled probes.

tools/abi.py makes `generated` and `records` from the BTF. By hand are the labels (`names`) and the class of a
struct (`layout`). Only the agent needs `records`: see ringfence.events.
"""

from ringfence.abi.generated import *  # noqa: F403
from ringfence.abi.layout import Field, Layout, MapShape

__all__ = ["Field", "Layout", "MapShape"]
