# SPDX-License-Identifier: Apache-2.0
"""Custom probes: what three cost the agent, how long one takes to load, what is lost at which rate."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ringfence.containers.hierarchy import detect
from ringfence.probes.compiler import Workshop
from ringfence.probes.read import read_file
from tests.support.agent import Agent
from tests.support.cgroups import new_cgroup
from tests.support.probes import EXAMPLES, place_example, place_probe, wait_running
from tests.support.waiting import wait_for
from tools.bench.memory_bench import cpu_seconds, resident_mb
from tools.bench.record import Bar, Measurement, Row, row
from tools.bench.setup import bench_agent

MOST_GROWTH_MB, MOST_LOAD_S, SUSTAINED = 5.0, 3.0, 50_000
NAMES = ("dns-queries", "run-queue-latency", "slow-block-io")
#: events at an even pace: a task that makes so many calls, then sleeps until the next millisecond
PACED = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long rate = atol(argv[1]), seconds = atol(argv[2]), sent = 0;
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		double passed = now.tv_sec - begin.tv_sec + (now.tv_nsec - begin.tv_nsec) / 1e9;
		long due = passed * rate;

		if (passed >= seconds)
			break;
		/* What was missed while others ran is not made up for: the pace is never above the rate. */
		if (due - sent > rate / 500)
			begin.tv_nsec += (due - sent - rate / 500) * 1000000000 / rate;
		for (; sent < due; sent++)
			syscall(SYS_getpgid, 0);
		usleep(500);
	}
	printf("%ld\\n%f\\n", sent, now.tv_sec - begin.tv_sec + (now.tv_nsec - begin.tv_nsec) / 1e9);
	return 0;
}
"""
SOURCE = """\
struct event { struct rf_task task; u64 number; };
TRACEPOINT_PROBE(syscalls, sys_enter_getpgid)
{
	struct event e = { .number = 1 };

	if (rf_identify_current(&e.task))
		rf_send(&e);
	return 0;
}
"""
RINGS = ("512KiB", "4MiB")  # what a probe has that says nothing, and the most that one can have
METRICS = """\
  rate: 0
  ring: {ring}
  metrics:
    - {{name: bench_calls, type: counter, help: Calls.}}
    - {{name: bench_numbers, type: histogram, help: Numbers., value: number, buckets: [1, 10, 100]}}
"""


def measure(*, quick: bool) -> Measurement:
    """Memory, then load times, then rates."""
    rounds, seconds = (2, 2) if quick else (3, 10)
    growth = [_growth() for _ in range(rounds)]
    loads, processor = _loads(rounds)
    rates = list(_rates(seconds))
    at = next(one for one in rates if one[:2] == (RINGS[-1], SUSTAINED))
    rows = [row("RSS of the agent: three examples, beyond none", growth, "MB", best=False)]
    rows += [row(f"load of {name}, warm headers", samples, "s", best=True) for name, samples in loads.items()]
    rows += [row(f"load of {name}, processor time", some, "s", best=True) for name, some in processor.items()]
    for ring, wanted, real, made, received, lost, cpu in rates:
        case = f"ring {ring}, {wanted}/s asked"
        rows.append(Row(f"{case}: sent", real, "/s", real, real, [made, received, lost]))
        rows.append(Row(f"{case}: lost", lost, "", lost, lost, []))
        rows.append(Row(f"{case}: CPU of the agent", cpu, "s/s", cpu, cpu, []))
    unexplained = sum(abs(made - received - lost) for _, _, _, made, received, lost, _ in rates)
    return Measurement(
        "probes",
        f"three examples in the agent, {rounds} agents with and without in turn, VmRSS when all run for 2 s; "
        f"{rounds} rounds of loads, wall clock and processor time of the whole; "
        f"one task that makes calls at a pace for {seconds} s, two metrics of each event",
        rows,
        [
            Bar("RSS growth with three custom probes", rows[0].value, MOST_GROWTH_MB, "MB"),
            # One thread computes: on an idle machine this is the wall clock's time.
            *(
                Bar(f"load of {name}, processor time", min(some), MOST_LOAD_S, "s")
                for name, some in processor.items()
            ),
            Bar(f"lost at {SUSTAINED}/s, ring {RINGS[-1]}", at[5], 0, ""),
            Bar(f"pace that was reached of {SUSTAINED}/s", at[2], SUSTAINED * 0.95, "/s", least=True),
            Bar("calls that were neither received nor counted as lost", unexplained, 0, ""),
        ],
        ["samples of `sent` are: calls made, events received, events lost; events of 56 bytes"],
    )


def _growth() -> float:
    """MB, of two agents one after the other."""
    with tempfile.TemporaryDirectory(prefix="rfbench-") as directory:
        probes = Path(directory) / "p"
        for name in NAMES:
            place_example(name, probes)
        (Path(directory) / "none").mkdir()
        found = []
        for wanted in ((), NAMES):
            place = probes if wanted else Path(directory) / "none"
            flags = {"probes-directory": str(place)} if wanted else {}
            with bench_agent(**flags) as agent:
                wait_running(agent, *wanted, seconds=60)
                agent.metrics()
                time.sleep(2)
                found.append(resident_mb(agent.pid))
    return found[1] - found[0]


def _loads(rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds for each example, interleaved, and processor time; the header tree is made before."""
    samples: dict[str, list[float]] = {name: [] for name in NAMES}
    processor: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="rfbench-") as directory:
        workshop = Workshop(Path(directory), detect().controller)
        workshop.build(read_file(EXAMPLES / f"{NAMES[0]}.yaml")).close()
        for _ in range(rounds):
            for name in NAMES:
                before = _spent()
                built = workshop.build(read_file(EXAMPLES / f"{name}.yaml"))
                built.close()
                samples[name].append(built.seconds)
                processor[name].append(_spent() - before)
    return samples, processor


def _spent() -> float:
    """Processor time of this process and of its children so far."""
    used = [resource.getrusage(target) for target in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def _paced_agent(ring: str) -> Iterator[tuple[Agent, str]]:
    with tempfile.TemporaryDirectory(prefix="rfbench-") as directory:
        source, program = Path(directory) / "paced.c", Path(directory) / "paced"
        source.write_text(PACED)
        subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(source)], check=True)
        place_probe(Path(directory) / "p", "calls", SOURCE, more=METRICS.format(ring=ring))
        with bench_agent(probes_directory=str(Path(directory) / "p")) as agent:
            wait_running(agent, "calls", seconds=60)
            yield agent, str(program)


def _rates(seconds: int) -> Iterator[tuple[str, int, float, int, int, int, float]]:
    """Ring, asked, reached, calls made, received, lost, CPU seconds of the agent a second."""
    for ring in RINGS:
        with _paced_agent(ring) as (agent, program):
            for rate in (10_000, SUSTAINED, 10 * SUSTAINED):
                yield ring, rate, *_pace(agent, program, rate, seconds)


def _pace(agent: Agent, program: str, rate: int, seconds: int) -> tuple[float, int, int, int, float]:
    with new_cgroup("bench") as cgroup:
        before, spent = _counts(agent), cpu_seconds(agent.pid)
        ran = cgroup.run([program, str(rate), str(seconds)], capture_output=True, text=True)
        made, took = (float(word) for word in ran.stdout.split())
        after = wait_for(lambda: _settled(agent), "the agent to read all", seconds=60)
        used = cpu_seconds(agent.pid) - spent
        received, _, lost = (now - then for now, then in zip(after, before, strict=True))
        return made / took, int(made), int(received), int(lost), used / took


def _settled(agent: Agent) -> tuple[float, float, float] | None:
    counts = _counts(agent)
    return counts if counts[0] == counts[1] else None


def _counts(agent: Agent) -> tuple[float, float, float]:
    """Received, emitted, lost so far."""
    samples, probe = agent.metrics(), ("probe", "calls")
    lost = sum(
        value
        for (name, labels), value in samples.items()
        if name == "ringfence_probe_events_dropped_total"
        and probe in labels
        and dict(labels)["reason"] not in ("host", "sampled")
    )
    received = samples["ringfence_probe_events_total", (probe,)]
    return received, samples["ringfence_probe_events_emitted_total", (probe,)], lost
