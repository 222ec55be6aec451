# SPDX-License-Identifier: Apache-2.0
"""Which events of a custom probe leave the kernel:
by sampling, per-container rate, active version.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.test_custom_probes import agent_with, state_of
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.probes import need_bcc, place_example, place_probe, wait_running
from tests.support.waiting import patience, wait_for

pytestmark = [pytest.mark.root]
#: getpgid(4242): only the test makes this call
SOURCE = """\
struct event { struct rf_task task; u32 number; };
TRACEPOINT_PROBE(syscalls, sys_enter_getpgid)
{
	struct event e = { .number = args->pid };

	if ((args->pid == 4242) && rf_identify_current(&e.task))
		rf_send(&e);
	return 0;
}
"""
COUNTER = "  metrics: [{name: asked, type: counter, help: x}]\n"


@pytest.fixture(autouse=True)
def _bcc() -> None:
    need_bcc()


@contextlib.contextmanager
def calling(cgroup: Cgroup, probe_act: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the container that calls as long as that file exists."""
    file.touch()
    child = cgroup.popen([probe_act, "calls-while", str(file)], stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        file.unlink(missing_ok=True)
        child.wait(patience(60))


def calls_made(child: subprocess.Popen[bytes], file: Path) -> int:
    """End the process. Returns how often it called."""
    file.unlink()
    out, _ = child.communicate(timeout=patience(60))
    return int(out)


def has_loaded(agent: Agent, times: int) -> bool:
    """Returns True if the agent has loaded probes that often."""
    return agent.metrics()["ringfence_probe_loads_total", (("result", "loaded"),)] == times


def has_more(agent: Agent, than: float) -> bool:
    """Returns True if the probe `calls` has received more events."""
    return figures(agent)["total"] > than


def figures(agent: Agent) -> dict[str, float]:
    """Returns counters of the probe `calls`: received, emitted, and dropped by reason."""
    found = {}
    for (name, labels), value in agent.metrics().items():
        words = dict(labels)
        if words.get("probe") == "calls" and name.startswith("ringfence_probe_events"):
            found[words.get("reason", name.removeprefix("ringfence_probe_events").strip("_"))] = value
    return found


def settled(agent: Agent) -> dict[str, float]:
    """Returns the same, once all that was emitted is received."""

    def look() -> dict[str, float] | None:
        now = figures(agent)
        return now if now["total"] == now["emitted_total"] else None

    return wait_for(look, "all to be read")


def test_a_sample_of_the_events_is_sent(tmp_path: Path, probe_act: str) -> None:
    """At random: the expected share is sent, the others are counted as sampled, none is lost."""
    place_probe(tmp_path / "p", "calls", SOURCE, more="  sample: 4\n  rate: 0\n  ring: 4MiB\n")
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, new_cgroup() as cgroup:
        file = tmp_path / "on"
        with calling(cgroup, probe_act, file) as child:
            wait_for(lambda: figures(agent)["total"] > 500, "some events")
            made = calls_made(child, file)
        now = settled(agent)
        assert now["total"] + now["sampled"] + now["ring_full"] == made
        sent = now["total"] + now["ring_full"]
        # A binomial of n calls and p = 1/4: six deviations happen once in a thousand million runs.
        assert abs(sent - made / 4) < 6 * math.sqrt(made * 3 / 16)


def test_a_noisy_container_does_not_displace_a_quiet_one(tmp_path: Path, probe_act: str) -> None:
    """Each has its own rate: all events of the quiet one arrive, beside a flood that is limited."""
    quiet_calls = 20
    place_probe(tmp_path / "p", "calls", SOURCE.replace("== 4242)", "== 4242 || args->pid == 0)"),
                more="  rate: 500\n" + COUNTER)  # fmt: skip
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent:
        with new_cgroup("noisy") as noisy, new_cgroup("quiet") as quiet:
            file = tmp_path / "on"
            with calling(noisy, probe_act, file) as child:
                wait_for(lambda: figures(agent)["rate_limit"] > 1000, "the flood to be limited")
                assert quiet.run([probe_act, "calls", str(quiet_calls)]).returncode == 0
                calls_made(child, file)
            settled(agent)
            counted = ("ringfence_custom_asked_total", (("container", quiet.name),))
            # A shell on the way into the container calls getpgid(0) once or twice, too.
            assert quiet_calls <= agent.metrics()[counted] <= quiet_calls + 4


def test_a_node_of_noisy_containers_is_bounded(tmp_path: Path, probe_act: str) -> None:
    """Ten may use up their rate in one window: of twenty that try, no more get through."""
    place_probe(tmp_path / "p", "calls", SOURCE, more="  rate: 1\n")
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, contextlib.ExitStack() as stack:
        file = tmp_path / "on"
        noisy = [stack.enter_context(new_cgroup(f"noisy{number}")) for number in range(20)]
        began = time.monotonic()
        children = [stack.enter_context(calling(cgroup, probe_act, file)) for cgroup in noisy]
        wait_for(lambda: figures(agent)["total"] >= 100, "ten windows of a second")
        file.unlink()
        for child in children:
            child.communicate(timeout=patience(60))
        took = time.monotonic() - began
        now = settled(agent)
        assert now["rate_limit"] > 1000
        # A window may start before the first call and one after the last; CPUs race for the last
        # place.
        assert now["total"] <= (10 + 1) * (took + 2)


def test_a_replacement_reports_each_event_once(tmp_path: Path, probe_act: str) -> None:
    """Calls without a pause during two replacements: received and lost add up to the calls made.

    Except for a call that was between both programs at the moment of a replacement.
    """
    yaml = place_probe(tmp_path / "p", "calls", SOURCE, more="  rate: 0\n  ring: 4MiB\n" + COUNTER)
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, new_cgroup() as cgroup:
        file = tmp_path / "on"
        versions = (2, 3)
        with calling(cgroup, probe_act, file) as child:
            wait_for(lambda: figures(agent)["total"] > 100, "events of the first version")
            for version in versions:
                yaml.with_suffix(".c").write_text(SOURCE + "\n" * version)
                wait_for(partial(has_loaded, agent, version), "the next version")
                before = figures(agent)["total"]
                wait_for(partial(has_more, agent, before), "its events")
            made = calls_made(child, file)
        now = settled(agent)
        reported = now["total"] + now["ring_full"]
        assert made <= reported <= made + len(versions)  # a tracepoint runs the older program first
        counted = ("ringfence_custom_asked_total", (("container", cgroup.name),))
        assert agent.metrics()[counted] == now["total"]
        assert state_of(agent, "calls", "running")


def resident(agent: Agent) -> int:
    """Returns the agent's resident memory in bytes."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) << 10


def test_three_probes_cost_the_agent_under_five_megabytes(tmp_path: Path) -> None:
    """The examples, compared with an agent without: LLVM's memory is freed with its process."""
    with running_agent(tmp_path / "without", policies=[PACK]) as plain:
        examples = ("dns-queries", "run-queue-latency", "slow-block-io")
        for name in examples:
            place_example(name, tmp_path / "p")
        flags = {"probes-directory": str(tmp_path / "p")}
        with running_agent(tmp_path / "with", policies=[PACK], flags=flags) as agent:
            wait_running(agent, *examples, seconds=120)
            plain.metrics()
            wait_for(
                lambda: resident(agent) - resident(plain) < 5_000_000,
                f"less than 5 MB more than {resident(plain)}",
                every=0.2,
            )
