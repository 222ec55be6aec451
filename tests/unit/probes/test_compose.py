# SPDX-License-Identifier: Apache-2.0
"""The source for bcc, and its errors mapped to the operator's own lines, in both files."""

from __future__ import annotations

from pathlib import Path

from ringfence.probes.compose import Hook, compose, flags, hooks
from ringfence.probes.definition import Owner
from ringfence.probes.diagnose import explain
from ringfence.probes.headers import build_id
from tests.unit.probes.documents import definition

SOURCE = """\
/* TRACEPOINT_PROBE(in, comment) */
// RAW_TRACEPOINT_PROBE(in_comment)
RAW_TRACEPOINT_PROBE(sched_switch)
{ return 0; }
TRACEPOINT_PROBE(block, block_rq_issue) { char *s = "TRACEPOINT_PROBE(in, text)"; return 0; }
int kprobe__do_sys_open(struct pt_regs *ctx) { return 0; }
"""


def test_hooks_are_found_with_their_lines() -> None:
    """Not those in comments and strings."""
    assert list(hooks(SOURCE)) == [
        Hook("raw_tracepoint__sched_switch", "raw_tracepoint", "sched_switch", 3),
        Hook("tracepoint__block__block_rq_issue", "tracepoint", "block:block_rq_issue", 5),
        Hook("kprobe__do_sys_open", "kprobe", "do_sys_open", 6),
    ]


def test_lines_are_those_of_the_operators_files() -> None:
    """#line before the source, and before each statement of the YAML."""
    text = compose(definition(), SOURCE)
    assert '#line 1 "p/slow.c"\n/* TRACEPOINT' in text
    assert '\n#line 6 "p/slow.c"\nint kprobe__do_sys_open' in text, "after what bcc puts before a tracepoint"
    assert '#line 8 "p/slow.yaml"\n_Static_assert(sizeof(struct event) > 0' in text
    assert '#line 12 "p/slow.yaml"\n_Static_assert(sizeof(((struct event *)0)->disk) > 0' in text


def test_rates_become_windows_that_add_up() -> None:
    """Tenths of a second, or whole ones where a tenth would hold nothing; 0 is no limit."""
    for rate, window, events in (
        (10_000, "100000000ULL", 1000),
        (5, "1000000000ULL", 5),
        (0, "1000000000ULL", 0),
    ):
        found = flags(definition(rate=rate), "", "", Path("/i"))
        assert f"-DRF_WINDOW_NS={window}" in found
        assert f"-DRF_WINDOW_EVENTS={events}" in found


def test_the_kernel_drops_host_events_only_where_it_can_identify_them() -> None:
    """With the agent's maps, unless the YAML keeps them."""
    found = flags(definition(), "", "/pins", Path("/i"))
    assert {"-DRF_DROP_HOST=1", "-DRF_OWNER=task.container"} <= set(found)
    for probe, maps in (
        (definition(), ""),
        (definition(keep_host=True), "/pins"),
        (definition(owner=Owner("process", pid="a", start="b")), "/pins"),
    ):
        assert not [flag for flag in flags(probe, "", maps, Path("/i")) if "DROP_HOST" in flag]


def message_of(said: str, stage: str = "compile", subject: str = "", message: str = "failed") -> list[str]:
    """Returns the message that the operator reads."""
    answer = {"stage": stage, "subject": subject, "message": message}
    return [str(problem) for problem in explain(definition(), tuple(hooks(SOURCE)), answer, said)]


def test_clangs_errors_keep_their_place() -> None:
    """File, line, column, text; notes and carets are omitted."""
    said = "p/slow.c:5:4: error: no member named 'x' in 'struct event'\n  e.x = 1;\n  ~ ^\np/slow.c:2:1: note: here\n"
    assert message_of(said) == ["p/slow.c:5:4: no member named 'x' in 'struct event'"]


def test_a_missing_member_is_reported_at_its_yaml_line() -> None:
    """A missing field, and a missing struct, which comes first whatever other errors it caused."""
    said = "p/slow.yaml:12:44: error: no member named 'disk' in 'struct event'; did you mean 'dusk'?\n"
    assert message_of(said) == [
        "p/slow.yaml:12:5: spec.fields.disk: struct event in slow.c has no member 'disk'; did you mean 'dusk'?"
    ]
    said = "p/slow.c:9:9: error: unknown\np/slow.yaml:8:16: error: invalid application of 'sizeof' to an incomplete type 'struct event'\n"
    assert message_of(said) == ["p/slow.yaml:8:10: spec.event: slow.c declares no struct 'event'"]


def test_a_member_that_both_files_miss_is_one_mistake() -> None:
    """The YAML's error gives the field; another member of the source stays a separate error."""
    yaml = "p/slow.yaml:9:14: error: no member named 'task' in 'struct event'\n"
    found = message_of(
        "p/slow.c:6:2: error: no member named 'task' in 'struct event'\n"
        "p/slow.c:7:4: error: no member named 'x' in 'struct event'\n" + yaml
    )
    assert found == [
        "p/slow.c:7:4: no member named 'x' in 'struct event'",
        "p/slow.yaml:9:14: spec.container: struct event in slow.c has no member 'task': "
        "`container: task` needs `struct rf_task task;` in it",
    ]


def test_an_absent_tracepoint_is_named() -> None:
    """bcc only reports a missing struct."""
    said = "p/slow.c:5:1: error: incomplete definition of type 'struct tracepoint__block__nothing'\n"
    assert message_of(said) == ["p/slow.c:5:1: this kernel has no tracepoint block:nothing"]


VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
;  @ ringfence.h:74
3: (85) call bpf_probe_read_kernel#113
; x = *p; @ slow.c:17
4: (61) r1 = *(u32 *)(r2 +99)
R2 invalid mem access 'scalar'
processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_verifiers_line_is_one_of_the_operator() -> None:
    """The last one of the operator's source before the failure; without any, that of the program."""
    function = "raw_tracepoint__sched_switch"
    expected = f"the kernel refuses {function}(): R2 invalid mem access 'scalar'"
    assert message_of(VERIFIER, "verify", function) == [f"p/slow.c:17: {expected}"]
    without = "\n".join(line for line in VERIFIER.splitlines() if not line.startswith(";"))
    assert message_of(without, "verify", function) == [f"p/slow.c:3: {expected}"]


def test_a_refused_hook_is_reported_at_its_line() -> None:
    """With the meaning of the kernel's error number."""
    message = "Failed to attach BPF to raw tracepoint (ENOENT)"
    assert message_of("", "attach", "raw_tracepoint__sched_switch", message) == [
        "p/slow.c:3: cannot be attached to raw_tracepoint sched_switch: this kernel has no such hook"
    ]


def test_the_build_id_is_read_from_the_notes(tmp_path: Path) -> None:
    """GNU's note of type 3, whatever precedes it."""
    notes = tmp_path / "notes"
    other = (6).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"\1\0\0\0" + b"Linux\0\0\0" + b"\0\0\0\0"
    own = (4).to_bytes(4, "little") + (20).to_bytes(4, "little") + b"\3\0\0\0" + b"GNU\0" + bytes(range(20))
    notes.write_bytes(other + own)
    assert build_id(notes) == bytes(range(20)).hex()
    assert build_id(tmp_path / "absent")
