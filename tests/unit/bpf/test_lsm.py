# SPDX-License-Identifier: Apache-2.0
"""The table of LSM hooks: compared with the probes' source, and its use by tiers and plans."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ringfence import abi
from ringfence.abi import Action, EventKind, Mechanism
from ringfence.bpf.attach import Place, never_attached, places
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.lsm import CHECKPOINT_HOOKS, DECIDED, HOOKS, SETNS_PROGRAMS, decided_by, hooks_for
from ringfence.bpf.objects import Program
from ringfence.bpf.settings import KernelSettings
from ringfence.config import load
from ringfence.daemon.attach.plan import attach_plan, tiers_of
from ringfence.policy import NodeTiers
from ringfence.policy.explain import explain_rule
from tests.unit.policy.documents import load as load_documents
from tests.unit.policy.documents import policy, rule

K = EventKind
CONFIG = load(environment={})
PROBES = Path(__file__).resolve().parents[3] / "probes"
NODE = NodeCapabilities(
    kernel="6.1",
    machine="x86_64",
    libbpf=(1, 1),
    permitted=True,
    btf=True,
    ring_buffer=True,
    tracefs=True,
    syscalls=frozenset({"mount", "openat", "unshare"}),
    cgroup=frozenset({"dev"}),
    compat=True,
    lsm_hooks=HOOKS,
)


def test_the_table_and_the_probes_name_the_same_hooks() -> None:
    """A hook without a program would never decide; a program without an event would never be attached."""
    written = set()
    for source in PROBES.glob("lsm_*.bpf.c"):
        written |= set(re.findall(r'^(?:SEC\("lsm/|RF_CHECKPOINT\()(\w+)[",]', source.read_text(), re.M))
    assert written == HOOKS


def test_an_event_is_decided_where_all_that_it_needs_is_there() -> None:
    """If a needed hook is missing, the event is not decided; additional hooks are optional."""
    for kind, way in DECIDED.items():
        assert kind in decided_by(way.needs)
        for missing in way.needs:
            assert kind not in decided_by(HOOKS - {missing})
    assert decided_by(()) == {}


def test_a_hook_is_the_strongest_mechanism() -> None:
    """deny stays deny, and the tiers have the hook."""
    tiers = NodeTiers.of(NODE)
    assert tiers.outcome(K.FILE_OPEN, Action.DENY) == (Action.DENY, Mechanism.LSM, "")
    assert tiers.hooks[K.FILE_OPEN] == ("file_open", *DECIDED[K.FILE_OPEN].also)
    without = NodeTiers.of(replace(NODE, lsm_hooks=HOOKS - {"file_open"}))
    assert without.outcome(K.FILE_OPEN, Action.DENY).mechanism is Mechanism.KILL


def test_a_module_request_is_degraded_step_by_step() -> None:
    """A hook, else the tracepoint, which kills, else nothing: such a kernel requests no modules."""
    without = replace(NODE, lsm_hooks=frozenset())
    plan = attach_plan(frozenset({K.MODULE_REQUEST}), CONFIG, NODE, "/cg", NodeTiers.of(NODE))
    assert plan.lsm == {"kernel_module_request"}
    assert not plan.requests
    traced = replace(without, tracing=frozenset({"module_request"}))
    assert NodeTiers.of(traced).outcome(K.MODULE_REQUEST, Action.DENY).mechanism is Mechanism.KILL
    assert attach_plan(frozenset({K.MODULE_REQUEST}), CONFIG, traced, "/cg", NodeTiers.of(traced)).requests
    assert not NodeTiers.of(without).mechanisms.get(K.MODULE_REQUEST)


def test_a_refused_program_degrades_its_rules() -> None:
    """A program that was not loaded decides nothing: the tiers name the alternative."""
    sections = {f"lsm/{hook}" for hook in HOOKS - {"file_open"}} | {"tracepoint/syscalls/sys_exit"}
    tiers = tiers_of(NODE, sections)
    assert K.FILE_OPEN not in tiers.hooks
    less = tiers_of(NODE, {f"lsm/{hook}" for hook in HOOKS - {"path_link"}})
    assert set(less.hooks[K.FILE_OPEN]) == {"file_open", *DECIDED[K.FILE_OPEN].also} - {"path_link"}
    assert tiers.outcome(K.FILE_OPEN, Action.DENY).mechanism is Mechanism.KILL


def test_the_effect_of_an_absent_hook_is_described() -> None:
    """A rule on files is active without them, and the explanation names what bypasses it."""
    whole = NodeTiers.of(NODE).limits(K.FILE_OPEN)
    tiers = NodeTiers.of(replace(NODE, lsm_hooks=HOOKS - {"path_link", "path_rename"}))
    assert tiers.mechanisms[K.FILE_OPEN]
    assert tiers.limits(K.FILE_OPEN).startswith(whole)
    assert tiers.limits(K.FILE_OPEN).endswith("hard links, renames")
    (one,) = load_documents(policy(rule(event="file.open", match={"path": "proc:kcore"}))).policies[0].rules
    assert any("hard links, renames" in line for line in explain_rule(one, tiers))
    # The others see it later: nothing is lost.
    old = NodeTiers.of(replace(NODE, lsm_hooks=HOOKS - {"uring_allowed", "uring_sqpoll", "userns_create"}))
    assert old.limits(K.SYS_IO_URING_SETUP) == NodeTiers.of(NODE).limits(K.SYS_IO_URING_SETUP) == ""


def test_what_a_hook_decides_is_attached_nowhere_else() -> None:
    """No system call has its cost, and no event is reported twice; the hooks cover its calls."""
    tiers = NodeTiers.of(NODE)
    plan = attach_plan(frozenset({K.FILE_OPEN, K.SYS_MOUNT}), CONFIG, NODE, "/cg", tiers)
    assert (plan.entry, plan.exit, plan.compat, plan.compat_exit) == (frozenset(), frozenset(), False, False)
    assert plan.lsm == hooks_for({K.FILE_OPEN, K.SYS_MOUNT}, tiers.hooks) >= {"file_open", "sb_mount"}
    assert plan.hooked == {"mount"}


def test_without_hooks_the_plan_is_the_old_one() -> None:
    """Cost and coverage of a kernel without BPF-LSM are unchanged."""
    node = replace(NODE, lsm_hooks=frozenset())
    plan = attach_plan(frozenset({K.FILE_OPEN, K.SYS_MOUNT}), CONFIG, node, "/cg", NodeTiers.of(node))
    assert (plan.entry, plan.lsm, plan.hooked) == (frozenset({"mount"}), frozenset(), frozenset())
    assert "openat" in plan.exit


def test_32_bit_calls_are_watched_at_their_own_entry_where_a_kprobe_can_be() -> None:
    """Then no program is at every call, and native calls have their tracepoints."""
    programs = [
        Program("syscall_enter", "tracepoint/syscalls/sys_enter", -1, 0),
        Program("every_call", "tp_btf/sys_enter", -1, 0),
        Program("narrow_call", "kprobe", -1, 0),
    ]
    without = replace(NODE, lsm_hooks=frozenset())
    wide = {"every_call": "sys_enter"}
    narrow = {"narrow_call": "ia32_sys_call", "syscall_enter": "syscalls/sys_enter_mount"}
    for entries, expected in ((frozenset[str](), wide), (frozenset({"ia32_sys_call"}), narrow)):
        node = replace(without, compat_entries=entries)
        plan = attach_plan(frozenset({K.SYS_MOUNT}), CONFIG, node, "/cg", NodeTiers.of(node))
        assert {place.program.name: place.target for place in places(programs, plan)} == expected
    off = replace(plan, compat=False)
    assert {place.program.name for place in places(programs, off)} == {"syscall_enter"}


@pytest.mark.parametrize("watch", ["full", "watch", "off"])
@pytest.mark.parametrize("compat", [True, False])
@pytest.mark.parametrize("entries", [frozenset[str](), frozenset({"ia32_sys_call"})])
def test_a_program_that_is_not_loaded_has_no_place(
    watch: Literal["full", "watch", "off"], compat: bool, entries: frozenset[str]
) -> None:
    """Those that no plan has are left out, and all others are in one."""
    programs = [
        Program("syscall_enter", "tracepoint/syscalls/sys_enter", -1, 0),
        Program("every_call", "tp_btf/sys_enter", -1, 0),
        Program("compat_exit", "tp_btf/sys_exit", -1, 0),
    ]
    node = replace(NODE, lsm_hooks=frozenset(), compat=compat, compat_entries=entries)
    kinds = frozenset({K.SYS_MOUNT, K.FILE_OPEN})
    plan = attach_plan(kinds, CONFIG._replace(compat=watch), node, "/cg", NodeTiers.of(node))
    attached = {place.program.name for place in places(programs, plan)}
    assert attached == {program.name for program in programs} - never_attached(watch, compat, entries)


def test_checkpoints_are_where_the_table_says() -> None:
    """And there is a program for each kind of namespace that setns enters."""
    source = (PROBES / "lsm_checkpoint.bpf.c").read_text()
    written = re.findall(r"^(?:int RF_HOOK_NO_RESULT\(checkpoint_|RF_CHECKPOINT\()(\w+)[),]", source, re.M)
    assert set(written) == CHECKPOINT_HOOKS
    written = re.findall(r"^RF_NOTES_ENTRY\((\w+)\)", (PROBES / "setns.bpf.c").read_text(), re.M)
    assert {f"setns_{kind}" for kind in written} == SETNS_PROGRAMS


def test_checkpoints_are_attached_for_rules_on_setns_or_drift_alone() -> None:
    """Whatever hooks the other rules need."""
    programs = [
        Program("checkpoint_path_chroot", "lsm/path_chroot", -1, 0),
        Program("lsm_path_chroot", "lsm/path_chroot", -1, 0),
        Program("setns_mnt", "fentry/mntns_install", -1, 0),
    ]
    check, decide, note = (Place(program, *program.section.split("/")) for program in programs)
    for kinds, expected in (
        ({K.SYS_SETNS}, [check, note]),
        ({K.TASK_DRIFT}, [check, note]),
        ({K.SYS_CHROOT}, [decide]),
        ({K.SYS_CHROOT, K.SYS_SETNS}, [check, decide, note]),
    ):
        plan = attach_plan(frozenset(kinds), CONFIG, NODE, "/cg", NodeTiers.of(NODE))
        assert list(places(programs, plan)) == expected, kinds
    without = replace(NODE, lsm_hooks=frozenset())
    assert not attach_plan(
        frozenset({K.SYS_SETNS}), CONFIG, without, "/cg", NodeTiers.of(without)
    ).checkpoints


def test_the_object_of_setns_is_known_only_if_each_kind_is() -> None:
    """Else a missing one would count as the host's."""
    settings = KernelSettings(lsm_hooks=HOOKS)
    assert settings.knows_entries()
    assert not settings.knows_entries({"setns_time"})
    assert not KernelSettings().knows_entries()


def test_a_stored_namespace_counts_only_if_nothing_can_skip_it() -> None:
    """Where the kernel may skip fentry, a kprobe has to store it for each kind."""

    def entries(refused: str = "", **options: Any) -> int:
        settings = KernelSettings(lsm_hooks=HOOKS, **options)
        values = zip(abi.CONFIG.names, abi.CONFIG.unpack(settings.pack({refused})), strict=True)
        return int(dict(values)["setns_by_object"])

    assert entries() == abi.ENTRIES_CERTAIN
    assert entries(entries_skippable=True) == abi.ENTRIES_UNSURE
    assert entries(entries_skippable=True, entry_backstop=True) == abi.ENTRIES_CERTAIN
    assert entries("backstop_setns_uts", entries_skippable=True, entry_backstop=True) == abi.ENTRIES_UNSURE
    assert entries("setns_uts") == abi.ENTRIES_UNKNOWN


def test_text_that_is_the_kernels_needs_no_warning() -> None:
    """A filesystem's name at a hook cannot be changed by another thread; at the call's entry it can."""
    document = policy(rule(event="mount", match={"fstype": "proc"}))
    (one,) = load_documents(document).policies[0].rules
    assert any("another thread" in line for line in explain_rule(one, NodeTiers.usual()))
    lines = explain_rule(one, NodeTiers.of(NODE))
    assert not any("another thread" in line for line in lines)
    assert any("by BPF-LSM" in line and "sb_mount" in line for line in lines)
