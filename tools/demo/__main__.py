# SPDX-License-Identifier: Apache-2.0
"""Command line of the demonstration; see `make demo`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path
from shutil import which
from types import FrameType

from tests.escape.attack_target import new_attack_target
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, make_rootfs, new_container
from tests.support.force import in_guest as is_guest
from tools.demo import show
from tools.demo.attempts import ATTEMPTS
from tools.demo.guest import CANNOT, in_guest
from tools.demo.here import absent_programs, why_not_here
from tools.demo.runner import Row, benign_ended_well, start_benign, try_all

ROOT = Path(__file__).resolve().parents[2]
PATTERN = f"{PREFIX}demo*"  # matches the demonstration's containers only


def main() -> int:
    """Returns 0 if everything that should be stopped was stopped, with no false positive."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--vm", action="store_true", help="in a virtual machine, where rules deny by BPF-LSM")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _somewhere(vm=parser.parse_args().vm)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; containers, cgroups and agent are removed", file=sys.stderr)
        return 130


def _somewhere(*, vm: bool) -> int:
    """Runs it here; in a virtual machine if it is wanted there, or cannot run here."""
    if absent := absent_programs():
        print(f"demo: not installed: {', '.join(absent)} (make deps)", file=sys.stderr)
        return CANNOT
    reason = "" if vm else why_not_here()
    if reason and is_guest():
        print(f"demo: cannot run here: {reason}", file=sys.stderr)
        return CANNOT
    if vm or reason:
        head = f"cannot run here: {reason}; the same " if reason else ""
        print(f"demo: {head}in a virtual machine, emulated: it takes minutes", flush=True)
        return in_guest()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rfdemo-") as directory:
        return _run(Path(directory), started)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(directory: Path, started: float) -> int:
    rootfs = make_rootfs(directory / "rootfs", busybox=str(which("busybox")))
    with contextlib.ExitStack() as stack:
        show.heading("agent")
        agent = stack.enter_context(
            running_agent(directory / "agent", policies=[ROOT / "policies"], patterns=[PATTERN])
        )
        print(f"enforcing policies/ for cgroups {PATTERN}, ready after {agent.ready_seconds:.2f} s")
        (directory / "a").mkdir()
        (directory / "b").mkdir()
        plain = stack.enter_context(
            new_attack_target(Bundle(directory / "a", rootfs), "demo", directory=directory / "a")
        )
        host_pid = stack.enter_context(
            new_attack_target(
                Bundle(directory / "b", rootfs), "demo-hostpid", host_pid=True, directory=directory / "b"
            )
        )
        benign = stack.enter_context(new_container(Bundle(directory / "c", rootfs), "demo-benign"))
        work = start_benign(benign)
        stack.callback(work.kill)
        before = agent.metrics()

        show.heading(
            f"{len(ATTEMPTS)} escape attempts from a privileged container (real calls, made harmless)"
        )
        rows = try_all(agent, ATTEMPTS, plain, host_pid)
        show.show_rows(rows)
        benign_well, said = benign_ended_well(agent, benign, work)
        return _finish(agent, rows, before, benign_well=benign_well, said=said, started=started)


def _finish(
    agent: Agent,
    rows: list[Row],
    before: dict[tuple[str, tuple[tuple[str, str], ...]], float],
    *,
    benign_well: bool,
    said: str,
    started: float,
) -> int:
    example = next((row.alert for row in rows if row.alert and row.stopped), None)
    if example is not None:
        show.heading("one complete alert")
        show.show_alert(example)
    show.heading("metrics that changed")
    show.show_metrics(before, agent.metrics())
    bad = [row for row in rows if not row.as_wanted]
    stopped = sum(row.stopped for row in rows)
    show.heading(f"result, after {time.monotonic() - started:.0f} s")
    show.verdict(
        good=not bad, text=f"{stopped} of {len(rows)} attempts stopped, {len(bad)} unexpected results"
    )
    show.verdict(good=benign_well, text=said)
    return 0 if benign_well and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
