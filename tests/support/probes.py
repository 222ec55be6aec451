# SPDX-License-Identifier: Apache-2.0
"""Private custom probes: a directory with pairs of files, and bcc's requirements."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

from tests.support import force
from tests.support.agent import Agent
from tests.support.waiting import wait_for

__all__ = ["EXAMPLES", "need_bcc", "place_example", "place_probe", "wait_running"]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "probes"


@functools.cache
def _has_bcc() -> bool:
    got = subprocess.run(["/usr/bin/python3", "-c", "from bcc import BPF"], capture_output=True, check=False)
    return got.returncode == 0


def need_bcc() -> None:
    """Skip or fail where the system's Python has no bcc."""
    force.need_root()
    if not _has_bcc():
        force.missing("bcc", "needs bcc (python3-bpfcc)")
    force.need_program("bpftool")


def place_example(name: str, directory: Path, **parameters: int) -> Path:
    """Copy an example with other parameters. Returns its YAML."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / f"{name}.c", directory)
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for key, value in parameters.items():
        text, count = re.subn(rf"^(\s+{key}): \d+", rf"\g<1>: {value}", text, flags=re.M)
        assert count == 1, f"{name} has no parameter {key}"
    (directory / f"{name}.yaml").write_text(text)
    return directory / f"{name}.yaml"


SPEC = """\
apiVersion: ringfence.dev/v1
kind: Probe
metadata: {{name: {name}, description: a probe of a test}}
spec:
  license: GPL
  event: event
  container: {container}
  fields: {fields}
{more}"""


def place_probe(
    directory: Path,
    name: str,
    source: str,
    *,
    container: str = "task",
    fields: str = "{number: {}}",
    more: str = "",
) -> Path:
    """Write a pair of files. Returns the YAML."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.c").write_text(source)
    path = directory / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, container=container, fields=fields, more=more))
    return path


def wait_running(agent: Agent, *names: str, seconds: float = 120.0) -> None:
    """Wait until these probes run; an obstacle is reported at once."""

    def look() -> bool:
        samples = agent.metrics()
        if all(samples.get(("ringfence_probe_up", (("probe", name),))) == 1 for name in names):
            return True
        assert not samples.get(("ringfence_probe_loads_total", (("result", "failed"),))), agent.tail()
        return False

    wait_for(look, f"{', '.join(names)} to run", seconds=seconds, every=0.1)
