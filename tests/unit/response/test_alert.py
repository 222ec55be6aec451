# SPDX-License-Identifier: Apache-2.0
"""A verdict becomes an alert: outcome, process, ancestry, and how to allow the call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ringfence.abi import (
    DIM_EXE,
    DIM_OBJECT,
    FLAG_COMPAT,
    FLAG_SIGNAL_FAILED,
    MATCH_TEXT,
    Action,
    EventKind,
    Mechanism,
)
from ringfence.containers.model import Container
from ringfence.containers.tree import ProcessTree
from ringfence.events import (
    DeviceEvent,
    Event,
    ExecEvent,
    FileEvent,
    NetEvent,
    SyscallEvent,
    SysctlEvent,
    TaskEvent,
    UnixEvent,
)
from ringfence.export.jsonl import dumps
from ringfence.export.records import alert_record
from ringfence.policy import NodeTiers, compile_policies, load_bytes
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.operand import Bits, Networks, Texts, Values, fnv1a
from ringfence.response.alert import (
    Alert,
    Outcome,
    assemble,
    deduplication_key_of,
    is_half_killed,
    outcome_of,
    program_of,
    severity_of,
)
from ringfence.response.allow import allow_text, exception_keys
from ringfence.response.kill import KillOutcome, KillResult
from ringfence.wire import make

K = EventKind

POLICY = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata:
  name: test-policy
spec:
  selector:
    containers: all
  mode: {mode}
  rules:
    - id: test-rule
      title: A test
      severity: critical
      attack: [T1611]
      event: {event}
      match: any
      action: {action}
"""


def rule_of(event: str, action: str = "deny", mode: str = "enforce", extra: str = "") -> CompiledRule:
    """Returns the rule of a policy about an event."""
    text = POLICY.format(event=event, action=action, mode=mode) + extra
    compiled = compile_policies(load_bytes({"p.yaml": text.encode()}), NodeTiers.usual())
    return next(iter(compiled.rules.values()))


def unshare(**fields: Any) -> SyscallEvent:
    """Returns a verdict on unshare(CLONE_NEWUSER)."""
    return SyscallEvent(event=K.SYS_UNSHARE, operand0=0x10000000, pid=11, start_ns=2, ppid=10, **fields)


@pytest.mark.parametrize(
    ("event", "mode", "action", "expected"),
    [
        (unshare(action=Action.DENY, mechanism=Mechanism.LSM), "enforce", "deny", Outcome.DENIED),
        (unshare(action=Action.KILL, mechanism=Mechanism.KILL), "enforce", "kill", Outcome.KILLED),
        (
            unshare(action=Action.KILL, mechanism=1, flags=FLAG_SIGNAL_FAILED),
            "enforce",
            "kill",
            Outcome.KILL_FAILED,
        ),
        (unshare(action=Action.ALERT), "enforce", "alert", Outcome.SEEN),
        (unshare(action=Action.ALERT), "audit", "alert", Outcome.SEEN),
        (unshare(action=Action.ALERT), "audit", "kill", Outcome.WOULD_KILL),
        # unshare cannot be denied without BPF-LSM: the alert has what would happen here
        (unshare(action=Action.ALERT), "audit", "deny", Outcome.WOULD_KILL),
    ],
)
def test_the_outcome_is_that_of_the_call(event: Event, mode: str, action: str, expected: Outcome) -> None:
    """In audit mode, what it would have been on this node."""
    assert outcome_of(event, rule_of("unshare", action, mode)) is expected


def test_audit_of_a_deniable_event_would_deny() -> None:
    """Writes of sysctls are decided before their effect."""
    event = SysctlEvent(event=K.SYSCTL_ACCESS, action=Action.ALERT)
    assert outcome_of(event, rule_of("sysctl.access", "deny", "audit")) is Outcome.WOULD_DENY


def test_a_kill_from_user_space_is_reported_as_done_or_failed() -> None:
    """cgroup-BPF denies, the agent kills: the alert has both."""
    event = DeviceEvent(event=K.DEVICE_ACCESS, action=Action.KILL, mechanism=Mechanism.CGROUP, pid=11)
    alert = assemble(event, None, rule_of("device.access", "kill"), ProcessTree())
    assert alert.outcome is Outcome.DENIED
    killed = alert.answered(KillResult(alert.id, 11, KillOutcome.KILLED))
    assert killed.outcome is Outcome.KILLED
    failed = alert.answered(KillResult(alert.id, 11, KillOutcome.FAILED, "EPERM"))
    assert failed.outcome is Outcome.KILL_FAILED
    assert failed.response is not None
    assert failed.response.action_id == alert.id


def tree() -> ProcessTree:
    """A shell and its child."""
    made = ProcessTree()
    made.on_event(
        ExecEvent(
            event=K.PROCESS_EXEC,
            pid=10,
            start_ns=1,
            ppid=9,
            path_raw=b"/bin/sh\0",
            path_len=7,
            args_raw=b"sh\0-c\0",
            args_len=6,
        )
    )
    made.on_event(
        TaskEvent(event=K.PROCESS_FORK, pid=10, start_ns=1, child_pid=11, child_tid=11, child_start_ns=2)
    )
    return made


def test_an_alert_has_process_ancestry_and_rule() -> None:
    """All from memory, at the time of the verdict."""
    rule = rule_of("unshare")
    alert = assemble(unshare(action=Action.KILL, mechanism=1), None, rule, tree(), "node-1")
    assert (alert.exe, alert.args, alert.node) == (b"/bin/sh", b"sh\0-c\0", "node-1")
    assert [step.pid for step in alert.ancestry] == [10, 9]
    assert alert.details["flags"] == "CLONE_NEWUSER"
    assert (alert.action, alert.severity, alert.mechanism) == (Action.DENY, "critical", Mechanism.KILL)


def test_alert_ids_are_unique() -> None:
    """Log, metric and action share them."""
    rule, empty = rule_of("unshare"), ProcessTree()
    ids = {assemble(unshare(), None, rule, empty).id for _ in range(1000)}
    assert len(ids) == 1000
    assert max(map(len, ids)) <= 24


def test_a_verdict_of_an_unknown_rule_is_still_an_alert() -> None:
    """Policies changed while the record was in the ring."""
    alert = assemble(unshare(action=Action.KILL, mechanism=1), None, None, ProcessTree())
    assert (alert.outcome, alert.action, alert.severity) == (Outcome.KILLED, Action.KILL, "high")
    assert alert.allow


def test_repetitions_have_the_same_deduplication_key() -> None:
    """Other alerts have another one."""
    rule, empty = rule_of("unshare"), ProcessTree()

    def same(event: Event) -> object:
        return assemble(event, None, rule, empty).deduplication_key

    assert same(unshare(time_ns=1)) == same(unshare(time_ns=2))
    assert same(unshare()) != same(unshare()._replace(operand0=0x20000))


def alert_of(event: Event, exe: bytes = b"/usr/bin/tool", container: Container | None = None) -> Alert:
    """Returns an alert of a process that runs `exe`."""
    made = ProcessTree()
    made.on_event(
        ExecEvent(
            event=K.PROCESS_EXEC,
            pid=event.pid,
            start_ns=event.start_ns,
            path_raw=exe + b"\0",
            path_len=len(exe),
        )
    )
    return assemble(event, container, rule_of(event.kind.label), made)


def _label(value: Any) -> str:
    """Returns a test's id: its event's."""
    return EventKind(value[0]).label if isinstance(value, tuple) else ""


ALLOWABLE: list[tuple[Event, dict[int, int], bytes]] = [
    (
        SysctlEvent(
            event=K.SYSCTL_ACCESS, pid=5, start_ns=1, write=1, name_raw=b"vm/swappiness\0", name_len=13
        ),
        {0: 1},
        b"vm/swappiness",
    ),
    (
        UnixEvent(event=K.UNIX_CONNECT, pid=5, start_ns=1, path_raw=b"/run/x.sock\0", path_len=11),
        {},
        b"/run/x.sock",
    ),
    (
        UnixEvent(event=K.UNIX_CONNECT, pid=5, start_ns=1, path_raw=b"\0abstract", path_len=9),
        {},
        b"\0abstract",
    ),
    (
        FileEvent(
            event=K.FILE_OPEN,
            pid=5,
            start_ns=1,
            fs_magic=0x9FA0,
            mode=0o100644,
            path_raw=b"/sys/vm/swappiness\0",
            path_len=18,
            mnt_ns=4,
        ),
        {0: 0x9FA0, 1: 0o100000},
        b"/sys/vm/swappiness",
    ),
    (
        SyscallEvent(event=K.SYS_SETNS, pid=5, start_ns=1, operand0=0x20000, operand1=4),
        {0: 0x20000, 1: 4},
        b"",
    ),
    (SyscallEvent(event=K.SYS_MOUNT, pid=5, start_ns=1, text_raw=b"tmpfs\0", text_len=5), {0: 0}, b"tmpfs"),
    (
        SyscallEvent(event=K.SYS_SOCKET, pid=5, start_ns=1, operand0=17, operand1=3, operand2=0x300),
        {0: 17, 1: 3, 2: 0x300},
        b"",
    ),
    (
        DeviceEvent(event=K.DEVICE_ACCESS, pid=5, start_ns=1, type=2, access=2, major=10, minor=229),
        {0: 2, 1: 2, 2: 10 << 20 | 229, 3: 10},
        b"",
    ),
    (
        NetEvent(
            event=K.NET_CONNECT,
            pid=5,
            start_ns=1,
            family=2,
            port=80,
            protocol=6,
            address_raw=b"\x0a\0\0\x01".ljust(16, b"\0"),
        ),
        {0: 80, 1: 2, 2: 6},
        b"\x0a\0\0\x01",
    ),
]


@pytest.mark.parametrize(("event", "operands", "text"), ALLOWABLE, ids=_label)
def test_the_proposed_exception_allows_exactly_this_call(
    event: Event, operands: dict[int, int], text: bytes
) -> None:
    """Pasted into the rule, it is a valid policy, holds for the event, and not for another program."""
    exe = rb'/usr/bin/a "tool\n" # of \ours'
    line = dumps(alert_record(alert_of(event, exe), 0, 0))
    assert "\n" not in line
    lines = json.loads(line)["allow"].splitlines()
    begin = lines.index("  exceptions:")
    snippet = [line for line in lines[begin:] if line.startswith("  ")]
    assert lines[0] == "add to rule test-rule:"
    label = event.kind.label
    document = POLICY.format(event=label, action="deny", mode="enforce") + "\n".join(
        "    " + line for line in snippet
    )
    [policy] = load_bytes({"p.yaml": document.encode()}).policies
    [exception] = policy.rules[0].exceptions
    values = {**operands, DIM_EXE: fnv1a(exe)}
    assert holds(exception[event.kind], values, text)
    assert not holds(exception[event.kind], {**values, DIM_EXE: fnv1a(b"/bin/other")}, text)


def holds(match: Any, values: dict[int, int], text: bytes) -> bool:
    """Returns True if all conditions of a match block hold for these operands."""

    def one(predicate: Any) -> bool:
        if isinstance(predicate, (Values, Bits)):
            return predicate.dim not in values or predicate.holds(values[predicate.dim])
        if isinstance(predicate, Texts):
            assert predicate.dim == DIM_OBJECT
            return predicate.holds(text)
        assert isinstance(predicate, Networks)
        return predicate.holds(4, text)

    return all(
        any(all(one(predicate) for predicate in conjunction) for conjunction in condition.alternatives)
        for condition in match
    )


HOSTILE = [
    b"/tmp/a\nexe: /bin/sh",
    b"/tmp/\x1b[31m",
    b"/tmp/\xff",
    b"/tmp/*",
    b"/tmp/" + b"x" * 300,
    '/tmp/"\u202e'.encode(),
]


@pytest.mark.parametrize("exe", HOSTILE)
def test_a_hostile_name_is_omitted_from_the_proposal(exe: bytes) -> None:
    """A pasted text must not contain more than it shows."""
    event = SysctlEvent(event=K.SYSCTL_ACCESS, pid=5, start_ns=1, name_raw=b"vm/a\0", name_len=4)
    assert "exe" not in exception_keys(event, {}, exe)
    text = alert_of(event, exe).allow
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize(
    ("exe", "reason"),
    [
        (b"", "the program is not known, and without it any program of the container could do this"),
        (b"/", "the program ran from memory and has no path, so that any such program could do this"),
        (b"/opt/*", "the path of the program cannot be written in a policy"),
    ],
)
@pytest.mark.parametrize("event", [make(K.SYS_ACCT), unshare()], ids=["acct", "unshare"])
def test_without_a_program_no_exception_is_proposed(event: Event, exe: bytes, reason: str) -> None:
    """Neither for all programs of the container, nor for its image and the whole policy: it says why."""
    container = Container("a" * 64, 5, 0, image="shop/web:1", name="web")
    text = allow_text(event, rule_of("unshare"), {}, exe, container)
    assert text.startswith("no exception to rule test-rule (p.yaml:")
    assert text.endswith(f") is proposed: {reason}")
    assert "shop/web" not in text


def test_an_event_without_words_has_no_exception() -> None:
    """Such as an attack on the agent, which no rule can allow."""
    event = make(K.AGENT_TAMPER)
    assert exception_keys(event, {"path": "/x"}, b"/bin/sh") == {}


def test_only_operands_that_are_exact_are_proposed() -> None:
    """A number, flags or a type would allow more than this call."""
    event = make(K.SYSCTL_ACCESS)
    assert exception_keys(event, {"sysctl": "vm/a", "access": "write"}, b"") == {
        "sysctl": "vm/a",
        "access": "write",
    }
    opened = make(K.FILE_OPEN)
    details = {
        "name": "passwd",
        "flags": "O_RDWR",
        "type": "file",
        "path": "/etc/passwd",
        "filesystem": "tmpfs",
    }
    found = exception_keys(opened, details, b"/bin/sh")
    assert found["path"] == "tmpfs:etc/passwd"
    assert not set(found) & {"flags", "type", "filesystem", "mount"}


def test_how_to_allow_a_call_names_the_rule() -> None:
    """By its place; the whole text, as the alert shows it."""
    rule = rule_of("unshare")
    text = allow_text(make(K.SYS_UNSHARE), rule, {}, b"/bin/sh", None)
    assert text == "add to rule test-rule:\n  exceptions:\n    - exe: /bin/sh"


def test_what_no_policy_allows_is_said() -> None:
    """An attack on the agent has no rule in a file, and a rule may be gone."""
    rule = rule_of("unshare")
    assert "no policy can allow it" in allow_text(make(K.AGENT_TAMPER), rule, {}, b"/bin/sh", None)
    assert "no longer loaded" in allow_text(make(K.SYS_UNSHARE), None, {}, b"/bin/sh", None)


def test_a_word_that_does_not_fit_is_not_proposed() -> None:
    """A text of a policy has MATCH_TEXT bytes with its end; a filesystem without a word has none."""
    event = make(K.SYSCTL_ACCESS)
    longest = b"/" + b"x" * (MATCH_TEXT - 2)
    assert exception_keys(event, {}, longest) == {"exe": longest.decode()}
    assert exception_keys(event, {}, longest + b"x") == {}
    opened = make(K.FILE_OPEN)
    assert exception_keys(opened, {"path": b"/a", "filesystem": "0x1234"}, b"") == {}
    assert exception_keys(opened, {"path": b"", "filesystem": "tmpfs"}, b"") == {"filesystem": "tmpfs"}
    assert exception_keys(event, {"access": "other", "sysctl": b""}, b"") == {}


def test_a_verdict_of_the_cgroup_tier_is_only_denied() -> None:
    """The agent kills afterwards; of other mechanisms, the kernel has."""
    half = DeviceEvent(event=K.DEVICE_ACCESS, action=Action.KILL, mechanism=Mechanism.CGROUP)
    assert is_half_killed(half)
    assert not is_half_killed(half._replace(mechanism=Mechanism.LSM))
    assert not is_half_killed(half._replace(action=Action.DENY))
    failed = half._replace(flags=FLAG_SIGNAL_FAILED)
    assert outcome_of(failed, None) is Outcome.DENIED
    assert outcome_of(half._replace(mechanism=Mechanism.LSM), None) is Outcome.KILLED
    assert outcome_of(half._replace(action=Action.ALERT), None) is Outcome.SEEN


def test_a_program_is_that_of_the_call() -> None:
    """An exec's own; else the one that runs; none if the process is not known."""
    executed = ExecEvent(event=K.PROCESS_EXEC, path_raw=b"/x\0", path_len=2, args_raw=b"x\0y", args_len=3)
    assert program_of(executed, ProcessTree()) == (b"/x", b"x\0y")
    assert program_of(unshare(), tree()) == (b"/bin/sh", b"sh\0-c\0")
    assert program_of(unshare(), ProcessTree()) == (b"", b"")


def test_arguments_and_inodes_make_no_other_alert() -> None:
    """They differ at each repetition; program and outcome do not."""
    event = unshare()
    key = deduplication_key_of(event, Outcome.SEEN, b"/x", {"flags": "A", "args": [1], "inode": 1})
    assert key == deduplication_key_of(event, Outcome.SEEN, b"/x", {"flags": "A", "args": [2], "inode": 2})
    assert key != deduplication_key_of(event, Outcome.SEEN, b"/x", {"flags": "B"})
    assert key != deduplication_key_of(event, Outcome.SEEN, b"/y", {"flags": "A"})
    assert key != deduplication_key_of(event, Outcome.DENIED, b"/x", {"flags": "A"})
    assert key != deduplication_key_of(make(K.SYS_MOUNT), Outcome.SEEN, b"/x", {"flags": "A"})


def test_an_alert_keeps_what_it_was_made_of() -> None:
    """Nothing is suppressed or answered before it is said."""
    container = Container("a" * 64, 5, 0)
    alert = assemble(unshare(flags=FLAG_COMPAT), container, None, ProcessTree())
    assert (alert.container, alert.node, alert.suppressed, alert.response) == (container, "", 0, None)
    assert alert.notes == ("32-bit call",)
    assert assemble(unshare(), None, None, ProcessTree(), suppressed=3).suppressed == 3
    assert severity_of(rule_of("unshare")) == "critical"
