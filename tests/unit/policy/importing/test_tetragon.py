# SPDX-License-Identifier: Apache-2.0
"""Tetragon's tracing policies: what they match and do after translation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, EventKind
from ringfence.policy.operand import fnv1a
from ringfence.policy.samples import Sample, file_sample, sample
from tests.unit.policy.importing.translating import Translated, translated

K = EventKind
NAMESPACED = (
    "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicyNamespaced\nmetadata: {name: p, namespace: shop}\n"
)


def hooked(directory: Path, *hooks: str, more: str = "", kind: str = "kprobes") -> Translated:
    """Translates a policy with these hooks, each one flow mapping."""
    lines = "".join(f"  - {one}\n" for one in hooks)
    return translated(directory, f"{NAMESPACED}spec:\n{more}  {kind}:\n{lines}")


def opened(path: str, access: str = "write") -> Sample:
    """The opening of a file."""
    return file_sample(K.FILE_OPEN, "overlay", path.encode(), "a file", access=access)


def by(one: Sample, program: str) -> Sample:
    """The same event, made by another program."""
    return replace(one, numbers={**one.numbers, DIM_EXE: fnv1a(program.encode())})


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("{action: Sigkill}", "kill"),
        ("{action: Signal, argSig: 9}", "kill"),
        ("{action: Override, argError: -1}", "deny"),
        ("{action: NotifyEnforcer, argError: -1}", "deny"),
        ("{action: Post}", "alert"),
        ("{action: Post}, {action: Sigkill}", "kill"),
    ],
)
def test_actions(tmp_path: Path, action: str, wanted: str) -> None:
    """The strongest one of a selector."""
    got = hooked(tmp_path, f"{{call: sys_reboot, syscall: true, selectors: [{{matchActions: [{action}]}}]}}")
    assert got.actions(sample(K.SYS_REBOOT, "")) == {wanted}
    assert got.remarks == []


def test_paths_and_programs(tmp_path: Path) -> None:
    """matchArgs on a file and matchBinaries, in one selector."""
    got = hooked(
        tmp_path,
        "{call: fd_install, args: [{index: 1, type: file}], selectors: [{"
        "matchArgs: [{index: 1, operator: Prefix, values: [/etc/ssl/]}], "
        "matchBinaries: [{operator: NotIn, values: [/usr/bin/certbot]}], "
        "matchActions: [{action: Sigkill}]}]}",
    )
    assert got.actions(opened("/etc/ssl/key")) == {"kill"}
    assert got.actions(by(opened("/etc/ssl/key"), "/usr/bin/certbot")) == set()
    assert got.actions(opened("/etc/passwd")) == set()


def test_the_mask_of_security_file_permission_is_the_access(tmp_path: Path) -> None:
    """2 is MAY_WRITE, 4 is MAY_READ."""
    got = hooked(
        tmp_path,
        "{call: security_file_permission, selectors: [{matchArgs: ["
        "{index: 0, operator: Equal, values: [/etc/passwd]}, {index: 1, operator: Equal, values: ['2']}]}]}",
    )
    assert got.actions(opened("/etc/passwd")) == {"alert"}
    assert got.actions(opened("/etc/passwd", access="read")) == set()


@pytest.mark.parametrize("where", ["kprobes", "tracepoints"])
def test_arguments_of_system_calls(tmp_path: Path, where: str) -> None:
    """Their numbers begin at 0 for a kprobe, and at 5 for a tracepoint."""
    hook = {
        "kprobes": "{call: __x64_sys_unshare, syscall: true, selectors: [{matchArgs: [{index: 0, VALUES}]}]}",
        "tracepoints": "{subsystem: syscalls, event: sys_enter_unshare, "
        "selectors: [{matchArgs: [{args: [5], VALUES}]}]}",
    }[where]
    got = hooked(tmp_path, hook.replace("VALUES", "operator: Mask, values: ['0x10000000']"), kind=where)
    assert got.actions(sample(K.SYS_UNSHARE, "", flags="CLONE_NEWUSER")) == {"alert"}
    assert got.actions(sample(K.SYS_UNSHARE, "", flags="CLONE_NEWNET")) == set()


def test_namespaces_and_capabilities(tmp_path: Path) -> None:
    """Those that the facts of a task have."""
    got = hooked(
        tmp_path,
        "{call: sys_setns, syscall: true, selectors: [{"
        "matchNamespaces: [{namespace: Net, operator: NotIn, values: [host_ns]}], "
        "matchCapabilities: [{type: Effective, operator: In, values: [CAP_SYS_ADMIN]}]}]}",
    )
    assert got.actions(sample(K.SYS_SETNS, "", task="cap-sys-admin")) == {"alert"}
    assert got.actions(sample(K.SYS_SETNS, "", task="host-network")) == set()
    assert got.actions(sample(K.SYS_SETNS, "")) == set()


def test_a_connection(tmp_path: Path) -> None:
    """NotDAddr is an exception, DPort a condition."""
    got = hooked(
        tmp_path,
        "{call: tcp_connect, args: [{index: 0, type: sock}], selectors: [{matchArgs: ["
        "{index: 0, operator: NotDAddr, values: [10.0.0.0/8]}, {index: 0, operator: DPort, values: ['25']}], "
        "matchActions: [{action: Override, argError: -1}]}]}",
    )
    mail = sample(K.NET_CONNECT, "", port=25, protocol="tcp", address=bytes((192, 0, 2, 1)))
    assert got.actions(mail) == {"deny"}
    assert got.actions(replace(mail, address=bytes((10, 1, 2, 3)))) == set()
    assert got.actions(replace(mail, numbers={**mail.numbers, 0: 26})) == set()


def test_lsm_hooks_lists_and_selection_of_pods(tmp_path: Path) -> None:
    """A list of calls becomes a rule for each; labels and names of containers select."""
    more = (
        "  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}\n"
        "  containerSelector: {matchExpressions: [{key: name, operator: In, values: [main]}]}\n"
        "  lists: [{name: modules, type: syscalls, values: [sys_init_module, sys_delete_module]}]\n"
        "  lsmhooks: [{hook: bprm_check_security, selectors: ["
        "{matchArgs: [{index: 0, operator: Equal, values: [/usr/bin/nc]}]}]}]\n"
    )
    got = hooked(tmp_path, "{call: 'list:modules', syscall: true}", more=more)
    only = got.policies[0].selector.only
    assert only is not None
    assert (only.namespaces, only.names) == (("shop",), ("main",))
    assert set(only.labels) == {("app", "web"), ("tier", "*")}
    assert [one.events for one in got.rules] == [
        (K.SYS_MODULE_LOAD,),
        (K.SYS_MODULE_UNLOAD,),
        (K.PROCESS_EXEC,),
    ]
    assert got.actions(sample(K.SYS_MODULE_LOAD, "", call="finit_module")) == set()


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("matchPIDs: [{operator: NotIn, values: [1]}]", "matchPIDs"),
        ("matchBinaries: [{operator: Prefix, values: [/usr/]}]", "cannot be chosen by Prefix"),
        (
            "matchBinaries: [{operator: In, values: [/usr/bin/a], followChildren: true}]",
            "with their children",
        ),
        ("matchNamespaces: [{namespace: Pid, operator: In, values: ['4026531836']}]", "4026531836"),
        ("matchCapabilities: [{type: Permitted, operator: In, values: [CAP_CHOWN]}]", "CAP_CHOWN"),
        ("matchReturnArgs: [{operator: Equal, values: [0]}]", "matchReturnArgs"),
        ("matchFuture: [{values: [0]}]", "matchFuture"),
    ],
)
def test_a_filter_that_cannot_be_kept_leaves_an_alert(tmp_path: Path, part: str, why: str) -> None:
    """The rule matches more than its source, so it must not kill."""
    path = "matchArgs: [{index: 1, operator: Equal, values: [/etc/shadow]}]"
    got = hooked(
        tmp_path,
        f"{{call: fd_install, selectors: [{{{path}, {part}, matchActions: [{{action: Sigkill}}]}}]}}",
    )
    assert got.actions(opened("/etc/shadow")) == {"alert"}
    assert got.says("matches more", why)
    assert got.says("the action", "must not kill")


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("{call: vfs_read}", "no event for 'vfs_read'"),
        ("{call: sys_renameat2, syscall: true}", "no event"),
        ("{call: 'list:none'}", "no event for 'list:none'"),
        ("{call: fd_install, selectors: [{matchArgs: [{index: 0, operator: Equal, values: ['3']}]}]}",
         "everything"),
        ("{call: sys_setns, selectors: [{matchArgs: [{index: 1, operator: Equal, values: ['131072']}]}]}",
         "everything"),
        ("{call: acct, selectors: [{matchNamespaces: [{namespace: Mnt, operator: In, values: [host_ns]}]}]}",
         "no event for 'acct'"),
        ("{call: sys_acct, selectors: [{matchNamespaces: "
         "[{namespace: Mnt, operator: In, values: [host_ns]}]}]}", "about the host"),
        ("{}", "no event"),
        ("text", "must be a mapping"),
    ],
)  # fmt: skip
def test_a_hook_that_does_not_translate_is_named(tmp_path: Path, hook: str, why: str) -> None:
    """With its path in the document."""
    got = hooked(tmp_path, hook)
    assert got.rules == []
    assert got.says("spec.kprobes[0]", why), got.remarks


def test_the_first_selector_wins_only_in_tetragon(tmp_path: Path) -> None:
    """A stronger selector after a weaker one only alerts, unless no call can match both."""
    reports = "{matchBinaries: [{operator: In, values: [/usr/bin/runc]}]}"
    kills = "{matchActions: [{action: Sigkill}]}"
    got = hooked(tmp_path, f"{{call: sys_setns, selectors: [{reports}, {kills}]}}")
    assert got.actions(sample(K.SYS_SETNS, "")) == {"alert"}
    assert got.says("selectors[1]", "comes first and does less")
    other = "{matchBinaries: [{operator: In, values: [/usr/bin/nsenter]}], matchActions: [{action: Sigkill}]}"
    got = hooked(tmp_path, f"{{call: sys_setns, selectors: [{reports}, {other}]}}")
    assert got.actions(by(sample(K.SYS_SETNS, ""), "/usr/bin/nsenter")) == {"kill"}


def test_a_selector_that_reports_nothing_is_no_rule(tmp_path: Path) -> None:
    """NoPost keeps later selectors from matching; that is named."""
    silent = "{matchBinaries: [{operator: In, values: [/usr/bin/mount]}], matchActions: [{action: NoPost}]}"
    got = hooked(
        tmp_path, f"{{call: sys_mount, selectors: [{silent}, {{matchActions: [{{action: Post}}]}}]}}"
    )
    assert len(got.rules) == 1
    assert got.says("selectors[1]", "matches more", "selectors[0]")


def test_the_mode_monitor_only_observes(tmp_path: Path) -> None:
    """As Tetragon does; other options are named."""
    more = "  options: [{name: policy-mode, value: monitor}, {name: disable-kprobe-multi, value: '1'}]\n"
    got = hooked(tmp_path, "{call: sys_reboot, selectors: [{matchActions: [{action: Sigkill}]}]}", more=more)
    assert got.actions(sample(K.SYS_REBOOT, "")) == {"alert"}
    assert got.says("spec.options[1]", "disable-kprobe-multi")


def test_a_policy_of_the_cluster_is_also_about_the_host(tmp_path: Path) -> None:
    """Which Ringfence does not watch; kinds of hooks that it lacks are named, too."""
    text = "kind: TracingPolicy\nmetadata: {name: x}\nspec:\n"
    text += "  uprobes: [{path: /bin/bash}]\n  kprobes: [{call: sys_mount}]\n"
    got = translated(tmp_path, text)
    assert got.says("not covered", "host")
    assert got.says("spec.uprobes", "not translated")
    assert got.actions(sample(K.SYS_MOUNT, "")) == {"alert"}
