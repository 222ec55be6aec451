# SPDX-License-Identifier: Apache-2.0
"""Custom probes in a real agent: the examples, their
containers, rules on their events, and reloads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent, running_agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.probes import need_bcc, place_example, place_probe, wait_running
from tests.support.waiting import patience, wait_for

pytestmark = [pytest.mark.root]
POLICY = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: on-probes}}
spec:
  selector: {{containers: all}}
  mode: {mode}
  rules:
{rules}
"""
EVIL = """\
    - id: evil-dns
      title: asks for a name that it must not ask for
      severity: high
      attack: T1071.004
      event: probe.dns-queries
      match: {name: "*.evil.example", type: 1}
      exceptions: [{name: good.evil.example, why: a test}]
      action: kill
"""
#: the calls that can send a query
DNS_CALLS = ("sendto", "send", "write", "sendmsg", "sendmmsg")
#: getpgid(2), with its argument, of the task
CALLS = """\
struct event { struct rf_task task; u32 number; };
TRACEPOINT_PROBE(syscalls, sys_enter_getpgid)
{
	struct event e = { .number = args->pid };

	if (rf_identify_current(&e.task))
		rf_send(&e);
	return 0;
}
"""


@pytest.fixture(autouse=True)
def _bcc() -> None:
    need_bcc()


@contextlib.contextmanager
def agent_with(
    directory: Path, probes: Path, *names: str, rules: str = "", mode: str = "enforce", **flags: str
) -> Iterator[Agent]:
    """An agent with custom probes, of which these run."""
    policy = directory / "policy.yaml"
    if rules:
        policy.write_text(POLICY.format(rules=rules.rstrip(), mode=mode))
    else:
        policy = PACK
    seconds = min(int(patience(120)), 600)
    options = {
        "probes-directory": str(probes),
        "probes-timeout": str(seconds),
        **{k.replace("_", "-"): v for k, v in flags.items()},
    }
    with running_agent(directory / "agent", policies=[policy], mode="policy", flags=options) as agent:
        wait_running(agent, *names)
        yield agent


@contextlib.contextmanager
def listening(agent: Agent, label: str) -> Iterator[list[dict[str, Any]]]:
    """The output of `ringfence events --follow --event LABEL`, while it runs."""
    argv = [sys.executable, "-m", "ringfence", "events", "-f", "-o", "json", "-e", label]
    command = [*argv, "--socket", str(agent.socket)]
    found: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        clients = ("ringfence_stream_clients", ())
        wait_for(lambda: agent.metrics().get(clients), "the client to listen")
        pending = b""

        class Lines(list):  # type: ignore[type-arg]
            """Iterates over the lines that are available now."""

            def __iter__(self) -> Iterator[Any]:
                nonlocal pending
                assert child.stdout is not None
                pending += child.stdout.read() or b""
                *lines, pending = pending.split(b"\n")
                found.extend(json.loads(line) for line in lines)
                return iter(found)

        try:
            yield Lines()
        finally:
            child.kill()


def of(records: Sequence[dict[str, Any]], cgroup: Cgroup) -> list[dict[str, Any]]:
    """Returns the records of one container."""
    return [record for record in records if record["container"].get("id") == cgroup.name]


def test_dns_queries_are_seen_by_every_call(tmp_path: Path, probe_act: str) -> None:
    """With the name in lower case, type and server, of
    the querying container; the host's are left out.
    """
    place_example("dns-queries", tmp_path / "p")
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(agent_with(tmp_path, tmp_path / "p", "dns-queries"))
        records = stack.enter_context(listening(agent, "probe.dns-queries"))
        askers = {how: stack.enter_context(new_cgroup()) for how in DNS_CALLS}
        for how, cgroup in askers.items():
            subprocess.run([probe_act, "dns", how, f"{how}.host.example"], check=True)
            assert cgroup.run([probe_act, "dns", how, f"WWW.{how}.Example"]).returncode == 0
            (record,) = wait_for(lambda cgroup=cgroup: of(list(records), cgroup), how)  # type: ignore[misc]
            assert record["event"] == "probe.dns-queries"
            assert record["details"] == {"name": f"www.{how}.example", "type": 1, "server": "127.0.0.1"}
            assert record["process"]["comm"] == "probe_act"
        assert not [r for r in records if r["details"]["name"].endswith(".host.example")]
        samples = agent.metrics()
        for how, cgroup in askers.items():
            labels = (("container", cgroup.name), ("type", "1"))
            assert samples["ringfence_custom_dns_queries_total", labels] == 1, how


def test_slow_block_io_names_its_submitter(tmp_path: Path, probe_act: str) -> None:
    """A write that a container waits for, distinguished from the interrupt that completes it."""
    place_example("slow-block-io", tmp_path / "p", MIN_US=0)
    file = Path("/var/tmp") / f"{os.getpid()}-probe-io"
    try:
        with agent_with(tmp_path, tmp_path / "p", "slow-block-io") as agent, new_cgroup() as cgroup:
            with listening(agent, "probe.slow-block-io") as records:
                assert cgroup.run([probe_act, "sync", str(file)]).returncode == 0
                wait_for(
                    lambda: [r for r in of(list(records), cgroup) if "W" in r["details"]["operation"]],
                    "a write of the container",
                )
                device = os.stat(file).st_dev
                reported = of(list(records), cgroup)
                assert {r["details"]["major"] for r in reported} == {os.major(device)}
                assert all(0 < r["details"]["latency_us"] < patience(10) * 1e6 for r in reported)
                assert max(r["details"]["bytes"] for r in reported) >= 4096

                def count() -> float:
                    return sum(
                        value
                        for (name, labels), value in agent.metrics().items()
                        if name == "ringfence_custom_slow_block_io_seconds_count"
                        and ("container", cgroup.name) in labels
                    )

                # its journal may still write; and for one event, record and count arrive one after
                # the other
                wait_for(lambda: count() == len(of(list(records), cgroup)), "as many counted as reported")
    finally:
        file.unlink(missing_ok=True)


def test_run_queue_latency_is_attributed_to_the_waiting_container(tmp_path: Path) -> None:
    """Two busy processes of one container on one processor: one waits while the other runs."""
    place_example("run-queue-latency", tmp_path / "p", MIN_US=500)
    cpu = str(min(os.sched_getaffinity(0)))
    with agent_with(tmp_path, tmp_path / "p", "run-queue-latency") as agent, new_cgroup() as cgroup:
        busy = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
        argv = ["taskset", "-c", cpu, "/usr/bin/python3", "-c", busy]
        with listening(agent, "probe.run-queue-latency") as records:
            children = [cgroup.popen(argv) for _ in range(2)]
            assert [child.wait(patience(60)) for child in children] == [0, 0]
            reported = wait_for(
                lambda: [r for r in of(list(records), cgroup) if r["process"]["comm"] == "python3"], "waits"
            )
            assert {r["details"]["cpu"] for r in reported} == {int(cpu)}
            assert all(r["details"]["latency_us"] >= 500 for r in reported)


def test_a_rule_kills_only_the_process_of_the_event(tmp_path: Path, probe_act: str) -> None:
    """The process named in the event; not an excepted name, and never a host process."""
    place_example("dns-queries", tmp_path / "p")
    with agent_with(tmp_path, tmp_path / "p", "dns-queries", rules=EVIL) as agent, new_cgroup() as cgroup:
        outside = subprocess.Popen([probe_act, "linger", "send", "a.evil.example"], stdout=subprocess.PIPE)
        exempt = cgroup.popen([probe_act, "linger", "send", "good.evil.example"], stdout=subprocess.PIPE)
        try:
            for child in (outside, exempt):
                assert child.stdout is not None
                assert child.stdout.readline() == b"asked\n"
            ran = cgroup.run([probe_act, "linger", "send", "A.Evil.Example"], timeout=patience(60))
            assert ran.returncode == -signal.SIGKILL
            record = agent.wait_alert("evil-dns", cgroup.name)
            assert (record["action"], record["outcome"]) == ("kill", "killed")
            assert record["response"]["outcome"] == "killed"
            assert record["event"] == "probe.dns-queries"
            assert record["details"]["name"] == "a.evil.example"
            assert record["process"]["exe"] == probe_act
            assert record["rule"]["file"].endswith("policy.yaml")
            assert len(agent.alerts(rule="evil-dns")) == 1
            assert (outside.poll(), exempt.poll()) == (None, None)
            assert agent.metrics()["ringfence_responses_total", (("result", "killed"),)] == 1
        finally:
            outside.kill()
            outside.wait()
            exempt.kill()
            exempt.wait()


def test_in_audit_mode_nothing_is_killed(tmp_path: Path, probe_act: str) -> None:
    """The alert says what would have been done."""
    place_example("dns-queries", tmp_path / "p")
    with agent_with(tmp_path, tmp_path / "p", "dns-queries", rules=EVIL, mode="audit") as agent:
        with new_cgroup() as cgroup:
            assert cgroup.run([probe_act, "dns", "send", "a.evil.example"]).returncode == 0
            record = agent.wait_alert("evil-dns", cgroup.name)
            assert (record["outcome"], record["rule"]["mode"]) == ("would-kill", "audit")


def test_probes_are_loaded_changed_and_removed_without_a_restart(tmp_path: Path, probe_act: str) -> None:
    """A new pair is loaded, a changed one replaced; a bad change keeps the old one."""
    probes = tmp_path / "p"
    probes.mkdir()
    with agent_with(tmp_path, probes) as agent:
        pid = agent.pid
        yaml = place_probe(probes, "calls", CALLS, more="  export: lines\n")
        wait_running(agent, "calls")
        with new_cgroup() as cgroup:
            cgroup.run([probe_act, "calls", "1"])
            agent.wait_record(lambda r: r.get("event") == "probe.calls", "an event")
            yaml.with_suffix(".c").write_text(CALLS.replace("= args->pid", "= 77"))
            loads = ("ringfence_probe_loads_total", (("result", "loaded"),))
            wait_for(lambda: agent.metrics()[loads] == 2, "the new version")
            cgroup.run([probe_act, "calls", "1"])
            agent.wait_record(lambda r: (r.get("details") or {}).get("number") == 77, "its event")
            received = ("ringfence_probe_events_total", (("probe", "calls"),))
            assert agent.metrics()[received] == 2, "counters go on"
            yaml.with_suffix(".c").write_text(CALLS.replace("number = args", "numb = args"))
            state = wait_for(lambda: state_of(agent, "calls", "outdated"), "the bad version")
            assert f"{yaml.with_suffix('.c')}:4:" in state["problems"][0]
            assert "'numb'" in state["problems"][0]
            cgroup.run([probe_act, "calls", "1"])
            wait_for(lambda: agent.metrics()[received] == 3, "an event of the old one")
            yaml.unlink()
            wait_for(lambda: not status(agent)["probes"], "the probe to go")
        assert agent.pid == pid
        assert agent.status is None


def status(agent: Agent) -> dict[str, Any]:
    """`ringfence status`."""
    argv = [sys.executable, "-m", "ringfence", "status", "-o", "json", "--socket", str(agent.socket)]
    got = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert got.returncode in (0, 1), got.stderr
    found: dict[str, Any] = json.loads(got.stdout)
    return found


def state_of(agent: Agent, name: str, word: str) -> dict[str, Any] | None:
    """Returns a probe's row of the status, once it is in that state."""
    rows = [row for row in status(agent)["probes"] if row["name"] == name and row["state"] == word]
    return rows[0] if rows else None


OWNERS = {
    "cgroup": ("{cgroup: owner}", "u64 owner;", "e.owner = bpf_get_current_cgroup_id();"),
    "process": (
        "{pid: pid, start: start}",
        "u64 start; u32 pid;",
        "struct rf_task me = {}; rf_identify_current(&me); e.pid = me.pid; e.start = me.start_ns;",
    ),
}


@pytest.mark.parametrize("how", OWNERS)
def test_an_event_can_name_a_cgroup_or_a_process(tmp_path: Path, probe_act: str, how: str) -> None:
    """Also from a cgroup below the container's; on a hybrid host by the helper's usual name."""
    container, members, fill = OWNERS[how]
    source = f"""
struct event {{ {members} u32 number; }};
TRACEPOINT_PROBE(syscalls, sys_enter_getpgid)
{{
	struct event e = {{}};
	{fill}
	e.number = 5;
	rf_send(&e);
	return 0;
}}
"""
    place_probe(tmp_path / "p", "calls", source, container=container, more="  export: lines\n")
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, new_cgroup() as cgroup:
        subprocess.run([probe_act, "calls", "3"], check=True)
        assert cgroup.child("below").run([probe_act, "calls", "2"]).returncode == 0
        received = ("ringfence_probe_events_total", (("probe", "calls"),))
        wait_for(lambda: agent.metrics()[received] >= 2, "the events")
        wait_for(lambda: len([r for r in agent.records if r.get("event") == "probe.calls"]) >= 2, "lines")
        reported = [r for r in agent.records if r.get("event") == "probe.calls"]
        assert {r["container"].get("id") for r in reported} == {cgroup.name}


def test_host_events_are_reported_where_requested(tmp_path: Path, probe_act: str) -> None:
    """`host: keep`: without a container, and as `host` in metrics."""
    source = CALLS.replace("if (rf_identify_current(&e.task))", "rf_identify_current(&e.task);")
    more = "  host: keep\n  export: lines\n  metrics: [{name: calls, type: counter, help: x}]\n"
    place_probe(tmp_path / "p", "calls", source, more=more)
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent:
        subprocess.run([probe_act, "calls", "1"], check=True)
        record = agent.wait_record(
            lambda r: r.get("event") == "probe.calls" and r["process"]["comm"] == "probe_act", "an event"
        )
        assert record["container"] == {"id": "", "cgroup": 0}
        assert agent.metrics()["ringfence_custom_calls_total", (("container", "host"),)] >= 1


def test_an_agent_without_probes_reports_it(tmp_path: Path) -> None:
    """Off by default: no thread, no metrics, nothing in the status."""
    with running_agent(tmp_path / "agent", policies=[PACK]) as agent:
        assert status(agent)["probes"] == []
        assert not [name for name, _ in agent.metrics() if name.startswith("ringfence_probe")]
