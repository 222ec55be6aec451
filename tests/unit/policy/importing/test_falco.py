# SPDX-License-Identifier: Apache-2.0
"""Falco's rules: what they match after translation, and what is said about the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import DIM_EXE, EventKind
from ringfence.policy.operand import fnv1a
from ringfence.policy.samples import Sample, file_sample, sample
from tests.unit.policy.importing.translating import translated

K = EventKind


def rule(condition: str, more: str = "") -> str:
    """Returns a rule with that condition."""
    return f"- rule: the rule\n  desc: a test\n  condition: >\n    {condition}\n  priority: WARNING\n{more}"


def opened(path: str, access: str = "write", filesystem: str = "overlay") -> Sample:
    """The opening of a file."""
    return file_sample(K.FILE_OPEN, filesystem, path.encode(), "a file", access=access)


def executed(path: str) -> Sample:
    """The start of a program."""
    return file_sample(K.PROCESS_EXEC, "overlay", path.encode(), "a program")


def by(one: Sample, program: str) -> Sample:
    """The same event, made by another program."""
    return replace(one, numbers={**one.numbers, DIM_EXE: fnv1a(program.encode())})


def test_lists_and_macros_are_expanded(tmp_path: Path) -> None:
    """Also across files, and where a later item adds to an earlier one."""
    first = (
        "- required_engine_version: 0.31.0\n"
        "- list: fetchers\n  items: [curl]\n"
        "- list: tools\n  items: [fetchers, socat]\n"
        "- macro: starts\n  condition: evt.type in (execve, execveat)\n"
        + rule("starts and proc.name in (tools)")
    )
    second = "- list: fetchers\n  append: true\n  items: [aria2c]\n"
    got = translated(tmp_path, first, second)
    for path, wanted in (("/usr/bin/curl", {"alert"}), ("/opt/socat", {"alert"}), ("/a/aria2c", {"alert"}),
                         ("/usr/bin/ls", set())):  # fmt: skip
        assert got.actions(executed(path)) == wanted, path


def test_well_known_macros_need_no_file(tmp_path: Path) -> None:
    """Most rules use `open_write` and `container`; a file may replace them."""
    got = translated(tmp_path, rule("open_write and container and fd.name startswith /etc/"))
    assert got.actions(opened("/etc/passwd")) == {"alert"}
    assert got.actions(opened("/etc/passwd", "read")) == set()
    assert got.actions(opened("/etcetera")) == set()
    own = "- macro: open_write\n  condition: evt.type = open and evt.is_open_read = true\n"
    got = translated(tmp_path, own + rule("open_write and container and fd.name startswith /etc/"))
    assert got.actions(opened("/etc/passwd", "read")) == {"alert"}


def test_alternatives_become_rules(tmp_path: Path) -> None:
    """`or`, and several system calls, in one policy."""
    got = translated(
        tmp_path,
        rule(
            "container and (evt.type in (setns, unshare) "
            "or (evt.type = ptrace and evt.arg.request contains POKE))"
        ),
    )
    assert [len(one.rules) for one in got.policies] == [3]
    assert got.actions(sample(K.SYS_PTRACE, "a debugger", request="PTRACE_POKETEXT")) == {"alert"}
    assert got.actions(sample(K.SYS_PTRACE, "a tracer", request="PTRACE_SEIZE")) == set()
    assert got.actions(sample(K.SYS_UNSHARE, "a namespace", flags="CLONE_NEWUSER")) == {"alert"}


@pytest.mark.parametrize(
    ("condition", "event", "other"),
    [
        ("evt.type = unshare and evt.arg.flags contains CLONE_NEWUSER",
         sample(K.SYS_UNSHARE, "", flags="CLONE_NEWUSER"), sample(K.SYS_UNSHARE, "", flags="CLONE_NEWNET")),
        ("evt.type in (chmod, fchmodat) and evt.arg.mode contains S_ISUID",
         sample(K.SYS_CHMOD, "", mode="setuid"), sample(K.SYS_CHMOD, "", mode="execute")),
        ("evt.type = socket and evt.arg.domain = AF_PACKET",
         sample(K.SYS_SOCKET, "", family="AF_PACKET"), sample(K.SYS_SOCKET, "", family="AF_INET")),
        ("outbound and fd.sip = 192.0.2.7 and fd.sport in (80, 443)",
         sample(K.NET_CONNECT, "", port=443, address=bytes((192, 0, 2, 7))),
         sample(K.NET_CONNECT, "", port=443)),
        ("evt.type = connect and fd.snet in (198.51.100.0/24)",
         sample(K.NET_CONNECT, "", address=bytes((198, 51, 100, 9))), sample(K.NET_CONNECT, "")),
        ("evt.type = open and fd.name = /proc/sysrq-trigger",
         opened("/sysrq-trigger", filesystem="proc"), opened("/proc/sysrq-trigger")),
        ("evt.type = openat and fd.name endswith /authorized_keys",
         opened("/root/.ssh/authorized_keys"), opened("/root/authorized_keys2")),
        ("evt.type = open and fd.name startswith /sbin/", opened("/usr/sbin/x"), opened("/usr/bin/x")),
        ("evt.type = init_module", sample(K.SYS_MODULE_LOAD, "", call="init_module"),
         sample(K.SYS_MODULE_LOAD, "", call="finit_module")),
    ],
)  # fmt: skip
def test_a_condition_keeps_its_meaning(tmp_path: Path, condition: str, event: Sample, other: Sample) -> None:
    """The rule matches the event that the condition is about, and not a similar one."""
    got = translated(tmp_path, rule(f"{condition} and container"))
    assert got.actions(event) == {"alert"}
    assert got.actions(other) == set()
    assert [one for one in got.remarks if "volumes" not in one] == []


def test_exceptions_of_programs_paths_and_workloads_are_kept(tmp_path: Path) -> None:
    """They become exceptions; those for some containers have `for`."""
    got = translated(
        tmp_path,
        rule(
            "open_write and container and fd.name startswith /etc/ and not proc.exepath = /usr/bin/dpkg "
            "and not (fd.name startswith /etc/ssl/ or fd.name = /etc/mtab) and k8s.ns.name != kube-system"
        ),
    )
    assert got.actions(opened("/etc/ssl/cert")) == got.actions(opened("/etc/mtab")) == set()
    assert got.actions(by(opened("/etc/passwd"), "/usr/bin/dpkg")) == set()
    assert got.actions(by(opened("/etc/passwd"), "/tmp/dpkg")) == {"alert"}
    assert [one.scope.namespaces for one in got.rules[0].scoped] == [("kube-system",)]


def test_containers_are_selected(tmp_path: Path) -> None:
    """By the fields that a selector has."""
    text = rule(
        "evt.type = mount and container.image.repository = docker.io/library/nginx "
        "and k8s.ns.name startswith shop and k8s.pod.label[tier] = front and container.privileged = true"
    )
    only = translated(tmp_path, text).policies[0].selector.only
    assert only is not None
    assert only.namespaces == ("shop*",)
    assert only.labels == (("tier", "front"),)
    assert only.privileged is True
    assert "docker.io/library/nginx:*" in only.images


@pytest.mark.parametrize(
    "check", ["proc.pname = sshd", "user.name = root", "evt.arg.flags = x", "proc.tty != 0"]
)
def test_a_check_that_is_left_out_is_named(tmp_path: Path, check: str) -> None:
    """The rule matches more, and an exception that cannot be kept is no exception."""
    got = translated(tmp_path, rule(f"container and evt.type = open and fd.name = /etc/shadow and {check}"))
    assert got.actions(opened("/etc/shadow")) == {"alert"}
    assert got.says("the rule", "matches more", check.split()[0])


def test_an_exception_by_a_name_is_none(tmp_path: Path) -> None:
    """Any program can take the name, so nothing is excepted by it."""
    got = translated(
        tmp_path, rule("container and spawned_process and proc.exepath = /a and not proc.name = apt")
    )
    assert got.rules[0].exceptions == ()
    assert got.says("proc.name = apt", "left out")


def test_a_shell_is_the_file_behind_the_link(tmp_path: Path) -> None:
    """On Debian `sh` is a link to dash, elsewhere to busybox; the rule names them, and says so."""
    got = translated(tmp_path, rule("spawned_process and container and proc.name = sh"))
    assert got.actions(executed("/usr/bin/dash")) == got.actions(executed("/bin/busybox")) == {"alert"}
    assert got.says("sh may be links", "busybox")


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("evt.type = open and proc.name = cat and container", "would match everything"),
        ("open_write and container and fd.name contains secret", "would match everything"),
        ("evt.type = unlinkat and container", "no event for 'unlinkat'"),
        ("evt.type = rename and container", "no event for 'rename'"),
        ("evt.type = mount and not container", "about the host"),
        ("evt.type = mount and container.id = host", "about the host"),
        ("proc.name = nc", "names no system call"),
        ("evt.type = open and fd.name = /dev/mem and container", "would match everything"),
    ],
)
def test_a_rule_that_does_not_translate_is_named(tmp_path: Path, condition: str, why: str) -> None:
    """With the reason; nothing is written."""
    got = translated(tmp_path, rule(condition))
    assert got.rules == []
    assert got.says("the rule", "not translated", why), got.remarks


def test_the_host_is_not_covered(tmp_path: Path) -> None:
    """A rule without `container` is also about processes of the host."""
    assert translated(tmp_path, rule("evt.type = mount")).says("not covered", "host")
    assert not translated(tmp_path, rule("evt.type = mount and container")).remarks


@pytest.mark.parametrize("more", ["  enabled: false\n", "  source: k8s_audit\n"])
def test_a_rule_that_does_not_run_is_left_out(tmp_path: Path, more: str) -> None:
    """It is disabled, or about something else than system calls."""
    got = translated(tmp_path, rule("evt.type = mount and container", more))
    assert got.rules == []
    assert got.says("not translated")


def test_appended_conditions_and_exceptions(tmp_path: Path) -> None:
    """`append` extends a condition; exceptions are left out and named."""
    text = rule("evt.type = mount and container", "  exceptions:\n  - name: a\n    fields: proc.pname\n")
    text += "- rule: the rule\n  append: true\n  condition: and k8s.ns.name = shop\n"
    got = translated(tmp_path, text)
    only = got.policies[0].selector.only
    assert only is not None
    assert only.namespaces == ("shop",)
    assert got.says("matches more", "exceptions")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- macro: a\n  condition: b\n- macro: b\n  condition: a or a\n" + rule("evt.type = mount and a"),
         "uses itself"),
        ("- list: l\n  items: [l]\n" + rule("evt.type = open and fd.name in (l)"), "contains itself"),
        ("- macro: a0\n  condition: fd.name = /x or fd.name = /y\n"
         + "".join(f"- macro: a{n}\n  condition: a{n - 1} and a{n - 1}\n" for n in range(1, 40))
         + rule("evt.type = open and a39"), "more than"),
        (rule("(" * 3000 + "a" + ")" * 3000), "levels"),
        (rule("not " * 3000 + "a"), "levels"),
        (rule(" and ".join(f"(a{n} or b{n})" for n in range(30))), "alternatives"),
        (rule("evt.type = mount and"), "ends too early"),
        (rule("evt.type = mount evt.dir"), "is missing before"),
        (rule("evt.type = 'mount"), "cannot be read"),
        (rule("= mount"), "must be where"),
        (rule(""), "ends too early"),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_read_is_one_remark(tmp_path: Path, text: str, why: str) -> None:
    """Hostile ones, too: nothing is expanded without a limit."""
    got = translated(tmp_path, text)
    assert got.rules == []
    (remark,) = got.remarks
    assert why in remark
    assert "\n" not in remark
    assert len(remark) < 400
