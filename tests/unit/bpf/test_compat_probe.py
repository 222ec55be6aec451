# SPDX-License-Identifier: Apache-2.0
"""Which 32-bit and x32 calls a kernel serves, and whether a kprobe sees all of them."""

from __future__ import annotations

import os

import pytest

from ringfence import compiled
from ringfence.bpf import compat_probe
from ringfence.bpf.compat_probe import NarrowCalls, find
from ringfence_linux.architecture import architecture
from tests.support import force

ENTRY_32, ENTRY_X32 = "ia32_sys_call", "x32_sys_call"
BOTH = frozenset({ENTRY_32, ENTRY_X32})
SERVED, REFUSED, UNTRIED, KILLED = 0, 1, -1, -31


def _kernel(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, int], hits: dict[str, int], compat: int | None = 1
) -> None:
    """A fake of the kernel: how the caller of each ABI ends, and the hits of functions with a kprobe."""

    def kprobe(function: str, *, counts: bool) -> int:
        assert counts
        if function not in hits:
            raise FileNotFoundError(function)
        reader, writer = os.pipe()
        os.write(writer, hits[function].to_bytes(8, "little"))
        os.close(writer)
        return reader

    class Machine:
        def __init__(self) -> None:
            self.compat = compat

    monkeypatch.setattr(compat_probe, "architecture", Machine)
    monkeypatch.setattr(compat_probe, "kprobe_behind_entry", kprobe)
    monkeypatch.setattr(compat_probe, "_status", status.__getitem__)


@pytest.mark.parametrize(
    ("status", "hits", "expected"),
    [
        ({"32": SERVED, "x32": REFUSED}, {ENTRY_32: 1}, NarrowCalls(True, frozenset({ENTRY_32}))),
        ({"32": SERVED, "x32": REFUSED}, {ENTRY_32: 0}, NarrowCalls(True)),
        ({"32": SERVED, "x32": REFUSED}, {}, NarrowCalls(True)),
        ({"32": SERVED, "x32": SERVED}, {ENTRY_32: 1, ENTRY_X32: 1}, NarrowCalls(True, BOTH)),
        ({"32": SERVED, "x32": SERVED}, {ENTRY_32: 1}, NarrowCalls(True)),
        ({"32": REFUSED, "x32": SERVED}, {ENTRY_X32: 1}, NarrowCalls(True, frozenset({ENTRY_X32}))),
        ({"32": REFUSED, "x32": REFUSED}, {ENTRY_32: 0}, NarrowCalls(False)),
        ({"32": UNTRIED, "x32": UNTRIED}, {ENTRY_32: 0}, NarrowCalls(True)),
        ({"32": KILLED, "x32": REFUSED}, {ENTRY_32: 0}, NarrowCalls(True)),
    ],
    ids=[
        "counted", "elsewhere", "no kprobe", "both", "one of both", "x32", "none", "no program", "killed",
    ],
)  # fmt: skip
def test_calls_pass_a_function_only_if_each_that_is_served_was_counted_there(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, int], hits: dict[str, int], expected: NarrowCalls
) -> None:
    """What could not be tried counts as possible, and as passing elsewhere."""
    _kernel(monkeypatch, status, hits)
    assert find(kprobes=True) == expected
    assert find(kprobes=False) == NarrowCalls(expected.possible)


def test_an_architecture_without_their_numbers_watches_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run there."""
    _kernel(monkeypatch, {}, {}, compat=None)
    assert find(kprobes=True) == NarrowCalls(False)


def test_the_program_makes_the_call() -> None:
    """By the real program: 32-bit calls are served exactly where the kernel has them (x86)."""
    if not (compiled.directory() / "attacks").exists():
        force.missing("probes", "the attack program is not built: make build")
    if architecture().compat is None:
        force.elsewhere("no 32-bit calls of this architecture are watched")
    assert compat_probe._status("32") in (SERVED, REFUSED)
    assert compat_probe._status("x32") in (SERVED, REFUSED)
    if not os.path.exists("/proc/sys/abi/vsyscall32"):
        assert compat_probe._status("32") == REFUSED
