# SPDX-License-Identifier: Apache-2.0
"""docs/reference/coverage.md is generated from measurements, and has the outcome of every row."""

from __future__ import annotations

import re

from tests.benign.workloads import WORKLOADS
from tests.escape.cases import CASES, TECHNIQUES
from tools.vm.benign import saved_benign
from tools.vm.catalogue import DEFAULT, KERNELS
from tools.vm.coverage import COLUMNS, HOST, ORDER, saved, saved_cost
from tools.vm.coverage_page import PAGE, page, summary
from tools.vm.coverage_svg import PICTURE, picture, state
from tools.vm.reasons import ABSENT, EVERYWHERE, UNSEEN, WITHOUT_LSM
from tools.vm.suite import ROOT, SHARES

RESULTS = saved()


def test_the_page_is_what_was_measured() -> None:
    """Generate it again: `python -m tools.vm coverage --render`."""
    assert PAGE.read_text() == page(RESULTS, saved_benign(), saved_cost())


def test_the_readme_has_the_same_figures() -> None:
    """It shows a kernel of each tier: with BPF-LSM, with hooks only, with neither."""
    section = (ROOT / "README.md").read_text().partition("\n## What it stops\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    assert {row.split(",")[1].split("|")[0].strip() for row in rows} == {
        "BPF-LSM", "hooks without BPF-LSM", "no BPF-LSM",
    }  # fmt: skip
    assert set(rows) <= set(summary(RESULTS))


def test_the_function_tier_decides_as_bpf_lsm() -> None:
    """The same outcome for each attack on the same kernel, with and without `bpf` in its list of LSMs."""
    found = {result["name"]: result for result in RESULTS}
    pairs = [(name, name.removesuffix("-hook")) for name in found if name.endswith("-hook")]
    assert pairs
    for hooked, plain in pairs:
        of = [
            {
                (case["rule"], case["attack"]): (case["outcome"], case["mechanism"].replace("hook", "lsm"))
                for case in found[name]["cases"]
            }
            for name in (hooked, plain)
        ]
        assert any(case["mechanism"] == "hook" for case in found[hooked]["cases"])
        assert of[0] == of[1], hooked


def test_the_picture_is_what_was_measured() -> None:
    """The same command writes it."""
    assert PICTURE.read_text() == picture(RESULTS)


def test_a_square_shows_the_weaker_way_to_stop_and_what_is_only_seen() -> None:
    """No attack that gets through is hidden behind one that is stopped."""

    def shown(*cases: tuple[str, bool]) -> tuple[str, bool]:
        found = [{"rows": [1], "outcome": outcome, "optional": optional} for outcome, optional in cases]
        return state(1, {"cases": [*found, {"rows": [2], "outcome": "seen", "optional": False}]})

    assert shown(("denied", False), ("denied", False)) == ("denied", False)
    assert shown(("denied", False), ("killed", False)) == ("killed", False)
    assert shown(("denied", False), ("seen", False)) == ("denied", True)
    assert shown(("killed", False), ("blind", False)) == ("killed", True)
    assert shown(("denied", False), ("seen", True)) == ("denied", False)
    assert shown(("seen", True)) == ("seen", False)
    assert shown(("absent", False), ("denied", False)) == ("denied", False)
    assert shown(("absent", False)) == ("none", False)


def test_the_kernels_of_the_matrix_are_on_the_page() -> None:
    """The machine's own kernel, and those that every check boots."""
    assert ORDER[-1] == HOST
    assert {column.kernel for column in COLUMNS.values()} == set(KERNELS)
    assert {HOST, *DEFAULT} <= {str(result["name"]) for result in RESULTS}


def test_every_row_is_on_the_page() -> None:
    """With its number and its title, once."""
    text = PAGE.read_text()
    for technique in TECHNIQUES:
        assert text.count(f"\n| {technique.row} | {technique.title} |") == 1, technique


def test_every_attack_was_run_on_every_kernel() -> None:
    """A new or changed attack must be measured."""
    wanted = {(case.rule, case.tried) for case in CASES}
    for result in RESULTS:
        assert {(case["rule"], case["attack"]) for case in result["cases"]} == wanted, result["name"]


def test_no_row_is_unseen() -> None:
    """With BPF-LSM; without it, the rules that need it are blind, and one row is left to runtimes."""
    for result in RESULTS:
        blind = {case["rule"] for case in result["cases"] if case["outcome"] == "blind"}
        untried = {case["rule"] for case in result["cases"] if case["outcome"] == "untried"}  # in guests only
        assert blind == (set(UNSEEN) - untried if result["name"] == HOST else set()), result["name"]
        reported = {row for case in result["cases"] if case["outcome"] != "blind" for row in case["rows"]}
        missing = set(range(1, 64)) - reported
        assert missing == ({42} if result["name"] == HOST else set()), result["name"]


def test_what_is_not_stopped_has_a_reason() -> None:
    """For rules that only alert, that deny only with BPF-LSM, or that need it. No reason is unused."""
    assert set(EVERYWHERE) == {case.rule for case in CASES if case.with_lsm == "seen"}
    assert set(WITHOUT_LSM) == {case.rule for case in CASES if case.outcome == "seen" and case.lsm}
    assert set(UNSEEN) == {case.rule for case in CASES if case.outcome == "blind"}


def test_an_attack_is_stopped_wherever_it_can_be() -> None:
    """With BPF-LSM, only rules without a denial do not stop their attack."""
    for result in RESULTS:
        if result["name"] == HOST:
            continue
        through = {case["rule"] for case in result["cases"] if case["outcome"] == "seen"}
        assert through <= set(EVERYWHERE), result["name"]


def test_what_was_absent_has_a_reason() -> None:
    """The file or the call that the kernel lacks."""
    for result in RESULTS:
        for case in result["cases"]:
            known = [word for word in ABSENT if word in case["attack"].split()]
            if case["outcome"] == "absent":
                assert known, case["attack"]
            if case["outcome"] == "untried":
                assert known or case["note"], case["attack"]


def test_benign_workloads_had_no_false_positive() -> None:
    """Every workload of the study, on every kernel of the checks."""
    found = saved_benign()
    assert {HOST, *(name for name in DEFAULT if "tests/benign" in SHARES[name])} <= set(found)
    for name, one in found.items():
        assert {workload.name for workload in WORKLOADS} <= set(one["workloads"]), name
        assert [work for work, what in one["workloads"].items() if what == "stopped"] == [], name
        assert name == HOST or "not here" not in one["workloads"].values()
