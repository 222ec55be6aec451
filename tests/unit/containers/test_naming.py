# SPDX-License-Identifier: Apache-2.0
"""The names by which containers are printed and found."""

from __future__ import annotations

import pytest

from ringfence.containers.naming import full_name, is_called

ID = "ab12cd34" + "0" * 56


@pytest.mark.parametrize(
    ("word", "called"),
    [
        ("web", True), ("web-0", True), ("shop", True), ("shop/web-0", True), ("shop/web-0/web", True),
        ("ab12", True), ("ab1", False), ("other/web-0", False), ("shop/", False), ("/web-0", False),
        ("shop/web-0/", False), ("web-0/web", False), ("", False),
    ],
)  # fmt: skip
def test_a_container_is_called_by_its_pod_and_namespace(word: str, called: bool) -> None:
    """By its parts, too."""
    assert is_called(word, ID, "web", "shop", "web-0") is called
    assert not is_called("/", "ab12", "", "", "")


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ((ID, "web", "shop", "web-0"), "shop/web-0/web"),
        ((ID, "web", "", ""), "web"),
        ((ID, "", "shop", "web-0"), "shop/web-0"),
        ((ID, "", "", ""), "ab12cd340000"),
        (("rftest-eco-x1", "", "", ""), "rftest-eco-x1"),  # the name of a cgroup is not cut
        ((ID, "web", "shop", ""), "shop/web"),
    ],
)
def test_the_printed_name_is_taken_by_filters(facts: tuple[str, str, str, str], shown: str) -> None:
    """Also where a narrow column cut it; not another container's of the same length."""
    assert full_name(*facts) == shown
    assert is_called(shown, *facts)
    assert is_called(f"{shown[:4]}\u2026", *facts) or len(shown) < 4
    assert not is_called(f"other{shown[5:]}", *facts)


def test_a_name_that_was_cut_to_nothing_is_no_filter() -> None:
    """It would name all containers."""
    assert not is_called("\u2026", ID, "web", "shop", "web-0")
    assert not is_called("sho\u2026", ID, "web", "shop", "web-0")
