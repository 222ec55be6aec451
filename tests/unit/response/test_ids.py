# SPDX-License-Identifier: Apache-2.0
"""Ids of alerts: nobody else's, in a fleet either."""

from __future__ import annotations

from ringfence.response.ids import AlertIds


def test_two_sources_of_an_agent_never_make_the_same() -> None:
    """Whatever the numbers are: `d` is a digit of theirs, too."""
    sources = [AlertIds(), AlertIds("d"), AlertIds("p")]
    made = [source() for source in sources for _ in range(300)]
    assert len(set(made)) == 900


def test_agents_of_a_fleet_do_not_meet() -> None:
    """Ten million starts share a salt less than once in 100,000 fleets (birthday bound)."""
    salt = AlertIds()().partition("-")[0]
    starts = 10**7
    assert starts**2 / 2 / 16 ** len(salt) < 1e-5
