# SPDX-License-Identifier: Apache-2.0
"""The words of policies have the kernel's values, and match what the probes fill in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ringfence.abi import DIM_OBJECT, EventKind, Fact, OperandSource
from ringfence.bpf.syscalls import CALLS, STRINGS, operand_dims
from ringfence.policy import constants
from ringfence.policy.operand import Kind
from ringfence.policy.shared_operands import TASK_WORDS
from ringfence.policy.vocabulary import EVENTS, describe, event_words, labels

ROOT = Path(__file__).resolve().parents[3]
SYSCALLS = [kind for kind in EVENTS if kind.is_syscall]
FAMILIES = [kind for kind in SYSCALLS if EVENTS[kind].operand("call")]
HEADERS = """stddef.h linux/sched.h linux/mount.h linux/ptrace.h linux/bpf.h linux/fcntl.h linux/keyctl.h
linux/reboot.h linux/seccomp.h linux/netlink.h linux/userfaultfd.h asm/ioctls.h linux/magic.h linux/memfd.h
linux/in.h linux/personality.h linux/fs.h linux/btrfs.h linux/fanotify.h signal.h linux/tiocl.h
sys/socket.h"""


@pytest.mark.parametrize("kind", SYSCALLS, ids=lambda kind: kind.label)
def test_every_operand_of_a_call_is_filled_in(kind: EventKind) -> None:
    """A rule cannot test what the probes do not record."""
    wanted = {operand.dim for operand in EVENTS[kind].operands if operand.dim < 4 and not operand.by_hook}
    assert wanted <= operand_dims(kind)
    for operand in EVENTS[kind].operands:
        if operand.dim == DIM_OBJECT:
            assert STRINGS[kind][0] == operand.name
            assert any(call.strings for call in CALLS.values() if call.kind is kind)


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.label)
def test_calls_of_a_family_have_the_numbers_of_the_probes(kind: EventKind) -> None:
    """`call: [setreuid]` is the number that the probes send for setreuid."""
    operand = EVENTS[kind].operand("call")
    assert operand is not None
    sent = {
        name: argument
        for name, call in CALLS.items()
        if call.kind is kind
        for dim, (source, argument) in enumerate(call.operands)
        if source is OperandSource.CONST and dim == operand.dim
    }
    assert sent == {name: number for name, (number,) in operand.words.items()}


def test_task_words_are_the_facts() -> None:
    """Each fact has a word, each word a fact."""
    assert sorted(TASK_WORDS.values()) == sorted(int(fact) for fact in Fact)


def test_every_system_call_event_can_be_named_in_rules() -> None:
    """The other events are lifecycle events of tasks and cgroups, and self-defence, which has no policy."""
    missing = {kind for kind in EventKind if kind is not EventKind.NONE} - set(EVENTS)
    assert all(kind.label.split(".")[0] in ("container", "process", "cgroup", "agent") for kind in missing)


def test_labels_are_resolved_to_events() -> None:
    """As the loader does."""
    for label in labels():
        found = event_words(label)
        assert found is not None
        assert found[0].label == label
    assert event_words("nothing") is None


def test_words_fit_the_mask_of_their_operand() -> None:
    """A word with a bit outside the mask could never match; each flag word has one number."""
    for words in EVENTS.values():
        names = [operand.name for operand in words.operands]
        assert len(names) == len(set(names))
        for operand in words.operands:
            for numbers in operand.words.values():
                assert all(number & ~operand.mask == 0 for number in numbers)
                assert operand.kind is not Kind.FLAGS or len(numbers) == 1


def test_numbers_are_described_in_words() -> None:
    """In alerts, known bits are names, the rest is hexadecimal."""
    assert describe(EventKind.SYS_UNSHARE, [0x10020000 | 0x11, 0, 0, 0]) == {
        "flags": "CLONE_NEWNS|CLONE_NEWUSER|0x11"
    }
    assert describe(EventKind.SYS_PTRACE, [16, 4, 0, 0]) == {"request": "PTRACE_ATTACH", "target": "host"}
    assert describe(EventKind.SYS_PTRACE, [999, 9, 0, 0]) == {"request": "999", "target": "9"}
    assert describe(EventKind.SYS_SETUID, [33, 1, 0, 0]) == {"uid": "33", "call": "setuid"}
    assert describe(EventKind.PROCESS_FORK, [0, 0, 0, 0]) == {}


def _claims() -> dict[str, int]:
    """Returns the constants that have the kernel's names."""
    tables = [getattr(constants, name) for name in constants.__all__ if name != "FILESYSTEMS"]
    return {
        name: number[0] if isinstance(number, tuple) else number
        for table in tables
        for name, number in table.items()
        if re.fullmatch(r"[A-Z][A-Za-z0-9_]+", name) and not name.startswith(("SYSLOG_ACTION", "O_", "Q_"))
    }


@pytest.mark.needs("clang")
def test_constants_are_those_of_the_kernels_headers(tmp_path: Path) -> None:
    """Names that these headers lack (newer, older) are skipped, but most must be known."""
    claims = _claims()
    includes = "".join(f"#if __has_include(<{h}>)\n#include <{h}>\n#endif\n" for h in HEADERS.split())
    checks = "".join(
        f'#line 1 "{name}"\n_Static_assert((unsigned int)({name}) == {number & 0xFFFFFFFF}u, "");\n'
        for name, number in claims.items()
    )
    source = tmp_path / "c.c"
    source.write_text(f"#define _GNU_SOURCE\n{includes}\n{checks}")
    command = ["clang", "-fsyntax-only", "-w", "-ferror-limit=0", str(source)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    found = re.findall(r"^(\w+):1:\d+: error: (.*)$", output, re.MULTILINE)
    unknown = {name for name, message in found if "undeclared" in message}
    assert not {name for name, _ in found} - unknown
    assert len(unknown) < len(claims) * 0.3, unknown


def test_filesystems_have_the_magic_of_their_headers() -> None:
    """For filesystems in linux/magic.h."""
    header = Path("/usr/include/linux/magic.h")
    if not header.exists():
        pytest.skip("no linux/magic.h (elsewhere: with linux-libc-dev)")
    found = dict(re.findall(r"#define\s+(\w+)_(?:SUPER_)?MAGIC\s+(0x[0-9a-fA-F]+)", header.read_text()))
    names = {
        name: name.upper()
        for name in (
            "proc",
            "sysfs",
            "cgroup2",
            "ext4",
            "xfs",
            "btrfs",
            "tmpfs",
            "debugfs",
            "tracefs",
            "nsfs",
            "f2fs",
        )
    }
    names |= {"cgroup1": "CGROUP", "overlay": "OVERLAYFS", "bpf": "BPF_FS", "binfmt_misc": "BINFMTFS"}
    for word, name in names.items():
        if name in found:
            assert constants.FILESYSTEMS[word] == (int(found[name], 16),), word
