# SPDX-License-Identifier: Apache-2.0
"""Containers that attack with their first instructions.

A few here, 1,000 by `python -m tools.bench first_act`.
"""

from __future__ import annotations

import pytest

from tests.support import force
from tools.bench.first_act_bench import QUICK, measure

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc", "crun", "podman", "gcc")]


def test_the_first_call_of_every_container_is_reported() -> None:
    """With plain runc, crun and Podman, each under the name of the container that made it."""
    force.need_root()
    measurement = measure(quick=True)
    assert measurement.notes == []
    assert [bar for bar in measurement.bars if not bar.ok] == []
    assert measurement.bars[1].value == sum(QUICK.values())
