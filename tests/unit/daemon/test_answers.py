# SPDX-License-Identifier: Apache-2.0
"""Requests of the local socket, by the name of their operation."""

from __future__ import annotations

import pytest

from ringfence.daemon.queries.status import Answers
from ringfence.errors import Error


def test_an_operation_is_found_by_its_name() -> None:
    """It gets the request."""
    assert Answers({"double": lambda request: request["n"] * 2}).answer("double", {"n": 4}) == 8


def test_an_unknown_operation_is_an_error_for_the_client() -> None:
    """With its name, escaped: the client chose it."""
    with pytest.raises(Error) as caught:
        Answers({}).answer("\x1b[2J", {})
    assert str(caught.value) == "no such request: \\x1b[2J"
