# SPDX-License-Identifier: Apache-2.0
"""What an event costs as policies grow from 1 to 1,000, in the real kernel, and how long 1,000 take to
load."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.cli.client import request
from ringfence.policy import NodeTiers, compile_policies, load_policies
from tests.support.agent import Agent
from tests.support.container import Container
from tests.support.waiting import wait_for
from tools.bench.record import Bar, Measurement, Row, row
from tools.bench.setup import bench_agent, bench_container, numbers

COUNTS = (1, 8, 64, 512, 1000)
MOST_PERCENT = 10.0
PER_BATCH = 20_000
FORBIDDEN_UID = 100_000  # what `loops marks` asks for first
#: how far the call matches the rules -> arguments of loops.c
CALLS = {
    "setfsuid, no rule names the uid": ("setfsuid", ""),
    "personality, every rule names the flag, none the program": ("personality", ""),
    "open+close, every rule names the filesystem, none the path": ("open", "/etc/hosts"),
}
#: rules that two operands keep from holding in turns: each word of the set must be looked at
WORST = {"setfsgid, each rule half holds (worst case, no bar)": ("setfsgid", "")}


def write_policies(directory: Path, count: int) -> None:
    """`count` files with a policy of four rules each: one for each call. None of them holds for the loops."""
    directory.mkdir()
    for number in range(count):
        policy = {
            "apiVersion": "ringfence.dev/v1",
            "kind": "Policy",
            "metadata": {"name": f"scale-{number}"},
            "spec": {"selector": {"containers": "all"}, "mode": "enforce", "rules": _rules(number)},
        }
        (directory / f"{number:04}.yaml").write_text(json.dumps(policy, indent=1))  # JSON is YAML


def _rules(number: int) -> list[dict[str, Any]]:
    half = {"gid": 0, "call": "setgid"} if number % 2 else {"gid": number + 1, "call": "setfsgid"}
    matches = {
        "setuid": {"uid": FORBIDDEN_UID + number},
        "personality": {"flags": "ADDR_NO_RANDOMIZE", "exe": f"/opt/app-{number}"},
        "file.open": {"path": f"disk:etc/private-{number}"},
        "setgid": half,
    }
    return [
        {
            "id": f"scale-{number}-{event}",
            "title": "A rule among many",
            "severity": "low",
            "event": event,
            "match": match,
            "action": "kill",
        }
        for event, match in matches.items()
    ]


def measure(*, quick: bool) -> Measurement:
    """Interleaved rounds; an agent and a container of their own for every number of policies in each."""
    rounds, batches = (2, 5) if quick else (5, 15)
    samples: dict[tuple[str, int], list[float]] = {}
    loading: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="rfbench-scale-") as temporary:
        for count in COUNTS:
            write_policies(Path(temporary) / str(count), count)
        for _ in range(rounds):
            for count in (0, *COUNTS):
                with _case(Path(temporary) / str(count), count, loading) as container:
                    for call, argv in {**CALLS, **WORST}.items():
                        samples.setdefault((call, count), []).extend(_loop(container, argv, batches))
        many = Path(temporary) / str(COUNTS[-1])
        for _ in range(3 if quick else 7):
            _time_in_process(many, loading)
    return _report(samples, loading, f"{rounds} interleaved rounds of {batches} batches")


@contextlib.contextmanager
def _case(policies: Path, count: int, loading: dict[str, list[float]]) -> Iterator[Container]:
    """A container that `count` policies hold for. 0: no agent."""
    if not count:
        with bench_container() as container:
            yield container
        return
    with bench_agent(policies, mode="policy", syscalls_compat="off") as agent:
        if count == COUNTS[-1]:
            key = f"agent: SIGHUP to {count} policies in force"
            loading.setdefault(key, []).append(_time_reload(agent))
        with bench_container() as container:
            yield container
            killed = container.exec("/bin/loops", "marks", "1", "0")
            if killed.returncode != 128 + signal.SIGKILL:
                raise RuntimeError(f"{count} policies: the rules were not in force: {killed}")


def _loop(container: Container, argv: tuple[str, str], batches: int) -> list[float]:
    what, path = argv
    return numbers(container.command(["/bin/loops", what, str(batches), str(PER_BATCH), path]))


def _time_reload(agent: Agent) -> float:
    """Milliseconds until another generation is in force: read, load, compile, attach, install."""

    def generation() -> int:
        return int(request(agent.socket, "status")["policies"]["generation"])

    before, begin = generation(), time.monotonic()
    os.kill(agent.pid, signal.SIGHUP)
    wait_for(lambda: generation() > before, "the next generation", seconds=60)
    return (time.monotonic() - begin) * 1000


def _time_in_process(directory: Path, loading: dict[str, list[float]]) -> None:
    begin = time.perf_counter()
    found = load_policies([directory])
    loaded = time.perf_counter()
    compile_policies(found, NodeTiers.usual())
    compiled = time.perf_counter()
    for what, seconds in (("load", loaded - begin), ("compile", compiled - loaded)):
        key = f"{what} {len(found.policies)} policies with {found.rules} rules"
        loading.setdefault(key, []).append(seconds * 1000)


def _report(
    samples: dict[tuple[str, int], list[float]], loading: dict[str, list[float]], how: str
) -> Measurement:
    rows = [row(f"{call}: {_named(count)}", values, "ns") for (call, count), values in samples.items()]
    rows.sort(key=lambda one: [*CALLS, *WORST].index(one.case.rpartition(": ")[0]))
    best = {key: min(values) for key, values in samples.items()}
    notes = [_added(call, best) for call in (*CALLS, *WORST)]
    bars = [_bar(call, best) for call in CALLS]
    times: list[Row] = [row(what, values, "ms") for what, values in loading.items()]
    return Measurement(
        "policy-scale",
        f"loops.c in a runc container, armed, pinned to one CPU, {how}, minima",
        rows + times,
        bars,
        notes,
    )


def _named(count: int) -> str:
    return f"{count} {'policy' if count == 1 else 'policies'}" if count else "no agent"


def _bar(call: str, best: dict[tuple[str, int], float]) -> Bar:
    """The costliest number of policies against one, by what the agent adds to the call."""
    added = [best[call, count] - best[call, 0] for count in COUNTS]
    return Bar(
        f"{call}: cost of the event, costliest of {COUNTS[0]} to {COUNTS[-1]} policies against one",
        100 * (max(added) / added[0] - 1),
        MOST_PERCENT,
        "%",
    )


def _added(call: str, best: dict[tuple[str, int], float]) -> str:
    figures = ", ".join(f"{count}: {best[call, count] - best[call, 0]:.0f}" for count in COUNTS)
    return f"{call}: ns that the agent adds, by policies: {figures}"
