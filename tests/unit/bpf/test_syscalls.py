# SPDX-License-Identifier: Apache-2.0
"""The table of system calls that are events: its operands are the vocabulary's."""

from __future__ import annotations

import pytest

from ringfence.abi import COMPAT_BASE, OPERANDS, SYSCALL, SYSCALL_NRS, EventKind, OperandSource
from ringfence.bpf.syscalls import CALLS, OPENS, STRINGS, entries, names_of, operand_dims, tracepoint
from ringfence.policy.vocabulary import EVENTS
from ringfence_linux.numbers import NUMBERS


def test_every_call_has_a_number_and_every_kind_a_call() -> None:
    """Every name is in both tables, and every SYS_ event has a call. Drift: at exec. Look: also by calls."""
    assert set(CALLS) | set(OPENS) <= set(NUMBERS)
    assert {call.kind for call in CALLS.values()} == {
        EventKind.TASK_DRIFT,
        EventKind.PROCESS_LOOK,
        *(kind for kind in EventKind if kind.is_syscall),
    }


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind.is_syscall], ids=lambda kind: kind.label)
def test_operands_are_what_policies_may_ask(kind: EventKind) -> None:
    """A rule on an operand that no call fills in would never match."""
    asked = {o.dim for o in EVENTS[kind].operands if o.dim < OPERANDS and not o.by_hook}
    assert asked <= operand_dims(kind)


def test_constants_distinguish_the_calls_of_a_family() -> None:
    """`call` is the position of the name in the vocabulary's list, starting at 1."""
    for kind in EVENTS:
        for operand in EVENTS[kind].operands:
            if operand.name != "call" or not kind.is_syscall:
                continue
            words = {word: numbers[0] for word, numbers in operand.words.items()}
            ours = {name: CALLS[name].operands[operand.dim] for name in names_of([kind])}
            assert ours == {word: (OperandSource.CONST, number) for word, number in words.items()}


def test_entries_of_x86_have_both_abis() -> None:
    """unshare is 272 for 64-bit callers and 310 for 32-bit ones; both names of setuid are one event."""
    table = dict(entries(["unshare", "setuid", "socket"], "x86_64"))
    assert set(table) == {272, COMPAT_BASE + 310, 105, COMPAT_BASE + 23, COMPAT_BASE + 213} | {
        41,
        COMPAT_BASE + 359,
        COMPAT_BASE + 102,
    }
    assert SYSCALL.unpack(table[272])[0] == EventKind.SYS_UNSHARE
    assert table[COMPAT_BASE + 213] == table[105]


def test_entries_of_arm64_are_its_own() -> None:
    """Other numbers, no 32-bit ones, and none for calls that it lacks."""
    table = dict(entries(["unshare", "mknod", "iopl"], "aarch64"))
    assert set(table) == {97}


def test_every_entry_fits_the_map() -> None:
    """Indexes are below the map's size, values are its values' size."""
    for machine in ("x86_64", "aarch64"):
        for number, value in entries(CALLS, machine):
            assert 0 <= number < SYSCALL_NRS
            assert len(value) == SYSCALL.size


def test_each_string_of_a_call_has_a_name() -> None:
    """And each name a string; of the three that an entry has a place for."""
    most: dict[EventKind, int] = {}
    for call in CALLS.values():
        most[call.kind] = max(most.get(call.kind, 0), len(call.strings))
        text, *_, second, third = SYSCALL.unpack(call.pack())[2:]
        assert (text, second, third) == (*call.strings, -1, -1, -1)[:3]
    assert {kind: count for kind, count in most.items() if count} == {
        kind: len(names) for kind, names in STRINGS.items() if kind.is_syscall
    }


def test_tracepoint_is_named_after_the_kernels_function() -> None:
    """umount2 is the only call of the table that differs."""
    assert tracepoint("umount2") == "umount"
    assert tracepoint("unshare") == "unshare"
