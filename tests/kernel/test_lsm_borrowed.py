# SPDX-License-Identifier: Apache-2.0
"""An exception for a program ends for a process that somebody drives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, EventKind
from tests.kernel.lsm import NAME
from tests.kernel.probes import BOTH_WAYS, Probes
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup

pytestmark = [pytest.mark.root, BOTH_WAYS]
SHELL = os.path.realpath("/bin/sh")
KILLED = -signal.SIGKILL
EXCEPTED = (
    Rule(EventKind.FILE_OPEN, "kill", {NAME: {name_hash(b"protected")}}),
    Rule(EventKind.FILE_OPEN, clears=0, operands={DIM_EXE: {name_hash(SHELL.encode())}}),
)


@pytest.fixture(autouse=True)
def excepted(probes: Probes) -> None:
    """A file that only the shell may open."""
    probes.enforce(*EXCEPTED)


def opening(cgroup: Cgroup, path: Path, script: str = ": < {}", **environment: str) -> int:
    """The shell opens the file with this environment. Returns its exit code, or the negative signal."""
    argv = [SHELL, "-c", script.format(path)]
    return cgroup.run(argv, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True).returncode


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """The file."""
    (tmp_path / "protected").write_text("x")
    return tmp_path / "protected"


def test_the_exception_holds_for_the_program_by_itself(cgroup: Cgroup, protected: Path) -> None:
    """The control, with names that only resemble a variable of the loader, and a large environment."""
    assert opening(cgroup, protected) == 0
    assert opening(cgroup, protected, OLD_LD_PRELOAD="x", XLD_="y", L="D_", LD="_", TEXT="a=LD_PRELOAD") == 0
    assert opening(cgroup, protected, **{f"SERVICE_{n}": "x" * 1000 for n in range(28)}) == 0


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_X"])
@pytest.mark.parametrize("before", [0, 1, 2, 3, 20])
def test_a_variable_of_the_loader_ends_it(cgroup: Cgroup, protected: Path, name: str, before: int) -> None:
    """Wherever it stands: here after some others, at each place of a part that is looked through."""
    others = {f"A{n}": "x" * (1024 - 5 - n) for n in range(before)}
    assert opening(cgroup, protected, **others, **{name: ""}) == KILLED


#: bytes of the environment that are looked through at a time, RF_WALK_LEN of probes/include/scratch.h
PART = 512


@pytest.mark.parametrize("at", [*range(PART - 4, PART + 2), 3 * PART - 1])
def test_a_variable_across_two_parts_ends_it(cgroup: Cgroup, protected: Path, at: int) -> None:
    """`at`: the place of its first letter. The same letters within a value are no variable."""
    for end, code in (("", KILLED), ("x", 0)):
        before = "A=" + "x" * (at - len("A=") - 1) + end
        words = [before, "LD_X="] if not end else [f"{before}LD_X="]
        argv = ["/usr/bin/env", "-i", *words, SHELL, "-c", f": < {protected}"]
        assert cgroup.run(argv, capture_output=True).returncode == code, words


def test_an_environment_too_large_to_be_looked_through_ends_it(cgroup: Cgroup, protected: Path) -> None:
    """Else the variable would be put at its end."""
    assert opening(cgroup, protected, **{f"A{n}": "x" * 1000 for n in range(40)}) == KILLED


def test_it_ends_for_the_children_and_not_for_what_they_execute(cgroup: Cgroup, protected: Path) -> None:
    """A child has its parent's memory; a program that is executed again has its own."""
    assert opening(cgroup, protected, "( : < {} ) || exit 7; exit 0", LD_X="") == 7
    again = f"unset LD_X; exec {SHELL} -c ': < {{}}'"
    assert opening(cgroup, protected, again, LD_X="") == 0


def test_it_ends_for_a_process_that_is_traced(cgroup: Cgroup, protected: Path) -> None:
    """And stays so, once it has been seen traced."""
    strace = force.need_program("strace")
    argv = [strace, "-f", "-o", "/dev/null", SHELL, "-c", f": < {protected}"]
    assert cgroup.run(argv, capture_output=True).returncode in (KILLED, 128 + signal.SIGKILL)


#: seizes a child that executes the shell afterwards, and makes no further call on it
TRACER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
begins, go = os.pipe()
pid = os.fork()
if not pid:
    os.read(begins, 1)
    os.execv(sys.argv[1], [sys.argv[1], "-c", f": < {sys.argv[2]}"])
{act}
os.write(go, b"x")
sys.exit(9 if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9 else 0)
"""
SEIZE = "assert libc.ptrace(0x4206, pid, None, None) == 0"


@pytest.mark.parametrize(("act", "code"), [("", 0), (SEIZE, 9)], ids=["not traced", "seized"])
def test_it_ends_for_a_program_whose_tracer_was_there_before(
    cgroup: Cgroup, protected: Path, act: str, code: int
) -> None:
    """What is executed has a memory of its own, and the tracer may change that, too."""
    argv = [sys.executable, "-c", TRACER.replace("{act}", act), SHELL, str(protected)]
    assert cgroup.run(argv, env={"PATH": "/usr/bin:/bin"}).returncode == code


DRIVER = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
child = subprocess.Popen([sys.argv[1], "-c", f"echo; read x; : < {sys.argv[2]}"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.read(1)
pid = child.pid
{act}
child.communicate(b"go\\n")
sys.exit(0 if child.returncode == 0 else 9 if child.returncode == -9 else 1)
"""
ATTACH, DETACH = 16, 17
#: on a pidfd of another process, with the number of the child; which is small, in a pid namespace of its own
MADVISE = """
os.dup2(os.pidfd_open(os.getpid()), pid)
libc.syscall(440, pid, None, 0, 0, 0)
"""
NUMBERED_ANEW = ["unshare", "--pid", "--fork", "--kill-child"]
#: one byte of its data, by what it is already
WRITES = """
line = next(line for line in open(f"/proc/{pid}/maps") if " rw-p " in line)
byte = ctypes.create_string_buffer(1)
own = (ctypes.c_ulong * 2)(ctypes.addressof(byte), 1)
its = (ctypes.c_ulong * 2)(int(line.split("-")[0], 16), 1)
assert libc.process_vm_readv(pid, own, 1, its, 1, 0) == 1
assert libc.process_vm_writev(pid, own, 1, its, 1, 0) == 1
"""


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("open(f'/proc/{pid}/oom_score_adj', 'w').write('0')", 0),
        (f"assert libc.ptrace({ATTACH}, pid, None, None) == 0; os.waitpid(pid, os.WUNTRACED);"
         f"assert libc.ptrace({DETACH}, pid, None, None) == 0", 9),
        (WRITES, 9),
        (MADVISE, 0),
        ("open(f'/proc/{pid}/mem', 'r+b')", 9),
    ],
    ids=["nothing of it", "ptrace", "process_vm_writev", "another's number", "mem"],
)  # fmt: skip
def test_it_ends_for_a_process_that_was_written_to(
    cgroup: Cgroup, protected: Path, act: str, code: int
) -> None:
    """Also when its tracer has left again."""
    argv = [sys.executable, "-c", DRIVER.replace("{act}", act), SHELL, str(protected)]
    before = NUMBERED_ANEW if act is MADVISE else []
    assert cgroup.run([*before, *argv], env={"PATH": "/usr/bin:/bin"}).returncode == code


#: what would end it -> an attempt, and what a rule is on
ATTEMPTS = {
    "ptrace": ("libc.ptrace(0x4206, pid, None, None)", EventKind.SYS_PTRACE, {}),
    "process_vm_writev": (
        "byte = ctypes.create_string_buffer(1); own = (ctypes.c_ulong * 2)(ctypes.addressof(byte), 1);"
        "its = (ctypes.c_ulong * 2)(4096, 1); libc.process_vm_writev(pid, own, 1, its, 1, 0)",
        EventKind.SYS_PROCESS_VM,
        {},
    ),
    "mem": ("open(f'/proc/{pid}/mem', 'r+b')", EventKind.FILE_OPEN, {NAME: {name_hash(b"mem")}}),
    "mem for reading": ("open(f'/proc/{pid}/mem', 'rb')", EventKind.PROCESS_LOOK, {0: {2}}),
}


@pytest.mark.parametrize(("action", "code"), [("deny", 0), ("alert", KILLED)])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_ends_for_what_was_let_through_alone(
    probes: Probes, by_hook: bool, cgroup: Cgroup, protected: Path, attempt: str, action: str, code: int
) -> None:
    """Else a process that may not trace another one could take its exceptions from it."""
    act, event, operands = ATTEMPTS[attempt]
    if event is EventKind.PROCESS_LOOK and not by_hook:
        force.elsewhere("calls are not seen for this event")
    probes.enforce(*EXCEPTED, Rule(event, action, operands))
    argv = [SHELL, "-c", f"echo; read x; : < {protected}"]
    victim = cgroup.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.read(1)
    attacker = f"import ctypes; libc, pid = ctypes.CDLL(None), {victim.pid}; {act}"
    cgroup.run([sys.executable, "-c", attacker], capture_output=True)
    assert len(probes.wait(cgroup, event)) == 1
    victim.communicate(b"go\n")
    assert victim.returncode == code


CODE = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
{act}
open(sys.argv[1]).close()
"""
MAPS = "assert (at := libc.mmap(None, 4096, {}, 0x22, -1, 0)) not in (None, 2 ** 64 - 1)"


@pytest.mark.parametrize(
    ("act", "driven"),
    [
        (MAPS.format(3), False),
        (MAPS.format(7), True),
        (MAPS.format(3) + "; assert libc.mprotect(at, 4096, 5) == 0", True),
        ("fd = os.memfd_create('x'); os.ftruncate(fd, 4096);"
         "mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)", True),
    ],
    ids=["only data", "anonymous", "anonymous, later", "memfd"],
)  # fmt: skip
def test_it_ends_for_a_process_that_maps_other_code(
    probes: Probes, by_hook: bool, cgroup: Cgroup, protected: Path, act: str, driven: bool
) -> None:
    """Hooks alone see it."""
    if not by_hook:
        force.elsewhere("calls are not seen for this event")
    exe = os.path.realpath(sys.executable)
    probes.enforce(
        Rule(EventKind.FILE_OPEN, "kill", {NAME: {name_hash(b"protected")}}),
        Rule(EventKind.FILE_OPEN, clears=0, operands={DIM_EXE: {name_hash(exe.encode())}}),
    )
    argv = [exe, "-c", CODE.replace("{act}", act), str(protected)]
    assert cgroup.run(argv, env={"PATH": "/usr/bin:/bin"}).returncode == (KILLED if driven else 0)
