# SPDX-License-Identifier: Apache-2.0
"""Containers whose first instructions are an attack: few here, 1,000 by `python -m tools.bench first_act`."""

from __future__ import annotations

import pytest

from tests.support import force
from tools.bench.first_act_bench import QUICK, measure

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc", "crun", "podman", "gcc")]


def test_the_first_act_of_every_container_is_met() -> None:
    """By plain runc, crun and Podman, under the name of the container that did it."""
    force.need_root()
    measurement = measure(quick=True)
    assert measurement.notes == []
    assert [bar for bar in measurement.bars if not bar.ok] == []
    assert measurement.bars[1].value == sum(QUICK.values())
