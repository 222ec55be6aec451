# SPDX-License-Identifier: Apache-2.0
"""What the measurements run on: the loop program, a container that holds it, an agent."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, Container, make_rootfs, new_container

__all__ = ["POLICIES", "ROOT", "bench_agent", "bench_container", "bundle", "loops", "machine", "numbers"]

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
PATTERNS = (f"{PREFIX}bench*", f"{PREFIX}mem*")
HERE = Path(__file__).resolve().parent


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    release = Path("/etc/os-release").read_text()
    system = next(
        (
            line.partition("=")[2].strip('"')
            for line in release.splitlines()
            if line.startswith("PRETTY_NAME")
        ),
        "",
    )
    git = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "kernel": platform.release(),
        "system": system,
        "python": platform.python_version(),
        "commit": git.stdout.strip() or "-",
    }


def loops() -> Path:
    """The loop program, compiled where its source is newer."""
    source, program = HERE / "loops.c", ROOT / "tests/escape/build/loops"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", str(program), str(source)], check=True)
    return program


def numbers(argv: Sequence[str]) -> list[float]:
    """Run a loop and read the numbers that it prints."""
    got = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return [float(line) for line in got.stdout.split()]


@contextlib.contextmanager
def bundle() -> Iterator[Bundle]:
    """A bundle whose root filesystem holds `/bin/loops`."""
    with tempfile.TemporaryDirectory(prefix="rfbench-") as directory:
        rootfs = make_rootfs(Path(directory) / "rootfs", busybox="/bin/busybox")
        (rootfs / "bin/loops").write_bytes(loops().read_bytes())
        (rootfs / "bin/loops").chmod(0o755)
        yield Bundle(Path(directory) / "bundles", rootfs)


@contextlib.contextmanager
def bench_container() -> Iterator[Container]:
    """A container with the loop program in it."""
    with bundle() as made, new_container(made, "bench") as container:
        yield container


@contextlib.contextmanager
def bench_agent(*policies: Path, **flags: str) -> Iterator[Agent]:
    """An agent that enforces `policies` (default: the project's pack)."""
    with tempfile.TemporaryDirectory(prefix="rfbench-agent-") as directory:
        options = {key.replace("_", "-"): value for key, value in flags.items()}
        with running_agent(
            Path(directory), policies=policies or [POLICIES], patterns=PATTERNS, flags=options
        ) as agent:
            yield agent
