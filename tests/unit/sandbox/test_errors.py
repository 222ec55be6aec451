# SPDX-License-Identifier: Apache-2.0
"""An operation that the kernel refuses an ordinary user gives a clear error with a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.cli.main import main
from ringfence.sandbox.errors import SandboxError, translated
from ringfence.sandbox.place import find
from ringfence.sandbox.request import Roots
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


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """The test runs without root's rights."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("words", "code"),
    [("logs web", 4), ("stop web", 4), ("rm web", 4), ("exec web true", 125), ("ps", 4)],
)
def test_a_sandbox_that_only_root_may_see_is_not_called_absent(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], words: str, code: int
) -> None:
    """An ordinary user learns that root is needed, by the message and the exit code."""
    (tmp_path / "sandboxes" / "web").mkdir(parents=True)
    (tmp_path / "sandboxes").chmod(0o700 if os.geteuid() == 0 else 0)
    command, *rest = words.split()
    main(
        [command, f"--state-root={tmp_path}/none", f"--image-root={tmp_path}", *rest]
    )  # imports: the user may not read the sources
    capsys.readouterr()
    request.getfixturevalue("ordinary_user")
    roots = [f"--state-root={tmp_path}", f"--image-root={tmp_path}"]
    assert main([command, *roots, *rest]) == code
    shown = capsys.readouterr().err
    assert "ermission denied" in shown
    assert shown.endswith("hint: this needs root: use sudo\n")


def test_an_absent_sandbox_is_called_so(tmp_path: Path) -> None:
    """Also where a file has its name."""
    (tmp_path / "sandboxes").mkdir()
    (tmp_path / "sandboxes" / "file").touch()
    roots = Roots(state=str(tmp_path), images=str(tmp_path))
    for name in ("none", "file"):
        with pytest.raises(SandboxError, match=f"there is no sandbox {name}"):
            find(roots, name)
