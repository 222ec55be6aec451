# SPDX-License-Identifier: Apache-2.0
"""Attempts by technique: every label is bounded, and series are there before they are needed."""

from __future__ import annotations

from ringfence.export.attempts import Attempts


def samples(attempts: Attempts) -> dict[tuple[str, str, str], float]:
    """The family's samples by technique, namespace, outcome."""
    (family,) = attempts.collect()
    return {
        (one.labels["technique"], one.labels["namespace"], one.labels["outcome"]): one.value
        for one in family.samples
    }


def test_each_technique_of_a_rule_counts() -> None:
    """And what is of no container is of no namespace."""
    attempts = Attempts()
    attempts.add(("T1611", "T1068"), "shop", "denied")
    attempts.add(("T1611",), None, "seen")
    assert samples(attempts) == {
        ("T1611", "shop", "denied"): 1,
        ("T1068", "shop", "denied"): 1,
        ("T1611", "", "seen"): 1,
    }


def test_what_is_foreseen_is_zero_and_loses_nothing() -> None:
    """A reload does not set a count back."""
    attempts = Attempts()
    attempts.add_series("T1611", "denied")
    assert samples(attempts) == {("T1611", "", "denied"): 0}
    attempts.add(("T1611",), "", "denied")
    attempts.add_series("T1611", "denied")
    assert samples(attempts) == {("T1611", "", "denied"): 1}


def test_a_cluster_with_too_many_namespaces_is_summed() -> None:
    """200 namespaces have series; what the others do is not lost."""
    attempts = Attempts()
    for number in range(300):
        attempts.add(("T1611",), f"ns-{number}", "denied")
    found = samples(attempts)
    assert len(found) == 201
    assert found["T1611", "other", "denied"] == 100
