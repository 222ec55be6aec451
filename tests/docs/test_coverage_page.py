# SPDX-License-Identifier: Apache-2.0
"""docs/coverage.md is written from measurements, and says of every row what became of it."""

from __future__ import annotations

from tests.benign.workloads import WORKLOADS
from tests.escape.cases import CASES, TECHNIQUES
from tools.vm.benign import saved_benign
from tools.vm.catalogue import DEFAULT, KERNELS
from tools.vm.coverage import HOST, ORDER, saved, saved_cost
from tools.vm.coverage_page import PAGE, page
from tools.vm.reasons import ABSENT, EVERYWHERE, UNSEEN, WITHOUT_LSM
from tools.vm.suite import SHARES

RESULTS = saved()


def test_the_page_is_what_was_measured() -> None:
    """Write it again: `python -m tools.vm coverage --render`."""
    assert PAGE.read_text() == page(RESULTS, saved_benign(), saved_cost())


def test_the_kernels_of_the_matrix_are_there() -> None:
    """The machine's own, and those that every check boots."""
    assert set(ORDER) == {HOST, *KERNELS}
    assert {HOST, *DEFAULT} <= {str(result["name"]) for result in RESULTS}


def test_every_row_is_on_the_page() -> None:
    """With its number and its title, once."""
    text = PAGE.read_text()
    for technique in TECHNIQUES:
        assert text.count(f"\n| {technique.row} | {technique.title} |") == 1, technique


def test_every_attack_was_run_on_every_kernel() -> None:
    """An attack that is new, or changed, is to be measured."""
    wanted = {(case.rule, case.tried) for case in CASES}
    for result in RESULTS:
        assert {(case["rule"], case["attack"]) for case in result["cases"]} == wanted, result["name"]


def test_no_row_goes_unseen() -> None:
    """Where BPF-LSM decides; without it, what is known to it alone, and one row is a runtime's business."""
    for result in RESULTS:
        blind = {case["rule"] for case in result["cases"] if case["outcome"] == "blind"}
        assert blind == (set(UNSEEN) if result["name"] == HOST else set()), result["name"]
        told = {row for case in result["cases"] if case["outcome"] != "blind" for row in case["rows"]}
        missing = set(range(1, 64)) - told
        assert missing == ({42} if result["name"] == HOST else set()), result["name"]


def test_what_is_not_stopped_has_a_reason() -> None:
    """Of rules that only tell, deny where BPF-LSM decides, or are known to it alone. None is left over."""
    assert set(EVERYWHERE) == {case.rule for case in CASES if case.with_lsm == "seen"}
    assert set(WITHOUT_LSM) == {case.rule for case in CASES if case.outcome == "seen" and case.lsm}
    assert set(UNSEEN) == {case.rule for case in CASES if case.outcome == "blind"}


def test_what_is_stopped_somewhere_is_stopped_wherever_it_can_be() -> None:
    """Where BPF-LSM decides, only rules that do not ask to deny let their attack through."""
    for result in RESULTS:
        if result["name"] == HOST:
            continue
        through = {case["rule"] for case in result["cases"] if case["outcome"] == "seen"}
        assert through <= set(EVERYWHERE), result["name"]


def test_what_was_absent_has_a_reason() -> None:
    """The file or the call that the kernel does not have."""
    for result in RESULTS:
        for case in result["cases"]:
            known = [word for word in ABSENT if word in case["attack"].split()]
            if case["outcome"] == "absent":
                assert known, case["attack"]
            if case["outcome"] == "untried":
                assert known or case["note"], case["attack"]


def test_honest_work_was_left_alone_where_a_check_does_it() -> None:
    """Every workload of the study, and none of them met."""
    found = saved_benign()
    assert {HOST, *(name for name in DEFAULT if "tests/benign" in SHARES[name])} <= set(found)
    for name, one in found.items():
        assert {workload.name for workload in WORKLOADS} <= set(one["workloads"]), name
        assert [work for work, what in one["workloads"].items() if what == "stopped"] == [], name
        assert name == HOST or "not here" not in one["workloads"].values()
