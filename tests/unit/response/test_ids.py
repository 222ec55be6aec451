# SPDX-License-Identifier: Apache-2.0
"""Ids of alerts are unique in a fleet."""

from __future__ import annotations

from ringfence.response.ids import AlertIds


def test_two_sources_of_an_agent_never_create_the_same_id() -> None:
    """For any numbers: `d` is also a hexadecimal digit."""
    sources = [AlertIds(), AlertIds("d"), AlertIds("p")]
    made = [source() for source in sources for _ in range(300)]
    assert len(set(made)) == 900


def test_ids_of_different_agents_do_not_collide() -> None:
    """Ten million starts share a salt less than once in 100,000 fleets (birthday bound)."""
    salt = AlertIds()().partition("-")[0]
    starts = 10**7
    assert starts**2 / 2 / 16 ** len(salt) < 1e-5
