# SPDX-License-Identifier: Apache-2.0
"""The strings of a call in its record: all of them in an alert, the first one in other records."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ringfence.abi import FLAG_TRUNCATED, FLAG_UNREADABLE, PATH_LEN, EventKind
from ringfence_linux.architecture import architecture
from ringfence_linux.numbers import NUMBERS
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
K = EventKind
MOUNT = NUMBERS["mount"][architecture().native]
OBSERVED = (K.SYS_MOUNT, K.SYS_CHMOD)
PROBES = {"observe": OBSERVED}
#: nothing below exists, so no call has an effect
NONE = b"/rf-none/"
FD = -1
UNMAPPED = 4096  # below vm.mmap_min_addr: nothing is there

SCRIPT = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.syscall(*(eval(word) for word in sys.argv[1:]))
"""


def call(cgroup: Cgroup, name: str | int, *words: bytes | int | None) -> None:
    """Makes a system call in the container: texts, numbers (as long), NULL."""
    number = name if isinstance(name, int) else NUMBERS[name][architecture().native]
    spelled = [f"ctypes.c_long({word})" if isinstance(word, int) else repr(word) for word in (number, *words)]
    done = cgroup.run([sys.executable, "-c", SCRIPT, *spelled], capture_output=True)
    assert done.returncode == 0, done


CASES: list[tuple[EventKind, str, tuple[Any, ...], tuple[bytes, ...]]] = [
    (K.SYS_MOUNT, "mount", (b"rf-src", NONE + b"at", b"rf-fs", 0, None), (b"rf-fs", b"rf-src", NONE + b"at")),
    (K.SYS_UMOUNT, "umount2", (NONE + b"at", 0), (NONE + b"at",)),
    (K.SYS_PIVOT_ROOT, "pivot_root", (NONE + b"new", NONE + b"old"), (NONE + b"new", NONE + b"old")),
    (K.SYS_FSCONFIG, "fsconfig", (FD, 1, b"source", NONE + b"disk", 0), (b"source", NONE + b"disk")),
    (K.SYS_FSPICK, "fspick", (FD, NONE + b"at", 0), (NONE + b"at",)),
    (K.SYS_OPEN_TREE, "open_tree", (FD, NONE + b"at", 0), (NONE + b"at",)),
    (K.SYS_MOVE_MOUNT, "move_mount", (FD, NONE + b"a", FD, NONE + b"b", 0), (NONE + b"b", NONE + b"a")),
    (K.SYS_MOUNT_SETATTR, "mount_setattr", (FD, NONE + b"at", 0, None, 0), (NONE + b"at",)),
    (K.SYS_MKNOD, "mknodat", (FD, NONE + b"node", 0o20600, 0), (NONE + b"node",)),
    (K.SYS_SWAP, "swapon", (NONE + b"disk", 0), (NONE + b"disk",)),
    (K.SYS_CHMOD, "fchmodat", (FD, NONE + b"file", 0o4755), (NONE + b"file",)),
    (K.SYS_SYMLINK, "symlinkat", (b"/to", FD, NONE + b"link"), (b"/to", NONE + b"link")),
    (K.SYS_RENAME, "renameat2", (FD, NONE + b"a", FD, NONE + b"b", 2), (NONE + b"b", NONE + b"a")),
    (K.SYS_SETXATTR, "lsetxattr", (NONE + b"file", b"user.rf", b"x", 1, 0), (b"user.rf", NONE + b"file")),
    (K.SYS_KEYCTL, "request_key", (b"rf-type", b"rf-key", None, 0), (b"rf-type", b"rf-key")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "words", "strings"), CASES, ids=[case[1] for case in CASES])
def test_an_alert_has_the_strings_of_the_call(
    probes: Probes,
    cgroup: Cgroup,
    kind: EventKind,
    name: str,
    words: tuple[Any, ...],
    strings: tuple[bytes, ...],
) -> None:
    """In the order of the table, each as the caller wrote it."""
    probes.enforce(Rule(kind))
    call(cgroup, name, *words)
    (event,) = probes.wait(cgroup, kind)
    assert event.strings == (*strings, b"", b"")[:3]
    assert not event.flags & (FLAG_TRUNCATED | FLAG_UNREADABLE)


def test_a_record_without_a_rule_has_the_first_string_only(probes: Probes, cgroup: Cgroup) -> None:
    """Such records are many, and stay short."""
    call(cgroup, "mount", NONE + b"disk", NONE + b"at", b"rf-fs", 0, None)
    (event,) = probes.wait(cgroup, K.SYS_MOUNT)
    assert event.strings == (b"rf-fs", b"", b"")


@pytest.mark.parametrize("place", [0, 1])
def test_a_long_string_is_cut_and_marked(probes: Probes, cgroup: Cgroup, place: int) -> None:
    """Each by itself: the others are whole, and it ends with a NUL in its array."""
    words = [NONE + b"disk", NONE + b"at"]
    words[place] = b"/" + b"x" * PATH_LEN
    probes.enforce(Rule(K.SYS_MOUNT))
    call(cgroup, "mount", *words, b"rf-fs", 0, None)
    (event,) = probes.wait(cgroup, K.SYS_MOUNT)
    assert event.strings == (b"rf-fs", *(word[: PATH_LEN - 1] for word in words))
    assert (event.second_raw[-1], event.third_raw[-1]) == (0, 0)
    assert event.flags & FLAG_TRUNCATED


@pytest.mark.parametrize("place", [0, 1])
def test_a_string_that_cannot_be_read_is_empty_and_marked(probes: Probes, cgroup: Cgroup, place: int) -> None:
    """NULL is no string, and needs no mark."""
    words: list[bytes | int | None] = [NONE + b"disk", NONE + b"at"]
    expected = [NONE + b"disk", NONE + b"at"]
    words[place], expected[place] = UNMAPPED, b""
    probes.enforce(Rule(K.SYS_MOUNT))
    call(cgroup, "mount", *words, b"rf-fs", 0, None)
    words[place] = None
    call(cgroup, "mount", *words, None, 0, None)
    unreadable, null = probes.wait(cgroup, K.SYS_MOUNT, 2)
    assert unreadable.strings == (b"rf-fs", *expected)
    assert unreadable.flags & FLAG_UNREADABLE
    assert null.strings == (b"", *expected)
    assert not null.flags & FLAG_UNREADABLE


def test_another_event_of_the_call_has_not_its_strings(probes: Probes, cgroup: Cgroup) -> None:
    """A mount of an unknown type makes the kernel request a module: the paths are those of the mount."""
    if "module_request" not in {attached.target for attached in probes.kernel.attached}:
        force.elsewhere("this kernel has no modules")
    probes.enforce(Rule(K.MODULE_REQUEST))
    call(cgroup, "mount", b"none", b"/", b"rf-no-such-fs", 0, None)
    (event,) = probes.wait(cgroup, K.MODULE_REQUEST)
    assert event.strings == (b"fs-rf-no-such-fs", b"", b"")


def test_a_killed_call_has_its_strings(probes: Probes, cgroup: Cgroup) -> None:
    """They are read as the call begins, when its process is about to end."""
    probes.enforce(Rule(K.SYS_MOUNT, "kill"))
    words = [str(MOUNT), repr(NONE + b"disk"), repr(NONE + b"at"), repr(b"rf-fs"), "0", "None"]
    done = cgroup.run([sys.executable, "-c", SCRIPT, *words], stderr=subprocess.DEVNULL)
    assert done.returncode == -9
    (event,) = probes.wait(cgroup, K.SYS_MOUNT)
    assert event.strings == (b"rf-fs", NONE + b"disk", NONE + b"at")
