# SPDX-License-Identifier: Apache-2.0
"""Mechanism `hook`: the LSM programs at the functions that call the hooks. BPF-LSM may decide or not:
here the programs are always loaded for the functions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ringfence.abi import GUARD_DENY, Action, EventKind, Mechanism
from ringfence.bpf import _libbpf, _syscalls, hook_probe
from ringfence.bpf.lsm import HOOKS, VOID_HOOKS
from ringfence.bpf.preemption import Preemption, find
from tests.kernel.lsm import mounted, named
from tests.kernel.probes import Probes, running, values
from tests.kernel.rules import Rule
from tests.kernel.test_lsm_decides import YOUNG
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.hooks import need_function_hooks

pytestmark = pytest.mark.root
PROBES = {"lsm": True, "hook_mechanism": Mechanism.HOOK}
K = EventKind
READ_IMPLIES_EXEC = 0x0400000
PROT_READ, PROT_EXEC, MAP_PRIVATE = 1, 4, 2
CALL_OPEN, CALL_MMAP, CALL_PERSONALITY, CALL_UNSHARE = 2, 9, 135, 272
CLONE_NEWUTS = 0x04000000


@pytest.fixture(autouse=True, scope="module")
def _functions() -> None:
    """Skip where programs at functions do not decide. Every guest's kernel has them."""
    assert HOOKS - need_function_hooks() <= YOUNG


def test_every_program_loads_and_attaches() -> None:
    """None is refused, the self-defence included; each has the type that its function wants."""
    with running(guard=GUARD_DENY, **PROBES) as probes:  # type: ignore[arg-type]
        kernel = probes.kernel
        assert [skip for skip in kernel.skipped if "refused" in skip.reason] == []
        assert kernel.guarding == "hook"
        hooked = {program for program in kernel.programs if program.section.startswith("lsm/")}
        for program in hooked:
            hook = program.section.removeprefix("lsm/")
            wanted = _libbpf.ATTACH_TRACE_FENTRY if hook in VOID_HOOKS else _libbpf.ATTACH_MODIFY_RETURN
            assert program.attach_type == wanted, program.name
        attached = {link.target for link in kernel.attached}
        assert {"file_open", "bprm_check_security", "userns_create", "bprm_committed_creds"} <= attached


def test_a_call_is_refused_before_its_effect(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """EPERM and no effect, at a hook of files and at `capable`; the record has the mechanism."""
    secret = tmp_path / "secret"
    secret.write_text("kept")
    commands = (f"open:{secret}:{os.O_WRONLY | os.O_TRUNC}", f"sys:{CALL_UNSHARE}:{CLONE_NEWUTS}")
    probes.enforce(named("secret"), Rule(K.SYS_UNSHARE, "deny"))
    assert values(cgroup, act, *commands) == [-errno.EPERM, -errno.EPERM]
    assert secret.read_text() == "kept"
    for kind in (K.FILE_OPEN, K.SYS_UNSHARE):
        (event,) = probes.wait(cgroup, kind)
        assert (event.action, event.mechanism) == (Action.DENY, Mechanism.HOOK), kind
    probes.enforce()
    assert min(values(cgroup, act, *commands)) >= 0
    assert secret.read_text() == ""


def test_a_host_process_is_never_refused(probes: Probes, tmp_path: Path) -> None:
    """The rules apply to containers only."""
    (tmp_path / "secret").write_text("x")
    probes.enforce(named("secret"))
    assert (tmp_path / "secret").read_text() == "x"


def _mapped(cgroup: Cgroup, act: str, file: Path, prot: int, persona: int = 0) -> int:
    """Maps a file in the container; returns the address, or -errno."""
    first = [f"sys:{CALL_PERSONALITY}:{persona}", f"sys:{CALL_OPEN}:={file}:{os.O_RDONLY}"]
    fd = values(cgroup, act, *first)[-1]
    assert fd > 2
    return values(cgroup, act, *first, f"sys:{CALL_MMAP}:0:4096:{prot}:{MAP_PRIVATE}:{fd}:0")[-1]


@pytest.mark.parametrize("noexec", [False, True], ids=["", "noexec"])
def test_memory_that_personality_makes_executable_is_a_mapping_for_execution(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, *, noexec: bool
) -> None:
    """READ_IMPLIES_EXEC, which the function's argument lacks; not on a mount with noexec."""
    with mounted("-t", "tmpfs", "-o", "noexec" if noexec else "exec", "none", tmp_path):
        tool = tmp_path / "tool"
        tool.write_bytes(bytes(4096))
        implied = (cgroup, act, tool, PROT_READ, READ_IMPLIES_EXEC)
        assert _mapped(*implied) > 0
        probes.enforce(named("tool", K.FILE_MAP))
        assert _mapped(cgroup, act, tool, PROT_READ) > 0
        assert probes.events(cgroup, K.FILE_MAP) == []
        refused = -errno.EPERM
        assert (_mapped(*implied) == refused) is not noexec
        # With noexec the kernel itself refuses this one, before any hook.
        assert _mapped(cgroup, act, tool, PROT_READ | PROT_EXEC) == refused


@pytest.fixture
def slots() -> Iterator[ExitStack]:
    """Links that end with the test."""
    with ExitStack() as stack:
        yield stack


def test_a_function_without_a_free_place_is_named(slots: ExitStack) -> None:
    """Other products' programs: the kernel permits 38 for each function."""
    kind = (_libbpf.TYPE_TRACING, _libbpf.ATTACH_MODIFY_RETURN)
    function = _libbpf.kernel_function_id("security_task_prctl", kind[1])
    nothing = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])  # r0 = 0; exit
    with suppress(OSError):
        for _ in range(64):
            program = _syscalls.load_program(*kind, nothing, function)
            slots.callback(os.close, program)
            slots.callback(os.close, _libbpf.raw_tracepoint_open(program))
    hooks, lack = hook_probe.available_hooks()
    assert not hooks
    assert "the maximum number of programs" in lack


def test_the_preemption_of_a_guest_is_known() -> None:
    """Each kernel of the matrix shows it."""
    if not force.in_guest():
        force.elsewhere("a machine may hide it")
    assert find() is not Preemption.UNKNOWN
