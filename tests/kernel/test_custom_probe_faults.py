# SPDX-License-Identifier: Apache-2.0
"""A bad custom probe harms only itself, and gives one error with a position."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ringfence.containers.hierarchy import detect
from ringfence.errors import Error, ProbeError
from ringfence.probes import compiler
from ringfence.probes.compiler import Workshop
from ringfence.probes.headers import header_tree
from ringfence.probes.layout import new_decoder
from ringfence.probes.read import read_file
from tests.kernel.test_custom_probes import CALLS, agent_with, state_of, status
from tests.support.agent import Agent, Sample, running_agent
from tests.support.cgroups import new_cgroup
from tests.support.policies import PACK
from tests.support.probes import need_bcc, place_example, place_probe, wait_running
from tests.support.waiting import patience, process_state, wait_for

pytestmark = [pytest.mark.root]
EVENT = "struct event { struct rf_task task; u32 number; };\n"
#: nested loops that clang unrolls without end if it is not stopped
EXPLODES = "#pragma unroll\nfor (int i = 0; i < 4000; i++) {\n" * 2
ENDLESS = "volatile u32 n = 0; while (1) { if (n == 7) break; }"


@pytest.fixture(autouse=True)
def _bcc() -> None:
    need_bcc()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One header tree for all."""
    return Workshop(tmp_path_factory.mktemp("state"), detect().controller, seconds=patience(120))


def program(body: str, hook: str = "RAW_TRACEPOINT_PROBE(sched_switch)") -> str:
    """Returns a source with one hook, in its third line."""
    return f"{EVENT}\n{hook}\n{{\n\tstruct event e = {{}};\n\t{body}\n\treturn 0;\n}}\n"


def refusal(workshop: Workshop, yaml: Path) -> list[str]:
    """Returns the messages that the operator reads, without the directory."""

    def load() -> None:
        probe = read_file(yaml)
        built = workshop.build(probe)
        built.close()
        new_decoder(probe, built.size, built.shape)

    with pytest.raises(ProbeError) as caught:
        load()
    return [str(problem).replace(f"{yaml.parent}/", "") for problem in caught.value.problems]


BAD = {
    "C that does not compile": (
        program("e.nmber = 1; rf_send(&e);"),
        r"bad\.c:6:4: no member named 'nmber' in 'struct event'; did you mean 'number'\?",
    ),
    "another struct is sent": (
        program("struct { int x; } o = {}; rf_send(&o);"),
        r"bad\.c:6:\d+: rf_send\(\) takes a pointer to the struct that `event` of the YAML names: event",
    ),
    "the struct is called otherwise": (
        program("rf_send(&e);").replace("struct event", "struct other"),
        r"bad\.yaml:6:10: spec\.event: bad\.c declares no struct 'event'",
    ),
    "a field is missing": (
        program("rf_send(&e);").replace("u32 number", "u32 numbers"),
        r"bad\.yaml:8:\d+: spec\.fields\.number: .* has no member 'number'; did you mean 'numbers'\?",
    ),
    "a field has another type": (
        program("rf_send(&e);").replace("u32 number", "char number[8]"),
        r"bad\.yaml:8:\d+: spec\.fields\.number: is char\[8\], not a number: say `type: text`",
    ),
    "no field names the container": (
        program("rf_send(&e);").replace("struct rf_task task; ", ""),
        r"bad\.yaml:7:14: spec\.container: struct event in bad\.c has no member 'task': .*rf_task.*",
    ),
    "it does not verify": (
        program("u32 *p = (void *)8; e.number = *p; rf_send(&e);"),
        r"bad\.c:\d+: the kernel refuses raw_tracepoint__sched_switch\(\): .*invalid mem access.*",
    ),
    "it loops for ever": (
        program(ENDLESS),
        r"bad\.c:\d+: the kernel refuses raw_tracepoint__sched_switch\(\): .*(infinite loop|too complex).*",
    ),
    "a tracepoint that is not there": (
        program("rf_send(&e);", "TRACEPOINT_PROBE(block, block_nothing)"),
        r"bad\.c:3: this kernel has no tracepoint block:block_nothing",
    ),
    "a raw tracepoint that is not there": (
        program("rf_send(&e);", "RAW_TRACEPOINT_PROBE(sched_nothing)"),
        r"bad\.c:3: this kernel has no raw tracepoint sched_nothing",
    ),
    "a function that is not there": (
        program("rf_send(&e);", "int kprobe__rf_no_such_function(struct pt_regs *ctx)"),
        r"bad\.c:3: this kernel has no (kprobes|function rf_no_such_function).*",
    ),
    "a function without a hook": (
        program("rf_send(&e);", "int look(void *ctx)"),
        r"bad\.c:3: look\(\) has no hook in its name: see docs/reference/custom-probes\.md",
    ),
    "no program at all": (EVENT, r"bad\.c: has no program: .*"),
    "a hook that decides": (
        program("rf_send(&e);", "LSM_PROBE(file_open, struct file *file)"),
        r"bad\.c:3: a probe can only observe: LSM_PROBE is not allowed.*",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_one_error_gives_the_position(tmp_path: Path, workshop: Workshop, what: str) -> None:
    """In the operator's own files."""
    source, expected = BAD[what]
    found = refusal(workshop, place_probe(tmp_path, "bad", source))
    assert len(found) == 1, found
    assert re.fullmatch(expected, found[0]), found[0]


def test_memory_is_bounded(tmp_path: Path, workshop: Workshop) -> None:
    """A compiler that needs more than its limit is ended; the message names the key."""
    small = Workshop(workshop.directory, workshop.subsystem, memory=96 << 20, seconds=patience(60))
    (found,) = refusal(small, place_probe(tmp_path, "bad", program("rf_send(&e);")))
    assert found.startswith("bad.c: bcc needed more memory than `probes.memory` allows"), found


def test_time_is_bounded(tmp_path: Path, workshop: Workshop) -> None:
    """A source that compiles for ever is ended with its process."""
    source = program(EXPLODES + "e.number += bpf_ktime_get_ns();" + "}" * 2 + "rf_send(&e);")
    short = Workshop(workshop.directory, workshop.subsystem, memory=4 << 30, seconds=3)
    began = time.monotonic()
    (found,) = refusal(short, place_probe(tmp_path, "bad", source))
    assert time.monotonic() - began < patience(60)
    assert re.match(r"bad\.c: .*probes\.timeout", found), found
    assert not children_of(os.getpid())


def test_without_bcc_the_error_says_what_to_install(
    tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This Python has no bcc: the child finds that out and reports it."""
    monkeypatch.setattr(compiler, "find_python", lambda: sys.executable)
    with pytest.raises(Error, match=r"need bcc, which is not installed") as caught:
        workshop.build(read_file(place_example("run-queue-latency", tmp_path)))
    assert "apt-get install python3-bpfcc" in caught.value.hint
    assert not isinstance(caught.value, ProbeError)


def test_without_the_capability_the_error_names_it(tmp_path: Path) -> None:
    """bcc's process mounts in its own namespace; the agent itself needs less."""
    yaml = place_example("run-queue-latency", tmp_path)
    environment = {
        **os.environ,
        "RINGFENCE_STATE_DIR": str(tmp_path / "state"),
        "RINGFENCE_PROBES_TIMEOUT": "120",
    }
    less = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    argv = [*less, sys.executable, "-m", "ringfence", "probe", "check", str(yaml)]
    got = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert got.returncode == 2
    assert "it needs CAP_SYS_ADMIN" in got.stderr, got.stderr


def test_a_helper_that_the_kernel_lacks_is_replaced(tmp_path: Path, workshop: Workshop) -> None:
    """bcc's headers name helpers that some kernels
    lack. Here one of this kernel's helpers is hidden.
    """
    tree = header_tree(workshop.directory / "headers")
    types = tree / "include/vmlinux.h"
    whole = types.read_text()
    try:
        types.write_text(re.sub(r"\bBPF_FUNC_timer_cancel\b", "BPF_FUNC_hidden", whole))
        workshop.build(read_file(place_example("run-queue-latency", tmp_path)), attach=False).close()
        unknown = tree / "include/linux/ringfence_unknown.h"
        assert "#define BPF_FUNC_timer_cancel 0x7fffff00" in unknown.read_text()
        unknown.write_text("")
    finally:
        types.write_text(whole)


def test_checking_attaches_nothing(tmp_path: Path, workshop: Workshop) -> None:
    """The kernel verifies; no descriptor that attaches is returned."""
    built = workshop.build(read_file(place_example("run-queue-latency", tmp_path)), attach=False)
    assert built.links == ()
    built.close()


def children_of(pid: int) -> list[int]:
    """Returns the compilers below a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == pid and b"_bcc_child" in command:
                found.append(int(entry.name))
    return found


def test_the_agent_survives_a_crash_of_the_child(tmp_path: Path, probe_act: str) -> None:
    """Killed in between: that probe has failed and says how; others load, the agent keeps working."""
    probes = tmp_path / "p"
    probes.mkdir()
    killed: list[int] = []

    def kill_first(pid: int) -> None:
        killed.append(wait_for(lambda: children_of(pid), "bcc's process", every=0.002)[0])
        os.kill(killed[0], signal.SIGKILL)

    flags = {"probes-directory": str(probes)}
    with running_agent(tmp_path / "agent", policies=[PACK], flags=flags) as agent:
        hunter = threading.Thread(target=kill_first, args=(agent.pid,))
        hunter.start()
        place_probe(probes, "calls", CALLS, more="  export: lines\n")
        state = wait_for(lambda: state_of(agent, "calls", "failed"), "the crash to be reported")
        hunter.join()
        assert state["problems"] == [f"{probes}/calls.c: bcc's process ended with SIGKILL"]
        assert "custom probes were refused: calls" in status(agent)["problems"]
        place_probe(probes, "calls", CALLS + "\n", more="  export: lines\n")
        wait_for(lambda: state_of(agent, "calls", "running"), "the next try", every=0.2)
        with new_cgroup() as cgroup:
            assert cgroup.run([probe_act, "calls", "1"]).returncode == 0
            agent.wait_record(lambda r: r.get("event") == "probe.calls", "an event")
            assert cgroup.run(["unshare", "-U", "true"]).returncode
            agent.wait_record(lambda r: r.get("kind") == "alert", "an alert of the pack")
        assert agent.status is None


def test_the_agent_ends_at_once_while_bcc_works(tmp_path: Path) -> None:
    """It ends bcc's process, too."""
    source = program(EXPLODES + "e.number += bpf_ktime_get_ns();" + "}" * 2 + "rf_send(&e);")
    place_probe(tmp_path / "p", "slow", source)
    flags = {"probes-directory": str(tmp_path / "p"), "probes-memory": "4GiB"}
    with running_agent(tmp_path / "agent", policies=[PACK], flags=flags) as agent:
        (child,) = wait_for(lambda: children_of(agent.pid), "bcc's process")
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < patience(40)
        wait_for(lambda: process_state(child) in "-Z", "bcc's process to end")


Samples = dict[Sample, float]


def dropped(samples: Samples, reason: str) -> float:
    """Returns the events of the probe `calls` that were dropped."""
    labels = (("probe", "calls"), ("reason", reason))
    return samples["ringfence_probe_events_dropped_total", labels]


def of_probe(samples: Samples, name: str) -> float:
    """Returns a counter of the probe `calls`."""
    return samples[f"ringfence_probe_events{name}_total", (("probe", "calls"),)]


def all_read(agent: Agent) -> Samples:
    """Returns the metrics, once the agent has received all that was emitted."""

    def look() -> Samples | None:
        samples = agent.metrics()
        return samples if of_probe(samples, "") == of_probe(samples, "_emitted") > 0 else None

    return wait_for(look, "all to be read")


@pytest.mark.long
def test_a_flood_is_limited_and_counted(tmp_path: Path, probe_act: str) -> None:
    """Every call is either received or counted as
    dropped; another probe and the agent are unaffected.
    """
    count = 200_000
    place_probe(tmp_path / "p", "calls", CALLS, more="  rate: 1000\n")
    place_example("dns-queries", tmp_path / "p")
    with agent_with(tmp_path, tmp_path / "p", "calls", "dns-queries") as agent, new_cgroup() as cgroup:
        began = time.monotonic()
        assert cgroup.run([probe_act, "calls", str(count)]).returncode == 0
        took = time.monotonic() - began
        assert cgroup.run([probe_act, "dns", "send", "a.example"]).returncode == 0
        queries = ("ringfence_probe_events_total", (("probe", "dns-queries"),))
        wait_for(lambda: agent.metrics()[queries] == 1, "the other probe's event")
        samples = all_read(agent)
        assert of_probe(samples, "_emitted") + dropped(samples, "rate_limit") >= count
        # A window of a tenth of a second more at each end, and what racing CPUs let through.
        assert of_probe(samples, "_emitted") <= 1000 * (took + 0.3) * 1.1
        assert dropped(samples, "ring_full") == dropped(samples, "decode") == 0
        labels = (("probe", "calls"), ("reason", "rate_limit"))
        assert state_of(agent, "calls", "running")
        assert samples["ringfence_probe_events_dropped_total", labels] > 0


@pytest.mark.long
def test_events_beyond_the_rings_capacity_are_counted(tmp_path: Path, probe_act: str) -> None:
    """While the agent is stopped: emitted events equal the received ones, the rest is `ring_full`."""
    count = 20_000
    place_probe(tmp_path / "p", "calls", CALLS, more="  rate: 0\n  ring: 64KiB\n")
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, new_cgroup() as cgroup:
        before = agent.metrics()
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            assert cgroup.run([probe_act, "calls", str(count)]).returncode == 0
        finally:
            os.kill(agent.pid, signal.SIGCONT)
        samples = all_read(agent)
        emitted = of_probe(samples, "_emitted") - of_probe(before, "_emitted")
        lost = dropped(samples, "ring_full") - dropped(before, "ring_full")
        assert emitted <= 64 * 1024 / 56  # bytes of the ring, of a record
        assert emitted + lost == pytest.approx(count, abs=20)  # a shell calls getpgid(2), too
        assert lost > 0


def test_commands_report_it_in_two_lines(tmp_path: Path) -> None:
    """`probe check` of a bad one: file, line, column, and an exit code."""
    yaml = place_probe(tmp_path, "bad", program("e.nmber = 1;"))
    environment = {
        **os.environ,
        "RINGFENCE_STATE_DIR": str(tmp_path / "state"),
        "RINGFENCE_PROBES_TIMEOUT": "120",
    }
    argv = [sys.executable, "-m", "ringfence", "probe", "check", str(yaml)]
    got = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert (got.returncode, got.stdout) == (2, "")
    (line,) = got.stderr.splitlines()
    assert re.fullmatch(rf"ringfence: error: {tmp_path}/bad\.c:6:4: no member named 'nmber' .*", line)


@pytest.mark.long
def test_the_skeleton_works_unchanged(tmp_path: Path, probe_act: str) -> None:
    """`probe new`, `probe check` and `probe run`, as a new user would run them."""
    environment = {
        **os.environ,
        "RINGFENCE_STATE_DIR": str(tmp_path / "state"),
        "RINGFENCE_PROBES_TIMEOUT": "120",
        "RINGFENCE_CONTAINERS_PATTERNS": f"{os.environ.get('RINGFENCE_TEST_PREFIX', 'rftest-')}*",
    }

    def ringfence(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "ringfence", "probe", *words]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )

    made = ringfence("new", "slow-sync")
    assert made.stdout.splitlines()[:2] == ["slow-sync.c", "slow-sync.yaml"]
    assert ringfence("new", "slow-sync").returncode == 1, "it overwrites nothing"
    checked = ringfence("check", "slow-sync.yaml")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "slow-sync: ok: tracepoint:syscalls:sys_enter_fsync" in checked.stdout
    yaml = tmp_path / "slow-sync.yaml"
    yaml.write_text(yaml.read_text().replace("MIN_US: 1000", "MIN_US: 0"))
    argv = [sys.executable, "-m", "ringfence", "probe", "run", "--count", "1", "-o", "json", "slow-sync.c"]
    with new_cgroup() as cgroup, subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as child:  # fmt: skip
        try:
            assert child.stderr is not None
            assert "slow-sync is attached to tracepoint" in child.stderr.readline()
            assert cgroup.run([probe_act, "sync", str(tmp_path / "file")]).returncode == 0
            out, _ = child.communicate(timeout=patience(60))
        finally:
            child.kill()  # else the end of the block would wait for it
        assert child.returncode == 0
        assert f'"id": "{cgroup.name}"' in out
        assert '"event": "probe.slow-sync"' in out


def test_examples_compile_and_verify(tmp_path: Path, workshop: Workshop) -> None:
    """All of examples/probes compile and verify unchanged."""
    for name in ("dns-queries", "run-queue-latency", "slow-block-io"):
        probe = read_file(place_example(name, tmp_path))
        built = workshop.build(probe, attach=False)
        new_decoder(probe, built.size, built.shape)
        built.close()


def test_wait_running_notices_a_failure(tmp_path: Path) -> None:
    """The helper of these tests does not wait for a probe that failed."""
    place_probe(tmp_path / "p", "bad", "syntax error")
    flags = {"probes-directory": str(tmp_path / "p")}
    with running_agent(tmp_path / "agent", policies=[PACK], flags=flags) as agent:
        with pytest.raises(AssertionError, match="probe refused"):
            wait_running(agent, "bad")
