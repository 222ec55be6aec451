# SPDX-License-Identifier: Apache-2.0
"""An operation that the kernel refuses an ordinary user gives a clear error with a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from ringfence.sandbox.errors import SandboxError, translated
from ringfence_runtime.errors import Error as RuntimeProblem


def _by_the_kernel() -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "/run/x")


def _by_the_store() -> None:
    try:
        _by_the_kernel()
    except OSError:
        raise RuntimeProblem("cannot open the image store") from None


def _otherwise() -> None:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/run/x")


@pytest.mark.parametrize(
    ("act", "user", "code", "exit_code", "hinted"),
    [
        (_by_the_kernel, 1000, 1, 4, True),
        (_by_the_store, 1000, 1, 4, True),
        (_by_the_kernel, 1000, 0, 125, True),  # of a launch: a shell's codes
        (_by_the_kernel, 0, 1, 1, False),  # root gets the kernel's error
        (_otherwise, 1000, 1, 1, False),
    ],
)
def test_an_operation_that_needs_root_says_so(
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[], None],
    user: int,
    code: int,
    exit_code: int,
    hinted: bool,
) -> None:
    """By a hint, and by the code that the help names."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(SandboxError) as caught, translated(code):
        act()
    assert caught.value.exit_code == exit_code
    assert ("sudo" in caught.value.hint) is hinted
