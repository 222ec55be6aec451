# SPDX-License-Identifier: Apache-2.0
"""Policy files that containers bring, and wait."""

from __future__ import annotations

from ringfence.daemon.policies.container_policies import WAITING_MAX, ContainerPolicies, PolicyFile


def test_a_full_queue_rejects_the_next_file() -> None:
    """At once, with words; those that wait are served in their order."""
    answers: list[tuple[str, str]] = []
    policies = ContainerPolicies()
    for number in range(WAITING_MAX + 1):
        policies.wait(
            PolicyFile("f", str(number).encode(), lambda key, problem: answers.append((key, problem)))
        )
    assert policies.capacity == (WAITING_MAX, WAITING_MAX)
    assert answers == [("", "too many policy files wait: try again")]
    first = policies.next()
    assert first is not None
    assert first.data == b"0"
