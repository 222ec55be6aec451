# SPDX-License-Identifier: Apache-2.0
"""What probes and agent share: numbers, structs and maps, generated from the compiled probes.

tools/abi.py makes `generated` and `records` from the BTF. By hand are the labels (`names`), the class of a
struct (`layout`), and the inner maps (`maps`). Only the agent needs `records`: see ringfence.events.
"""

from ringfence.abi.generated import *  # noqa: F403
from ringfence.abi.layout import Field, Layout, MapShape
from ringfence.abi.maps import INNER_MAPS, InnerMap

__all__ = ["INNER_MAPS", "Field", "InnerMap", "Layout", "MapShape"]
