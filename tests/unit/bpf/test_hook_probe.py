# SPDX-License-Identifier: Apache-2.0
"""Mechanism `hook`: names of functions, the ladder, what rules out programs at functions, `require`."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from ringfence.abi import CONFIG, Action, EventKind, Mechanism
from ringfence.bpf import _libbpf, capabilities, hook_probe, hook_trial, kernel_build, lsm_probe
from ringfence.bpf.attach import Place, attach_all
from ringfence.bpf.lsm import FOLLOW_HOOKS, HOOKS, function_of
from ringfence.bpf.objects import Program
from ringfence.bpf.preemption import Preemption
from ringfence.bpf.settings import KernelSettings
from ringfence.cli import probe
from ringfence.cli.status import _hooks as status_hooks
from ringfence.config import load
from ringfence.daemon.attach.plan import attach_plan, tiers_of
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies
from ringfence.policy.explain import explain_rule
from tests.unit.bpf.test_lsm import NODE as BY_LSM
from tests.unit.policy.documents import load as load_documents
from tests.unit.policy.documents import policy, rule

K = EventKind
CONFIGURED = load(environment={})
NODE = replace(
    BY_LSM,
    kernel="6.12",
    compat=False,
    lsm_lack="bpf is not among the active security modules",
    hook_mechanism=Mechanism.HOOK,
    preemption=Preemption.VOLUNTARY,
)
PREEMPTIBLE = replace(NODE, preemption=Preemption.LAZY)
REQUIRED = load_documents(
    policy(rule(event="mount", match={"fstype": "tmpfs"}, action="deny", require="deny"))
)


@pytest.mark.parametrize(
    ("hook", "function"),
    [
        ("file_open", "security_file_open"),
        ("userns_create", "security_create_user_ns"),
        ("bprm_check_security", "security_bprm_check"),
        ("capable", "security_capable"),
    ],
)
def test_functions_are_named_as_their_hooks_with_two_exceptions(hook: str, function: str) -> None:
    """Names of security/security.c."""
    assert function_of(hook) == function


def test_hooks_are_those_with_a_function_in_the_btf() -> None:
    """Whole names only; the name of a hook is not that of its function."""
    btf = b"\0security_file_open\0security_path_unlinked\0bpf_lsm_path_chmod\0security_create_user_ns\0"
    assert hook_probe.hooks_in(btf) == {"file_open", "userns_create"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("1\n", "Linux version 6.12 (gcc 12)"), ""),
        (("", ""), ""),
        (("0\n", ""), "kernel.ftrace_enabled is 0"),
        (("1\n", "Linux version 6.12 (clang version 19)"), "link-time optimisation"),
    ],
)
def test_a_setting_that_rules_it_out_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: tuple[str, str], expected: str
) -> None:
    """Before anything is tried."""
    monkeypatch.setattr(kernel_build, "read", dict)
    found = hook_probe.setting_against(*settings)
    assert expected in found
    assert bool(found) is bool(expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.E2BIG, "maximum number of programs"),
        (errno.EBUSY, "another tracer"),
        (524, "no BPF trampolines"),
    ],
)
def test_a_failed_trial_is_explained(monkeypatch: pytest.MonkeyPatch, code: int, expected: str) -> None:
    """By what the error means at a function."""

    def refuses(*_: int) -> bool:
        raise OSError(code, "strerror")

    monkeypatch.setattr(hook_probe, "setting_against", lambda *_: "")
    monkeypatch.setattr(hook_trial, "may_load", lambda *_: True)
    monkeypatch.setattr(hook_trial, "refuses", refuses)
    monkeypatch.setattr(_libbpf, "kernel_function_id", lambda *_: 1)
    hooks, lack = hook_probe.available_hooks()
    assert not hooks
    assert expected in lack


def test_a_full_function_is_named_when_a_program_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent does not start without one of its hooks, and says which."""

    def full(_program: int) -> int:
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.setattr(_libbpf, "raw_tracepoint_open", full)
    place = Place(Program("lsm_bpf", "lsm/bpf", -1, _libbpf.ATTACH_MODIFY_RETURN), "lsm", "bpf")
    with pytest.raises(OSError, match="the maximum number of programs") as caught:
        list(attach_all([place], ""))
    assert caught.value.filename == "lsm_bpf at bpf"


def test_a_trial_that_refuses_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attached is not enough."""
    monkeypatch.setattr(hook_probe, "setting_against", lambda *_: "")
    monkeypatch.setattr(hook_trial, "may_load", lambda *_: True)
    monkeypatch.setattr(_libbpf, "kernel_function_id", lambda *_: 1)
    monkeypatch.setattr(hook_trial, "refuses", lambda *_: False)
    assert hook_probe.available_hooks() == (frozenset(), "a program at a security function decided nothing")
    monkeypatch.setattr(hook_trial, "refuses", lambda *_: True)
    monkeypatch.setattr(hook_probe, "VMLINUX", _Btf())
    assert hook_probe.available_hooks() == (frozenset({"file_open"}), "")


class _Btf:
    def read_bytes(self) -> bytes:
        return b"\0security_file_open\0"


@pytest.mark.parametrize(
    ("lsm", "functions", "expected"),
    [
        ((HOOKS, ""), (HOOKS, ""), (HOOKS, Mechanism.LSM, "", "")),
        ((frozenset(), "off"), (HOOKS, ""), (HOOKS, Mechanism.HOOK, "off", "")),
        ((frozenset(), "off"), (frozenset(), "none"), (frozenset(), Mechanism.LSM, "off", "none")),
    ],
)
def test_bpf_lsm_comes_first(
    monkeypatch: pytest.MonkeyPatch,
    lsm: tuple[frozenset[str], str],
    functions: tuple[frozenset[str], str],
    expected: tuple[frozenset[str], Mechanism, str, str],
) -> None:
    """Then the functions; each lack is kept."""
    monkeypatch.setattr(lsm_probe, "available_hooks", lambda: lsm)
    monkeypatch.setattr(hook_probe, "available_hooks", lambda: functions)
    assert capabilities._hooks() == expected


def test_the_ladder_has_hook_between_lsm_and_cgroup() -> None:
    """deny stays deny, without a warning; a refused program falls to the next mechanism."""
    tiers = NodeTiers.of(NODE)
    assert tiers.outcome(K.FILE_OPEN, Action.DENY) == (Action.DENY, Mechanism.HOOK, "")
    assert tiers.outcome(K.UNIX_CONNECT, Action.DENY).mechanism is Mechanism.HOOK
    assert tiers.outcome(K.DEVICE_ACCESS, Action.DENY).mechanism is Mechanism.CGROUP
    with_lsm = tiers.with_mechanism([K.FILE_OPEN], Mechanism.LSM)
    assert with_lsm.outcome(K.FILE_OPEN, Action.DENY).mechanism is Mechanism.LSM
    sections = {f"lsm/{hook}" for hook in HOOKS - {"file_open"}} | {"tracepoint/syscalls/sys_exit"}
    less = tiers_of(NODE, sections)
    assert less.outcome(K.FILE_OPEN, Action.DENY).mechanism is Mechanism.KILL
    assert less.outcome(K.SYS_MOUNT, Action.DENY).mechanism is Mechanism.HOOK


def test_nothing_is_attached_to_calls_that_hooks_decide() -> None:
    """As under BPF-LSM."""
    plan = attach_plan(frozenset({K.FILE_OPEN, K.SYS_MOUNT}), CONFIGURED, NODE, "/cg", NodeTiers.of(NODE))
    assert (plan.entry | plan.exit, plan.hooked) == (frozenset(), frozenset({"mount"}))
    assert plan.lsm >= {"file_open", "sb_mount"}


def test_require_deny_is_satisfied_where_the_kernel_does_not_preempt() -> None:
    """And refused where it does, or may, with the reason and the remedy; explained likewise."""
    (one,) = compile_policies(REQUIRED, NodeTiers.of(NODE)).rules.values()
    assert (one.action, one.mechanism) == (Action.DENY, Mechanism.HOOK)
    for model, words in ((Preemption.LAZY, "preempts itself: lazy"), (Preemption.UNKNOWN, "is unknown")):
        tiers = NodeTiers.of(replace(NODE, preemption=model))
        with pytest.raises(PolicyError) as caught:
            compile_policies(REQUIRED, tiers)
        (problem,) = caught.value.problems
        assert words in str(problem)
        assert "lsm=...,bpf" in str(problem)
        explained = "\n".join(explain_rule(REQUIRED.policies[0].rules[0], tiers))
        assert f"REFUSED, it requires deny, but {tiers.skips}" in explained
        assert f"caution: {tiers.skips}" in explained
    assert "at the kernel's security function" in "\n".join(
        explain_rule(REQUIRED.policies[0].rules[0], NodeTiers.of(NODE))
    )


def test_deny_or_backstop_is_satisfied_where_perf_has_kprobes() -> None:
    """The tier says then that the caller is killed; without kprobes it is refused, too."""
    ruled = load_documents(
        policy(rule(event="mount", match={"fstype": "tmpfs"}, action="deny", require="deny-or-backstop"))
    )
    backed = NodeTiers.of(replace(PREEMPTIBLE, kprobes=True))
    (one,) = compile_policies(ruled, backed).rules.values()
    assert (one.action, one.mechanism) == (Action.DENY, Mechanism.HOOK)
    assert "a backstop kills the caller" in backed.skips
    with pytest.raises(PolicyError, match="requires deny-or-backstop"):
        compile_policies(ruled, NodeTiers.of(PREEMPTIBLE))
    with pytest.raises(PolicyError, match="requires deny, which"):
        compile_policies(REQUIRED, backed)


def test_without_require_a_preemptible_kernel_denies_with_a_warning() -> None:
    """`deny` is what happens, but for skipped programs."""
    compiled = compile_policies(
        load_documents(policy(rule(event="mount", match={"fstype": "tmpfs"}, action="deny"))),
        NodeTiers.of(PREEMPTIBLE),
    )
    (one,) = compiled.rules.values()
    assert (one.action, one.mechanism) == (Action.DENY, Mechanism.HOOK)
    assert NodeTiers.of(replace(PREEMPTIBLE, hook_mechanism=Mechanism.LSM)).skips == ""


def test_what_may_be_skipped_is_not_relied_on() -> None:
    """Tasks are followed by perf as well, and children that are not bound are settled at exits."""
    sure = KernelSettings(lsm_hooks=HOOKS, hook_mechanism=Mechanism.HOOK)
    skippable = replace(sure, preemptible=True)
    assert (sure.follows_by_perf(), sure.refuses_forks()) == (False, True)
    assert (skippable.follows_by_perf(), skippable.refuses_forks()) == (True, False)
    assert FOLLOW_HOOKS <= HOOKS


def test_the_programs_know_their_mechanism() -> None:
    """Their records name it."""
    for mechanism in (Mechanism.LSM, Mechanism.HOOK):
        packed = KernelSettings(hook_mechanism=mechanism, task_storage=True).pack()
        assert CONFIG.unpack(packed)[-3] == mechanism
    backed = KernelSettings(hook_mechanism=Mechanism.HOOK, backstop=True, task_storage=True).pack()
    assert CONFIG.unpack(backed)[-2] == 1


def test_probe_and_status_name_the_mechanism_and_what_it_misses() -> None:
    """Each has a sentence on skipped programs only where they may be skipped."""
    tiers = NodeTiers.of(NODE)
    row = probe._event(K.SYS_MOUNT, tiers)
    assert (row["here"], row["by"].split(":")[0]) == ("deny", "hook")
    shown = probe._hooks({"lsm_hooks": ["a", "b"], "hook_mechanism": "hook", "preemption": "none"})
    assert shown == "2 LSM hooks that can deny by fmod_ret (hook), preemption none"
    assert probe._more(NODE) == ["unix.connect: Linux 6.7 or newer", *probe._more(NODE)[1:]]
    lacking = replace(NODE, lsm_hooks=frozenset(), hook_lack="kernel.ftrace_enabled is 0")
    assert "deny without BPF-LSM: kernel.ftrace_enabled is 0" in probe._more(lacking)
    without_paths = frozenset(hook for hook in HOOKS if not hook.startswith("path_"))
    assert any("CONFIG_SECURITY_PATH" in line for line in probe._more(replace(NODE, lsm_hooks=without_paths)))
    status = {"hooks": 66, "hook_mechanism": "hook", "skips": "", "hook_lack": ""}
    assert status_hooks(status) == "66 deny by hook"
    assert "the call passes" in status_hooks(status | {"skips": NodeTiers.of(PREEMPTIBLE).skips})
    none = {"hooks": 0, "hook_mechanism": "", "skips": "", "hook_lack": "no trampolines"}
    assert status_hooks(none) == "none deny (no trampolines)"
