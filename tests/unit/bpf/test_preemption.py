# SPDX-License-Identifier: Apache-2.0
"""How the kernel preempts itself, from the texts that kernels show."""

from __future__ import annotations

import pytest

from ringfence.bpf import kernel_build, preemption
from ringfence.bpf.kernel_build import is_link_optimised, parse
from ringfence.bpf.preemption import Preemption, from_build, from_debugfs

DYNAMIC = "CONFIG_PREEMPT_DYNAMIC=y\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none (voluntary) full \n", "voluntary"),
        ("(none) voluntary full \n", "none"),
        ("none voluntary full (lazy)\n", "lazy"),
        ("(full) lazy \n", "full"),
        ("none (undefined) full \n", "unknown"),
        ("none voluntary full\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_debugfs_shows_the_current_model_in_parentheses(text: str, expected: str) -> None:
    """A word that this agent does not know is unknown."""
    assert from_debugfs(text) is Preemption(expected)


@pytest.mark.parametrize(
    ("text", "command_line", "expected"),
    [
        ("CONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n", "", "voluntary"),
        ("CONFIG_PREEMPT_NONE=y\n", "preempt=full", "none"),  # not dynamic: the parameter has no effect
        ("CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT=y\nCONFIG_PREEMPTION=y\n", "quiet", "full"),
        ("CONFIG_PREEMPT_LAZY=y\nCONFIG_PREEMPTION=y\n", "", "lazy"),
        ("CONFIG_PREEMPT_LAZY=y\nCONFIG_PREEMPT_RT=y\n", "", "full"),
        (DYNAMIC + "CONFIG_PREEMPT_VOLUNTARY=y\n", "quiet", "voluntary"),
        (DYNAMIC + "CONFIG_PREEMPT_VOLUNTARY=y\n", "preempt=full quiet", "full"),
        (DYNAMIC + "CONFIG_PREEMPT=y\n", "preempt=full preempt=none", "none"),
        (DYNAMIC + "CONFIG_PREEMPT=y\n", "preempt=wrong", "full"),
        ("CONFIG_PREEMPT_COUNT=y\n", "", "unknown"),
        ("", "preempt=none", "unknown"),
    ],
)
def test_a_build_has_a_model_that_the_boot_parameter_may_change(
    text: str, command_line: str, expected: str
) -> None:
    """Only of a kernel with CONFIG_PREEMPT_DYNAMIC; the last parameter counts."""
    assert from_build(parse(text), command_line) is Preemption(expected)


def test_only_kernels_that_never_preempt_never_skip() -> None:
    """Unknown counts as preemptible."""
    assert {model for model in Preemption if not model.may_skip} == {Preemption.NONE, Preemption.VOLUNTARY}


def test_the_configured_model_is_used_where_the_kernel_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel shows comes first: debugfs, then the build."""
    monkeypatch.setattr(preemption, "_debugfs", lambda: "")
    monkeypatch.setattr(kernel_build, "read", dict)
    assert preemption.find() is Preemption.UNKNOWN
    assert preemption.find(Preemption.NONE) is Preemption.NONE
    monkeypatch.setattr(kernel_build, "read", lambda: {"PREEMPT": "y"})
    assert preemption.find(Preemption.NONE) is Preemption.FULL
    monkeypatch.setattr(preemption, "_debugfs", lambda: "none voluntary full (lazy)")
    assert preemption.find(Preemption.NONE) is Preemption.LAZY


def test_options_that_are_not_set_are_absent() -> None:
    """They are comments."""
    text = '# CONFIG_SECURITY_PATH is not set\nCONFIG_LTO_NONE=y\nCONFIG_CC_VERSION_TEXT="gcc = 12"\n'
    assert parse(text) == {"LTO_NONE": "y", "CC_VERSION_TEXT": '"gcc = 12"'}


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        ("CONFIG_LTO_CLANG=y\n", "Linux version 6.12 (clang version 19)", True),
        ("CONFIG_LTO_NONE=y\n", "Linux version 6.12 (clang version 19)", False),
        ("", "Linux version 6.12 (Debian clang version 19)", True),
        ("", "Linux version 6.12 (gcc-12 (Debian 12.2.0))", False),
    ],
)
def test_a_kernel_of_clang_may_lack_functions(text: str, version: str, *, expected: bool) -> None:
    """Assumed of each kernel of Clang whose configuration is not known."""
    assert is_link_optimised(parse(text), version) is expected
