# SPDX-License-Identifier: Apache-2.0
"""1,000 containers that attack with their first instructions, with plain runc, crun and Podman.

The entry program of each is the attack itself, so no other code of the workload runs before it. Those
of runc and crun must be killed and reported under the container's own name; Podman's are only reported
(an agent that matches Podman's names sees every container of the machine, and this one must not act on
foreign ones).
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.proof.image import make_root
from ringfence.proof.target_container import privileged_config
from tests.escape.program import REFUSED, build
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup, hierarchies, is_pure_v2, remove_everywhere
from tests.support.waiting import wait_for
from tools.bench.record import Bar, Measurement, Row, row
from tools.bench.setup import POLICIES

ATTACK = ["/bin/attacks", "unshare", "0x10000000"]
RULE = "userns-create"
COUNTS = {"runc": 400, "crun": 400, "podman": 200}
QUICK = {"runc": 10, "crun": 10, "podman": 5}
PODMAN_FLAGS = (
    "--runtime=runc", "--cgroup-manager=cgroupfs", "run", "--rm", "--network=none", "--pull=never",
    "--ulimit=nofile=20000:20000", "--ulimit=nproc=4096:4096", "--security-opt=seccomp=unconfined",
)  # fmt: skip


def measure(*, quick: bool) -> Measurement:
    """Starts them one after the other, counts those with a verdict, and measures the time."""
    build()
    counts = QUICK if quick else COUNTS
    rows: list[Row] = []
    started = covered = 0
    notes = []
    for runtime, count in counts.items():
        if shutil.which(runtime) is None:
            notes.append(f"{runtime} is not installed: not run")
            continue
        with tempfile.TemporaryDirectory(prefix="rffirst-", dir="/tmp", ignore_cleanup_errors=True) as name:
            times, matched = _series(runtime, count, Path(name))
        rows.append(row(f"one start by {runtime}, whole", times, "ms", best=False))
        rows.append(
            Row(f"{runtime}: first call matched of {count}", matched, "", matched, matched, [matched])
        )
        started, covered = started + count, covered + matched
    bar = Bar("containers that were covered before their first instruction", covered, started, "", least=True)
    wanted = Bar("containers that were started", started, sum(counts.values()), "", least=True)
    method = f"{started} starts one after the other; the entry program is `unshare(CLONE_NEWUSER)`; medians"
    return Measurement("first_act", method, rows, [bar, wanted], notes)


def _series(runtime: str, count: int, directory: Path) -> tuple[list[float], int]:
    """Returns the milliseconds of each start, and the number of containers with a verdict."""
    root = make_root(directory / "root")
    if runtime == "podman":
        patterns, mode, outcomes = ["libpod-{hex64}"], "audit", ("would-kill", "would-deny")
        start = _podman(root, directory)
    else:
        patterns, mode, outcomes = [f"{PREFIX}first*"], "enforce", ("killed", "denied")
        start = _oci(runtime, root, directory)
    with (
        running_agent(directory / "agent", policies=[POLICIES], mode=mode, patterns=patterns) as agent,
        start as run,
    ):
        times, names = [], []
        for _ in range(count):
            began = time.perf_counter()
            name, status = run()
            times.append((time.perf_counter() - began) * 1000)
            if mode == "audit" or status in (137, REFUSED):
                names.append(name)
        return times, _matched(agent, names, outcomes)


def _matched(agent: Agent, names: list[str], outcomes: tuple[str, ...]) -> int:
    """Returns the number of containers with a correct alert under their own name."""

    def reported() -> set[str]:
        return {alert["container"]["id"] for alert in agent.alerts(rule=RULE) if alert["outcome"] in outcomes}

    try:
        wait_for(lambda: set(names) <= reported(), "every alert", seconds=10)
    except AssertionError:
        pass
    return len(set(names) & reported())


@contextmanager
def _oci(runtime: str, root: Path, directory: Path) -> Iterator[Callable[[], tuple[str, int]]]:
    """`RUNTIME run`, in the foreground. crun, which refuses hybrid hosts, sees version 1 only."""
    bundle = directory / "bundle"
    bundle.mkdir()
    config = privileged_config(root, None)
    config["process"]["args"] = ATTACK
    command = [runtime, "--root", str(directory / "state"), "run", "--bundle", str(bundle)]
    if runtime == "crun" and not is_pure_v2() and "v2" in hierarchies():
        command = ["unshare", "-m", "sh", "-c", f'umount {hierarchies()["v2"]} && exec "$@"', "sh", *command]

    def run() -> tuple[str, int]:
        name = f"{PREFIX}first-{secrets.token_hex(4)}"
        config["linux"]["cgroupsPath"] = f"/{name}"
        (bundle / "config.json").write_text(json.dumps(config))
        got = subprocess.run([*command, name], check=False, capture_output=True, stdin=subprocess.DEVNULL)
        Cgroup(name).remove()
        return name, got.returncode

    yield run


@contextmanager
def _podman(root: Path, directory: Path) -> Iterator[Callable[[], tuple[str, int]]]:
    """`podman run --rm`, with storage of its own."""
    podman = ["podman", "--root", str(directory / "storage"), "--runroot", str(directory / "run")]
    parent = f"{PREFIX}pod-{secrets.token_hex(3)}"
    image = f"localhost/{parent}:1"
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([*podman, "import", "-", image], check=True, stdin=tar.stdout, capture_output=True)

    def run() -> tuple[str, int]:
        identifier = directory / f"id-{secrets.token_hex(4)}"
        argv = [
            *podman,
            *PODMAN_FLAGS,
            f"--cidfile={identifier}",
            f"--cgroup-parent=/{parent}",
            image,
            *ATTACK,
        ]
        got = subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        if not identifier.exists():
            raise RuntimeError(f"podman: {got.stderr.decode(errors='replace')[-500:]}")
        return identifier.read_text().strip(), got.returncode

    try:
        yield run
    finally:
        subprocess.run([*podman, "rmi", "--force", image], check=False, capture_output=True)
        Cgroup(parent).remove()
        remove_everywhere(parent)  # conmon's is not of these controllers
