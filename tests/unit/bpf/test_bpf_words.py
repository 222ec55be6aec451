# SPDX-License-Identifier: Apache-2.0
"""The binding's errors when something is missing or refused: the cause first, then the remedy."""

from __future__ import annotations

import pytest

from ringfence.bpf.capabilities import NodeCapabilities, _with_lacks
from ringfence.bpf.objects import explain
from ringfence.errors import KernelError, NotPermittedError, PolicyError, Problem

GOOD = NodeCapabilities(
    kernel="6.1", machine="x86_64", libbpf=(1, 1), permitted=True, btf=True, ring_buffer=True, tracefs=True,
    cgroup2="/sys/fs/cgroup",
)  # fmt: skip

LOG = """libbpf: prog 'first': BPF program load failed: Permission denied
libbpf: prog 'first': -- BEGIN PROG LOAD LOG --
0: R1=ctx(off=0,imm=0) R10=fp0
0: (79) r1 = *(u64 *)(r1 +8)
1: (61) r0 = *(u32 *)(r1 +16)
R1 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'first': failed to load: -13
libbpf: failed to load object 'x.bpf.o'
"""


def lacking(**changes: object) -> NodeCapabilities:
    """A complete node with changes."""
    fields = {name: getattr(GOOD, name) for name in GOOD.__slots__} | changes
    return _with_lacks(NodeCapabilities(**fields), None)


def test_good_node_lacks_nothing() -> None:
    """`require` raises nothing."""
    assert lacking().lacks == ()
    lacking().require()


@pytest.mark.parametrize(
    ("changes", "word", "remedy"),
    [
        ({"btf": False}, "no BTF", "CONFIG_DEBUG_INFO_BTF"),
        ({"ring_buffer": False}, "no BPF ring buffer", "Linux 5.15"),
        ({"reads_kernel": False}, "may not read the kernel's memory", "lockdown=confidentiality"),
        ({"tracefs": False}, "no tracepoints", "CONFIG_FTRACE_SYSCALLS"),
        ({"cgroup2": ""}, "no cgroup v2", "mount -t cgroup2"),
        ({"machine": "riscv64"}, "architecture riscv64", "x86_64 or arm64"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(changes: dict[str, object], word: str, remedy: str) -> None:
    """One word for the cause, one for what to do."""
    with pytest.raises(KernelError, match=word) as caught:
        lacking(**changes).require()
    assert remedy in caught.value.hint
    assert caught.value.exit_code == 3


def test_everything_that_is_missing_is_said_at_once() -> None:
    """All causes are in one error."""
    with pytest.raises(KernelError) as caught:
        lacking(btf=False, cgroup2="").require()
    assert "no BTF" in caught.value.message
    assert "no cgroup v2" in caught.value.message


def test_missing_privileges_are_another_error() -> None:
    """Exit code 4, and no guess about what the kernel has."""
    with pytest.raises(NotPermittedError, match="not permitted to use BPF") as caught:
        lacking(permitted=False, ring_buffer=False, tracefs=False).require()
    assert caught.value.exit_code == 4
    assert "ring buffer" not in caught.value.message


def test_verifier_log_is_cut_to_its_reason() -> None:
    """The program, and the lines that end in the reason; statistics are none."""
    refused, lines = explain(LOG)
    assert refused == ["first"]
    assert lines[-1] == "R1 invalid mem access 'scalar'"
    assert len(lines) <= 6


def test_log_without_the_verifier_ends_with_libbpfs_words() -> None:
    """A program may fail before it reaches the verifier."""
    text = "libbpf: prog 'gone': failed to find kernel BTF type ID of 'nothing': -3\nlibbpf: failed to load"
    refused, lines = explain(text)
    assert refused == ["gone"]
    assert lines == ["prog 'gone': failed to find kernel BTF type ID of 'nothing': -3", "failed to load"]


def test_problems_say_where_as_far_as_it_is_known() -> None:
    """file:line:column: where: what, without empty parts."""
    known = Problem("p/shell.yaml", 4, 13, "rules[0].action", "'kil' is not one of 'alert', 'deny', 'kill'")
    assert str(known).startswith("p/shell.yaml:4:13: rules[0].action: 'kil' is not")
    assert str(Problem("p.yaml", 0, 0, "", "cannot be read")) == "p.yaml: cannot be read"
    assert str(PolicyError([known, known])).count("\n") == 1
