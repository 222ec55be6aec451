# SPDX-License-Identifier: Apache-2.0
"""What lawful calls of the host's and of a container's tasks cost under each mechanism, in instructions.

To be run in a guest whose clock counts instructions, on a kernel with BPF-LSM: `RINGFENCE_VM_COUNTED=1
python -m tools.vm run -k 6.12 -t 7200 -s $PWD/tools/bench/results -- .venv/bin/python -m tools.bench tiers`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.agent import Agent
from tests.support.container import Container
from tools.bench.record import Bar, Measurement, row
from tools.bench.setup import PATTERNS, POLICIES, bench_container, loops, numbers
from tools.bench.tier_agent import TIERS

NO_AGENT = "no agent"
HOOK_OVER_LSM, HOST_OVER_NONE = 10.0, 3.0  # percent


class Call(NamedTuple):
    """A loop: the task that makes it, the word of loops.c, the object, and how often in a batch.

    `hooked`: a hook of the pack is in its way.
    """

    task: str
    word: str
    path: str
    times: int
    hooked: bool = True

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.task}: {self.word}"


CALLS = (
    Call("host", "getppid", "", 5_000, hooked=False),
    Call("host", "open", "/etc/hostname", 1_000),
    Call("host", "exec", "/bin/true", 20),
    Call("host", "tmpfs", "", 50),
    Call("container", "open", "/etc/hosts", 1_000),
    Call("container", "exec", "/bin/true", 20),
)


def measure(*, quick: bool) -> Measurement:
    """Without an agent, and beside an agent with the pack: by BPF-LSM, by hooks, by kills."""
    batches = 3 if quick else 7
    samples: dict[tuple[str, str], list[float]] = {}
    for tier in (NO_AGENT, *TIERS):
        print(f"-- {tier}", flush=True)
        with _agent(tier), bench_container() as container, tempfile.TemporaryDirectory() as directory:
            for call in CALLS:
                samples[call.name, tier] = numbers(_argv(call, batches, container, directory))
                print(f"{call.name} {min(samples[call.name, tier]):.0f}", flush=True)
    rows = [row(f"{call}, {tier}", found, "ns") for (call, tier), found in samples.items()]
    best = {key: min(found) for key, found in samples.items()}
    bars = [_more(best, call.name, "hook", "lsm", HOOK_OVER_LSM) for call in CALLS]
    bars += [
        _more(best, call.name, tier, NO_AGENT, HOST_OVER_NONE)
        for call in CALLS
        if call.task == "host" and not call.hooked
        for tier in ("lsm", "hook")
    ]
    method = f"loops.c, minima of {batches} batches; 1 ns is one instruction"
    return Measurement("tiers", method, rows, bars)


def _argv(call: Call, batches: int, container: Container, directory: str) -> list[str]:
    words = [call.word, str(batches), str(call.times), call.path or directory]
    if call.task == "container":
        return container.command(["/bin/loops", *words])
    return ["unshare", "--mount", str(loops()), *words]


@contextlib.contextmanager
def _agent(tier: str) -> Iterator[None]:
    if tier == NO_AGENT:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rfbench-agent-") as directory:
        agent = Agent(Path(directory), policies=[POLICIES], patterns=PATTERNS)
        agent.argv[2:3] = ["tools.bench.tier_agent", tier]
        try:
            agent.start()
            yield
        finally:
            agent.stop()


def _more(best: dict[tuple[str, str], float], call: str, tier: str, than: str, limit: float) -> Bar:
    more = 100 * (best[call, tier] / best[call, than] - 1)
    return Bar(f"{call}, {tier} above {than}", more, limit, "%")
