# SPDX-License-Identifier: Apache-2.0
"""The order of severities, which every filter shares."""

from __future__ import annotations

import pytest

from ringfence.severity import SEVERITIES, at_least, number_of


def test_each_is_at_least_the_ones_before_it() -> None:
    """info, low, medium, high, critical."""
    for low, word in enumerate(SEVERITIES):
        assert [at_least(other, word) for other in SEVERITIES] == [False] * low + [True] * (5 - low)


@pytest.mark.parametrize("word", ["", None, 3, "CRITICAL", ["high"], {}])
def test_an_unknown_severity_passes_every_filter_and_counts_as_high(word: object) -> None:
    """An alert of another version must not vanish."""
    assert at_least(word, "critical")
    assert number_of(word) == number_of("high") == 4
