# SPDX-License-Identifier: Apache-2.0
"""The facts of a container: what later ones add, and what they do not change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ringfence.containers.model import Container, Enrichment, Facts

HEX = "0123456789abcdef" * 4
UID = "11111111-2222-3333-4444-555555555555"
POD = f"/kubepods/besteffort/pod{UID}/{HEX}"


@pytest.mark.parametrize(
    ("identifier", "short"),
    [(HEX, "0123456789ab"), ("rftest-a-long-name", "rftest-a-long-name"), (HEX + "0", HEX + "0"), ("", "")],
)
def test_ids_are_shortened_and_names_are_not(identifier: str, short: str) -> None:
    """An id has 64 digits."""
    assert Container(identifier, 1, 1).short_id == short


def test_a_path_adds_what_it_says() -> None:
    """The id, the runtime, the pod's uid and its class of quality."""
    found = Container.unnamed(1, 2).at(POD)
    assert (found.id, found.cgroup_path, found.pod_uid, found.qos) == (HEX, POD, UID, "besteffort")
    assert found.runtime is None


def test_a_path_does_not_replace_what_is_known() -> None:
    """Facts that came before it; nor is a second path taken."""
    known = Container.unnamed(1, 2, runtime="crun", pod_uid="other", qos="burstable")
    found = known.at(POD)
    assert (found.runtime, found.pod_uid, found.qos) == ("crun", "other", "burstable")
    assert found.at("/docker/" + "f" * 64) is found
    assert known.at("") is known
    assert Container.unnamed(1, 2).at("/docker/" + HEX).runtime == "docker"
    assert Container.unnamed(1, 2).at("/docker/" + HEX).qos is None


def test_the_first_process_stays_the_first() -> None:
    """A runtime's answer does not replace the one that the kernel named; without one, it is taken."""
    facts = Facts(Enrichment.DONE, pid=7)
    assert Container.unnamed(1, 2).enriched(facts).pid == 7
    assert Container.unnamed(1, 2, pid=5).enriched(facts).pid == 5
    assert Container.unnamed(1, 2, pid=5).enriched(replace(facts, pid=0)).pid == 5


@pytest.mark.parametrize(
    ("before", "by_runtime", "answer", "after"),
    [
        (Enrichment.PENDING, False, Enrichment.NONE, Enrichment.NONE),
        (Enrichment.PENDING, True, Enrichment.NONE, Enrichment.NONE),
        (Enrichment.DONE, False, Enrichment.PENDING, Enrichment.DONE),
        (Enrichment.NONE, False, Enrichment.PENDING, Enrichment.NONE),
        (Enrichment.DONE, False, Enrichment.GONE, Enrichment.GONE),
        (Enrichment.DONE, True, Enrichment.GONE, Enrichment.DONE),
        (Enrichment.NONE, True, Enrichment.DONE, Enrichment.DONE),
    ],
)
def test_what_was_found_stays_found(
    before: Enrichment, by_runtime: bool, answer: Enrichment, after: Enrichment
) -> None:
    """A later query that is not done yet changes nothing, nor one that fails after the runtime's report."""
    known = Container.unnamed(1, 2, enrichment=before, enrolled_by_runtime=by_runtime)
    assert known.enriched(Facts(answer)).enrichment is after
    assert known.settled is (before is not Enrichment.PENDING)
