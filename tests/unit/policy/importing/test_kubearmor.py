# SPDX-License-Identifier: Apache-2.0
"""KubeArmor's policies: what they match and do after translation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, EventKind
from ringfence.policy.operand import fnv1a
from ringfence.policy.samples import Sample, file_sample, sample
from tests.unit.policy.importing.translating import Translated, translated

K = EventKind


def policy(directory: Path, section: str, action: str = "Block", more: str = "") -> Translated:
    """Translates a policy for the pods of a label."""
    return translated(
        directory,
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\n"
        "metadata: {name: guard, namespace: shop}\n"
        f"spec:\n  selector: {{matchLabels: {{app: web}}}}\n  {section}\n  action: {action}\n{more}",
    )


def executed(path: str, by: str = "/usr/bin/program") -> Sample:
    """The start of a program."""
    one = file_sample(K.PROCESS_EXEC, "overlay", path.encode(), "a program")
    return replace(one, numbers={**one.numbers, DIM_EXE: fnv1a(by.encode())})


def opened(path: str, access: str) -> Sample:
    """The opening of a file."""
    return file_sample(K.FILE_OPEN, "overlay", path.encode(), "a file", access=access)


@pytest.mark.parametrize(("action", "wanted"), [("Block", "deny"), ("Audit", "alert")])
def test_programs(tmp_path: Path, action: str, wanted: str) -> None:
    """Paths and directories of one section are one rule for the pods of the label."""
    section = (
        "process: {matchPaths: [{path: /usr/bin/apt}], matchDirectories: [{dir: /opt/, recursive: true}]}"
    )
    got = policy(tmp_path, section, action)
    assert len(got.rules) == 1
    assert got.actions(executed("/usr/bin/apt")) == got.actions(executed("/opt/a/b")) == {wanted}
    assert got.actions(executed("/usr/bin/apt-get")) == set()
    only = got.policies[0].selector.only
    assert only is not None
    assert (only.namespaces, only.labels) == (("shop",), (("app", "web"),))


def test_the_source_of_an_act(tmp_path: Path) -> None:
    """fromSource is the program that acts."""
    got = policy(
        tmp_path, "process: {matchPaths: [{path: /usr/bin/curl, fromSource: [{path: /usr/bin/bash}]}]}"
    )
    assert got.actions(executed("/usr/bin/curl", "/usr/bin/bash")) == {"deny"}
    assert got.actions(executed("/usr/bin/curl", "/usr/bin/python3")) == set()


def test_read_only_files_may_be_read(tmp_path: Path) -> None:
    """Block with readOnly stops writing."""
    got = policy(tmp_path, "file: {matchPaths: [{path: /etc/passwd, readOnly: true}, {path: /etc/shadow}]}")
    assert got.actions(opened("/etc/passwd", "write")) == {"deny"}
    assert got.actions(opened("/etc/passwd", "read")) == set()
    assert got.actions(opened("/etc/shadow", "read")) == {"deny"}


@pytest.mark.parametrize(
    ("protocol", "event"),
    [
        ("TCP", sample(K.SYS_SOCKET, "", family="AF_INET6", type="SOCK_STREAM")),
        ("udp", sample(K.SYS_SOCKET, "", family="AF_INET", type="SOCK_DGRAM")),
        ("icmp", sample(K.SYS_SOCKET, "", family="AF_INET", type="SOCK_DGRAM", protocol="IPPROTO_ICMP")),
        ("raw", sample(K.SYS_SOCKET, "", family="AF_INET", type="SOCK_RAW", protocol="IPPROTO_TCP")),
    ],
)
def test_protocols(tmp_path: Path, protocol: str, event: Sample) -> None:
    """Sockets of the internet; a unix socket is none."""
    got = policy(tmp_path, f"network: {{matchProtocols: [{{protocol: {protocol}}}]}}")
    assert got.actions(event) == {"deny"}
    assert got.actions(sample(K.SYS_SOCKET, "", family="AF_UNIX", type="SOCK_STREAM")) == set()


def test_capabilities_and_system_calls(tmp_path: Path) -> None:
    """A capability that only some acts need is those acts; any other is named."""
    got = policy(
        tmp_path,
        "capabilities: {matchCapabilities: [{capability: sys_module}, {capability: net_raw}]}",
        more="  syscalls: {matchSyscalls: [{syscall: [mount, unlink]}]}\n",
    )
    assert (
        got.actions(sample(K.SYS_MODULE_LOAD, "")) == got.actions(sample(K.SYS_MODULE_UNLOAD, "")) == {"deny"}
    )
    assert got.actions(sample(K.SYS_MOUNT, "")) == {"deny"}
    assert got.says("matchCapabilities[1]", "net_raw")
    assert got.says("matchSyscalls[0]", "unlink")


def test_allow_reports_everything_else(tmp_path: Path) -> None:
    """What is not allowed is reported; what KubeArmor does then is not in the policy, which is said."""
    section = "process: {matchPaths: [{path: /usr/sbin/nginx}]}"
    more = "  file: {matchDirectories: [{dir: /etc/, recursive: true, readOnly: true}]}\n"
    got = policy(tmp_path, section, "Allow", more)
    assert got.actions(executed("/usr/sbin/nginx")) == set()
    assert got.actions(executed("/usr/bin/sh")) == {"alert"}
    assert got.actions(opened("/etc/hosts", "read")) == set()
    assert got.actions(opened("/etc/hosts", "write")) == {"alert"}
    assert got.says("spec.process", "everything else")


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("process: {matchPaths: [{path: /usr/bin/a, ownerOnly: true}]}", "ownerOnly"),
        ("process: {matchDirectories: [{dir: /usr/bin/}]}", "recursive"),
        ("process: {matchPaths: [{path: /usr/bin/a, fromSource: [{dir: /usr/}]}]}", "fromSource"),
        ("process: {matchPaths: [{path: /usr/bin/a, execname: x}]}", "execname"),
    ],
)
def test_an_option_that_cannot_be_kept_leaves_an_alert(tmp_path: Path, section: str, why: str) -> None:
    """The rule matches more than its source, so it must not deny."""
    got = policy(tmp_path, section)
    assert got.actions(executed("/usr/bin/a")) == {"alert"}
    assert got.says("matches more", why)
    assert got.says("the action", "must not deny")


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("process: {matchPaths: [{path: bash}]}", "not an absolute path"),
        ("file: {matchPatterns: [{pattern: '/home/*/.ssh'}]}", "without patterns"),
        ("file: {matchDirectories: [{dir: /dev/, recursive: true}]}", "/dev"),
        ("file: {matchPaths: [{path: /proc/self/mem}]}", "no fixed path"),
        ("network: {matchProtocols: [{protocol: sctp}]}", "sctp"),
        ("capabilities: {matchCapabilities: [{capability: net_admin}]}", "net_admin"),
        ("process: {matchPaths: [{path: /usr/bin/a, action: Deny}]}", "'Deny'"),
        ("file: [text]", "must be a mapping"),
        ("future: {matchThings: [a]}", "nothing like 'future'"),
    ],
)
def test_what_does_not_translate_is_named(tmp_path: Path, section: str, why: str) -> None:
    """With its path in the document."""
    got = policy(tmp_path, section)
    assert got.rules == []
    assert got.says("spec.", "not translated", why), got.remarks


def test_a_policy_of_the_cluster_selects_namespaces(tmp_path: Path) -> None:
    """Those of the list, or all but those of the list."""
    text = (
        "kind: KubeArmorClusterPolicy\nmetadata: {name: c}\nspec:\n  selector: {matchExpressions: ["
        "{key: namespace, operator: %s, values: [a, b]}, {key: label, operator: In, values: [app=web]}]}\n"
        "  process: {matchPaths: [{path: /usr/bin/apt}]}\n"
    )
    only = translated(tmp_path, text % "In").policies[0].selector.only
    assert only is not None
    assert (only.namespaces, only.labels) == (("a", "b"), (("app", "web"),))
    selector = translated(tmp_path, text % "NotIn").policies[0].selector
    assert selector.but is not None
    assert selector.but.namespaces == ("a", "b")


def test_a_policy_of_the_host_is_left_out(tmp_path: Path) -> None:
    """Ringfence watches containers."""
    got = translated(tmp_path, "kind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec: {}\n")
    assert got.rules == []
    assert got.says("kind", "about the host")


def test_a_set_of_labels_that_cannot_be_kept_leaves_an_alert(tmp_path: Path) -> None:
    """More pods are chosen, so nothing is denied there."""
    text = (
        "kind: KubeArmorClusterPolicy\nmetadata: {name: c}\nspec:\n  selector: {matchExpressions: ["
        "{key: label, operator: NotIn, values: [app=web]}]}\n"
        "  process: {matchPaths: [{path: /usr/bin/apt}]}\n"
    )
    got = translated(tmp_path, text)
    assert got.actions(executed("/usr/bin/apt")) == {"alert"}
    assert got.says("matchExpressions[0]", "cannot be chosen by label NotIn")
