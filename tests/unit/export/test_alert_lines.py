# SPDX-License-Identifier: Apache-2.0
"""A line of an alert: as published, in words, and short. For every attack that the shipped policies name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import yaml

from ringfence.abi import NO_CALL, Action, EventKind, Fact, Mechanism
from ringfence.containers.model import Container, Enrichment, Posture
from ringfence.containers.tree import ProcessTree
from ringfence.events import Event, ExecEvent, FileEvent, SyscallEvent, TaskEvent
from ringfence.export.jsonl import line_of
from ringfence.export.pages import page_of
from ringfence.export.records import alert_record, event_record, finding_record
from ringfence.export.redact import Redactor
from ringfence.export.wording import ended, next_steps, runbook, tried
from ringfence.policy import NodeTiers, PolicySet, compile_policies, load_bytes, load_policies
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.lower import lower
from ringfence.policy.review import find_errors
from ringfence.response.alert import assemble
from ringfence.response.detectors import DETECTORS, finding
from ringfence.response.kill import KillOutcome, KillResult
from ringfence.wire import make
from ringfence_linux.architecture import architecture
from ringfence_linux.numbers import NUMBERS
from tests.support.alert_schema import check, problems
from tests.support.policies import PACK
from tests.support.receivers import whole_alert

K = EventKind
FCHMOD = NUMBERS["fchmod"][architecture().native]
FACTS = Fact.ROOT | Fact.CAP_SYS_ADMIN | Fact.NO_SECCOMP
SECOND = b"/mnt/of/the/host"  # other strings of a call, like the target of a mount
INSTALLED = "/etc/ringfence/policies"  # where the chart mounts the policies
CAPABILITIES = tuple(f"CAP_{number}_OF_FORTY" for number in range(40))


def container() -> Container:
    """A pod's container with a weak posture, as Kubernetes labels it."""
    labels = {
        "app.kubernetes.io/name": "ci-runner", "pod-template-hash": "5b7c9d", "team": "b",
        "io.kubernetes.container.name": "build", "io.kubernetes.pod.namespace": "team-b",
    }  # fmt: skip
    reasons = ("runtime-socket", "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "host-etc", "no seccomp filter")
    return Container(
        "c" * 64, 66115, 1, runtime="containerd", name="build", image="docker.io/library/debian:12",
        image_digest="docker.io/library/debian@sha256:" + "d" * 64, namespace="team-b", pod="ci-runner-0",
        pod_uid="0f0f0f0f-1111-2222-3333-444444444444", owner="StatefulSet/ci-runner", labels=labels,
        pid=2000, posture=Posture(CAPABILITIES, CAPABILITIES, score=100, reasons=reasons),
    )  # fmt: skip


def processes() -> ProcessTree:
    """`kubectl exec`, a shell, and a program with four arguments."""
    tree = ProcessTree()
    args = b"sh\0-c\0mount -t ext4 /dev/sda1 /mnt/of/the/host\0"
    for pid, ppid, path in ((2100, 2090, b"/usr/bin/dash"), (2200, 2100, b"/usr/bin/program")):
        if pid > 2100:
            tree.on_event(TaskEvent(event=K.PROCESS_FORK, pid=ppid, start_ns=ppid, child_pid=pid,
                                    child_tid=pid, child_start_ns=pid))  # fmt: skip
        tree.on_event(ExecEvent(event=K.PROCESS_EXEC, pid=pid, start_ns=pid, ppid=ppid, path_raw=path,
                                path_len=len(path), args_raw=args, args_len=len(args)))  # fmt: skip
    return tree


def rules() -> Iterator[tuple[CompiledRule, EventKind]]:
    """Each rule of the shipped policies, with each of its events."""
    compiled = compile_policies(load_policies([PACK]), NodeTiers.usual())
    seen = set()
    for rule in compiled.rules.values():
        for kind in sorted(rule.events):
            if (rule.rule_id, kind) not in seen:
                seen.add((rule.rule_id, kind))
                yield rule, kind


def attempt(rule: CompiledRule, kind: EventKind) -> dict[str, Any]:
    """The line of an attempt that this rule stopped, with as much as an event can hold."""
    event: Any = make(kind, action=Action.KILL, mechanism=Mechanism.KILL, pid=2200, tid=2200, ppid=2100,
                      start_ns=2200, comm_raw=b"program", facts=FACTS)  # fmt: skip
    text = b"/proc/sys/kernel/some/path/of/usual/length"
    texts = {"text_raw": text, "text_len": len(text), "path_raw": text, "path_len": len(text),
             "name_raw": text, "name_len": len(text), "second_raw": SECOND, "second_len": len(SECOND),
             "third_raw": SECOND, "third_len": len(SECOND)}  # fmt: skip
    event = event._replace(**{name: value for name, value in texts.items() if name in event._fields})
    installed = rule._replace(file=f"{INSTALLED}/{Path(rule.file).name}")
    record = alert_record(assemble(event, container(), installed, processes(), "node-1"), 0, 369_000)
    return record | {"policy_digest": "3f2a90c1b7de"}  # as the agent's outputs add it


def test_each_line_of_an_attack_is_as_published_and_short() -> None:
    """95 of 100 alerts of the shipped rules have less than 2,000 bytes.

    `python -m tests.unit.export.test_alert_lines` prints the sizes.
    """
    sizes = []
    for rule, kind in rules():
        record = attempt(rule, kind)
        check(json.loads(line_of(record)))
        sizes.append(len(line_of(record)))
    assert len(sizes) > 60
    assert quantiles(sizes, n=20)[-1] < 2000


def dropped(policies: PolicySet, rule_id: str, kind: EventKind) -> bool:
    """Whether a rule's scoped exception can never hold on an event."""
    [found] = (rule for policy in policies.policies for rule in policy.rules if rule.id == rule_id)
    return not any(atom.scoped for atom in lower(found, kind))


def test_each_proposal_pasted_lets_its_workload_pass_and_no_other() -> None:
    """Of each rule of the pack and each of its events. What cannot be allowed by an exception says so."""
    texts = {path: path.read_text() for path in sorted(PACK.glob("*.yaml"))}
    held = 0
    for rule, kind in rules():
        allow = attempt(rule, kind)["allow"].splitlines()
        if allow[1:2] != ["  exceptions:"]:
            assert allow[0].startswith(f"no exception to rule {rule.rule_id} (")
            continue
        path = PACK / Path(rule.file).name
        document = yaml.load(texts[path], yaml.BaseLoader)
        [pasted] = yaml.load("\n".join(allow[1:]), yaml.BaseLoader)["exceptions"]
        [found] = (one for one in document["spec"]["rules"] if one["id"] == rule.rule_id)
        found.setdefault("exceptions", []).append(pasted)
        policies = load_bytes({path.name: yaml.safe_dump(document).encode()})
        assert find_errors(policies) == [], allow
        compiled = compile_policies(policies, NodeTiers.usual())
        mine = replace(container(), enrichment=Enrichment.DONE)
        of_mine, of_other = (
            compiled.bits(compiled.select(one), one) & compiled.actions.exceptions
            for one in (mine, replace(mine, owner="StatefulSet/other"))
        )
        # The event of the test has operands of zeros: an exception for what the rule cannot match is dropped.
        assert dropped(policies, rule.rule_id, kind) or of_mine & ~of_other, allow
        assert not of_other & ~of_mine
        held += bool(of_mine & ~of_other)
    assert held > 60


def test_no_line_of_an_attack_has_pointers_or_empty_names() -> None:
    """The ancestry ends at the session that the runtime started."""
    for rule, kind in rules():
        record = attempt(rule, kind)
        assert "args" not in record["details"] or kind in (K.PROCESS_EXEC, K.KERNEL_HELPER)
        if kind != K.PROCESS_EXEC:
            assert [one["comm"] for one in record["process"]["ancestry"]][-1] == "(runtime exec)"
        assert all(one["comm"] for one in record["process"]["ancestry"][1:])
        assert "0x0" not in record["tried"].split()


def test_a_program_without_a_file_has_no_path() -> None:
    """The kernel has the path `/` for a memfd, and 0 for an unknown filesystem: neither is a fact."""
    event = ExecEvent(event=K.PROCESS_EXEC, pid=2200, start_ns=2200, path_raw=b"/", path_len=1)
    tree = ProcessTree()
    tree.on_event(event)
    child = TaskEvent(event=K.PROCESS_FORK, pid=2200, start_ns=2200, child_pid=2300, child_tid=2300,
                      child_start_ns=2300)  # fmt: skip
    tree.on_event(child)
    record = alert_record(assemble(event, None, None, tree), 0, 0)
    assert record["details"]["file"] == "in memory"
    assert not {"path", "filesystem"} & set(record["details"])
    assert record["process"]["exe"] == "(in memory)"
    socket = socket_of(17, 3)._replace(pid=2300, start_ns=2300, ppid=2200)
    record = alert_record(assemble(socket, None, None, tree), 0, 0)
    assert record["process"]["ancestry"][0]["exe"] == "(in memory)"
    assert "protocol" not in record["tried"]
    assert "NETLINK" not in json.dumps(record)
    record = alert_record(assemble(FileEvent(event=K.FILE_OPEN), None, None, tree), 0, 0)
    assert "filesystem" not in record["details"]


@pytest.mark.parametrize("detector", DETECTORS)
def test_each_finding_is_as_published(detector: str) -> None:
    """With and without a container, and an event."""
    event = SyscallEvent(event=K.SYS_MOUNT, pid=2200, start_ns=2200, ppid=2100)
    for found in (
        finding(detector, None, {}),
        finding(detector, container(), {"tried": 6, "stopped": 6}, event).traced(processes()),
    ):
        check(json.loads(line_of(finding_record(found, "node-1", 0))))


def test_a_finding_has_its_process() -> None:
    """The program, its arguments and its ancestry are those of the event."""
    event = SyscallEvent(event=K.SYS_MOUNT, pid=2200, start_ns=2200, ppid=2100)
    found = finding("sweep", container(), {"tried": 6, "stopped": 6}, event).traced(processes())
    record = finding_record(found, "node-1", 0)
    assert record["process"]["exe"] == "/usr/bin/program"
    assert record["process"]["args"][0] == "sh"
    assert [one["comm"] for one in record["process"]["ancestry"]] == ["", "(runtime exec)"]
    assert record["ended"].startswith("each of 6 calls was stopped")


def test_events_and_samples_are_as_published() -> None:
    """An event of each kind, and the alert with every field."""
    for kind in K:
        if kind:
            check(json.loads(line_of(event_record(make(kind), container(), 0))))
    check(whole_alert())


def test_the_schema_refuses_what_is_not_published() -> None:
    """An unknown field, a wrong word, a missing field: otherwise the checks above prove nothing."""
    record = whole_alert()
    assert problems(record | {"unknown": 1})
    assert problems(record | {"outcome": "stopped"})
    assert problems(record | {"version": 2})
    assert problems({key: value for key, value in record.items() if key != "ended"})
    assert problems(record | {"container": {**record["container"], "posture": {"score": 5}}})


def socket_of(family: int, kind: int, protocol: int = 0) -> SyscallEvent:
    """An attempt to create a socket."""
    return SyscallEvent(event=K.SYS_SOCKET, operand0=family, operand1=kind, operand2=protocol)


def called(kind: EventKind, *operands: int, **fields: Any) -> Event:
    """A system call with these operands and strings (`text`, `second`, `third`)."""
    numbers = {f"operand{dim}": value for dim, value in enumerate(operands)}
    return make(kind, **{"nr": NO_CALL, **numbers, **fields})


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (socket_of(17, 3), "open a socket AF_PACKET SOCK_RAW"),
        (socket_of(16, 3), "open a socket AF_NETLINK SOCK_RAW NETLINK_ROUTE"),
        (socket_of(16, 3, 6), "open a socket AF_NETLINK SOCK_RAW NETLINK_XFRM"),
        (socket_of(2, 1, 6), "open a socket AF_INET SOCK_STREAM IPPROTO_TCP"),
        (socket_of(38, 5), "open a socket AF_ALG SOCK_SEQPACKET"),
        (SyscallEvent(event=K.SYS_CHMOD, operand0=0o4755), "chmod 04755"),
        (called(K.SYS_CHMOD, 0o4755, text=b"/tmp/x"), "chmod 04755 /tmp/x"),
        (called(K.SYS_CHMOD, 0o4755, nr=FCHMOD, args0=7), "chmod 04755 descriptor 7"),
        (called(K.SYS_MOUNT, text=b"ext4", second=b"/dev/sda1", third=b"/mnt"),
         "mount /dev/sda1 at /mnt type ext4"),
        (called(K.SYS_MOUNT, 4096, second=b"/proc", third=b"/x"), "mount /proc at /x with MS_BIND"),
        (called(K.SYS_MOUNT, 32, third=b"/x"), "mount a filesystem at /x with MS_REMOUNT"),
        (called(K.SYS_MOUNT, text=b"ext4"), "mount a filesystem type ext4"),
        (called(K.SYS_MOUNT, text=b"a{b}~", second=b"{source}", third=b"at /y\n"),
         "mount {source} at at /y\\n type a{b}~"),
        (called(K.SYS_UMOUNT, 2, text=b"/sys"), "unmount /sys with MNT_DETACH"),
        (called(K.SYS_UMOUNT), "unmount a filesystem"),
        (called(K.SYS_PIVOT_ROOT, text=b"/a", second=b"/a/b"),
         "make /a the root and put the old root at /a/b"),
        (called(K.SYS_CHROOT, text=b"/host"), "change the root directory to /host"),
        (called(K.SYS_FSOPEN, text=b"proc"), "open a filesystem proc to mount it"),
        (called(K.SYS_FSCONFIG, 1, text=b"source", second=b"/dev/sda1"),
         "configure a filesystem to mount it: source=/dev/sda1 (FSCONFIG_SET_STRING)"),
        (called(K.SYS_FSPICK, text=b"/sys"), "open the filesystem at /sys to reconfigure it"),
        (called(K.SYS_OPEN_TREE, 1, text=b"/sys"), "open the mount /sys with OPEN_TREE_CLONE"),
        (called(K.SYS_MOVE_MOUNT, text=b"/b", second=b"/a"), "attach a mount from /a at /b"),
        (called(K.SYS_MOVE_MOUNT, text=b"/b"), "attach a mount at /b"),
        (called(K.SYS_MOUNT_SETATTR, text=b"/sys"), "change the attributes of the mount /sys"),
        (called(K.SYS_MODULE_LOAD, 1, text=b"x=1"), "load a kernel module with the parameters x=1"),
        (called(K.SYS_MODULE_UNLOAD, text=b"kvm"), "unload the kernel module kvm"),
        (called(K.MODULE_REQUEST, text=b"fs-xfs"), "have the kernel load the module fs-xfs"),
        (called(K.SYS_MEMFD_CREATE, 0, 1, text=b"x"), "create a file in memory named x"),
        (called(K.SYS_MKNOD, 0o060000, text=b"/tmp/sda"), "create a node block-device at /tmp/sda"),
        (called(K.SYS_SWAP, 1, text=b"/dev/sdb"), "change swap space /dev/sdb"),
        (called(K.SYS_SYMLINK, text=b"/etc", second=b"/tmp/x"), "create a symbolic link /tmp/x to /etc"),
        (called(K.SYS_RENAME, 2, text=b"/b", second=b"/a"), "rename /a to /b with RENAME_EXCHANGE"),
        (called(K.SYS_SETXATTR, text=b"security.capability", second=b"/tmp/x"),
         "set security.capability of /tmp/x"),
        (called(K.SYS_SETXATTR), "set inode flags or times of a file"),
        (ExecEvent(event=K.PROCESS_EXEC, path_raw=b"/", path_len=1), "execute in memory"),
        (ExecEvent(event=K.PROCESS_EXEC, path_raw=b"/bin/sh", path_len=7), "execute /bin/sh"),
        (FileEvent(event=K.FILE_OPEN, path_raw=b"/a", path_len=2, open_flags=1), "open /a to write"),
        (FileEvent(event=K.FILE_OPEN, fs_magic=0x9FA0, path_raw=b"/a", path_len=2), "open proc:/a to read"),
    ],
)  # fmt: skip
def test_an_attempt_is_described_in_words(event: Any, words: str) -> None:
    """With the numbers that a reader knows."""
    record = alert_record(assemble(event, None, None, ProcessTree()), 0, 0)
    assert record["tried"] == words


@pytest.mark.parametrize(
    ("outcome", "mechanism", "sentence", "page"),
    [
        ("denied", "lsm", "denied before it took effect", "escape-denied"),
        ("denied", "cgroup", "denied before it took effect", "escape-denied"),
        ("killed", "cgroup", "denied before it took effect, and its process was killed", "escape-denied"),
        ("killed", "kill", "killed; the call may have taken effect: look for a mount in /proc/PID/mountinfo"
         " of the container", "escape-denied"),
        ("killed", "backstop", "killed by the backstop; the call may have taken effect: look for a mount in"
         " /proc/PID/mountinfo of the container", "escape-denied"),
        ("kill-failed", "kill", "not stopped; the kill failed", "escape-not-stopped"),
        ("kill-failed", "cgroup", "denied before it took effect; the kill failed", "escape-not-stopped"),
        ("seen", "observe", "not stopped: the rule only reports", "escape-not-stopped"),
        ("would-deny", "observe", "not stopped (audit mode): in enforce mode it would have been denied",
         "would-have-stopped"),
        ("would-kill", "observe", "not stopped (audit mode): in enforce mode it would have been killed",
         "would-have-stopped"),
    ],
)  # fmt: skip
def test_the_end_of_a_call_is_one_sentence(outcome: str, mechanism: str, sentence: str, page: str) -> None:
    """Whether it was stopped, and whether it may have had an effect."""
    record = whole_alert() | {"event": "mount", "outcome": outcome, "mechanism": mechanism}
    assert ended(record) == sentence
    assert runbook(record) == f"docs/runbooks/{page}.md"


@pytest.mark.parametrize(
    ("severity", "outcome", "page"),
    [
        ("high", "seen", "escape-not-stopped"),
        ("medium", "seen", "medium-not-stopped"),
        ("low", "kill-failed", "medium-not-stopped"),
        ("medium", "killed", "escape-denied"),
        ("medium", "would-kill", "would-have-stopped"),
    ],
)
def test_only_severe_alerts_lead_to_the_runbook_that_reinstalls_the_node(
    severity: str, outcome: str, page: str
) -> None:
    """As the shipped rules of Prometheus, which have an alert of their own for it."""
    record = whole_alert() | {"severity": severity, "outcome": outcome}
    assert page_of(record).name == page


def test_a_kill_by_the_agent_after_an_event_is_no_denial() -> None:
    """Rules on custom probes decide after the event."""
    record = whole_alert() | {"outcome": "killed", "mechanism": "observe"}
    assert ended(record) == "its process was killed after the event: look for what it did before"


def test_commands_are_safe_to_paste() -> None:
    """Names of containers come from outside; a container that is not known has none."""
    record = {"container": {"namespace": "n", "pod": "p; reboot", "id": "0123456789abcdef"}}
    assert next_steps(record) == ["kubectl -n n describe pod 'p; reboot'"]
    alone = {"container": {"id": "0123456789abcdef"}}
    assert next_steps(alone) == ["ringfence events --since 1h -c 0123456789ab"]
    assert next_steps({"container": {"id": "", "cgroup": 5}}) == []


def test_a_call_that_is_no_form_is_named_with_its_operands() -> None:
    """At most four of them."""
    details = {"call": "quotactl", "command": "Q_SETQUOTA", "inode": 5, "empty": ""}
    assert tried("quotactl", details) == "call quotactl with command Q_SETQUOTA"
    assert tried("acct", {}) == "call acct"


def test_a_password_of_a_filesystem_is_no_word_of_an_alert() -> None:
    """fsconfig has the name and the value in two strings."""
    event = called(K.SYS_FSCONFIG, 1, text=b"password", second=b"hunter2")
    record = alert_record(assemble(event, None, None, ProcessTree()), 0, 0)
    assert "password=hunter2" in record["tried"]
    clean = Redactor().record(record)
    assert "hunter2" not in json.dumps(clean)
    assert clean["details"]["key"] == "password"


def test_the_words_of_an_alert_have_no_secret() -> None:
    """Its text is redacted like the fields that it repeats, and fields of custom probes are not repeated."""
    secret = "ghp_" + "a" * 36
    path = f"/srv/{'x' * 190}/{secret}".encode()
    event = FileEvent(event=K.FILE_OPEN, path_raw=path, path_len=len(path))
    record = alert_record(assemble(event, None, None, ProcessTree()), 0, 0)
    assert secret in record["tried"]
    assert secret[:12] not in json.dumps(Redactor().record(record))
    assert tried("probe.logins", {"password": "x"}) == "an event of the custom probe logins"


def test_a_half_killed_call_has_the_result_of_the_kill() -> None:
    """The device was denied in the kernel, and the process killed by the agent."""
    event = make(K.DEVICE_ACCESS, action=Action.KILL, mechanism=Mechanism.CGROUP, pid=5)
    alert = assemble(event, None, None, ProcessTree())
    record = alert_record(alert.answered(KillResult(alert.id, 5, KillOutcome.KILLED)), 0, 0)
    assert record["ended"] == "denied before it took effect, and its process was killed"


if __name__ == "__main__":
    found = sorted(len(line_of(attempt(*one))) for one in rules())
    shown = quantiles(found, n=20)
    sys.stdout.write(
        f"{len(found)} lines, median {shown[9]:.0f} bytes, p95 {shown[-1]:.0f}, most {found[-1]}\n"
    )
