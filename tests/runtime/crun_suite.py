# SPDX-License-Identifier: Apache-2.0
"""Run crun's public Python suite against us: `python -m tests.runtime.crun_suite CHECKOUT [FILE...]`.

The checkout stays outside this tree. A test that fails and
is not in `crun-exceptions.txt`, or is there and passes, ends it with 1. Needs root and gcc with a static C
library.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 300  # seconds for one file
RESULT = re.compile(r"^(not ok|ok) \d+ - (\S+)(.*)$", re.MULTILINE)


def exceptions() -> dict[str, str]:
    """`file:test` or `file` to the reason."""
    found: dict[str, str] = {}
    for line in (HERE / "crun-exceptions.txt").read_text().splitlines():
        name, _, reason = line.partition(" ")
        if name and not name.startswith("#"):
            found[name] = reason.strip()
    return found


def prepare(checkout: Path, directory: Path) -> dict[str, str]:
    """Build the suite's init and install our runtime; gives the environment."""
    (directory / "config.h").write_text("")
    init = directory / "init"
    command = [
        "gcc",
        "-static",
        "-O1",
        "-w",
        f"-I{directory}",
        "-o",
        str(init),
        str(checkout / "tests/init.c"),
    ]
    subprocess.run(command, check=True)
    runtime = directory / "ringfence-runtime"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(runtime)]
    subprocess.run(command, check=True, env=environment)
    return {
        **os.environ,
        "INIT": str(init),
        "OCI_RUNTIME": str(runtime),
        "PYTHONPATH": str(HERE / "crun_stubs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_file(file: Path, environment: dict[str, str], directory: Path) -> list[tuple[str, str]]:
    """(test, ok | skip | fail) of one file."""
    with open(directory / f"{file.stem}.log", "w+") as log:
        process = subprocess.Popen(
            ["/usr/bin/python3", str(file)],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.seek(0)
        text = log.read()
    results = [
        (name, "fail" if word == "not ok" else "skip" if "#SKIP" in rest else "ok")
        for word, name, rest in RESULT.findall(text)
    ]
    planned = re.search(r"^1\.\.(\d+)", text, re.MULTILINE)
    if planned is None or int(planned.group(1)) != len(results):
        results.append(("(unfinished)", "fail"))
    return results


def cgroups() -> set[Path]:
    """All cgroup directories two levels below the mounts."""
    return {path for path in Path("/sys/fs/cgroup").glob("*/*") if path.is_dir()}


def clean(before: set[Path]) -> None:
    """Remove what the suite leaves: parents of its containers' cgroups, and one frozen process."""
    tops = [top for top in sorted(cgroups() - before) if top.name.startswith(("test-", "frozen"))]
    for top in tops:
        for state in top.rglob("freezer.state"):
            state.write_text("THAWED")  # a frozen process does not die
        for procs in top.rglob("cgroup.procs"):
            for pid in procs.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
    for top in tops:
        for directory in sorted([top, *(path for path in top.rglob("*") if path.is_dir())], reverse=True):
            for _ in range(100):
                try:
                    directory.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


def main() -> int:
    """Run all, or the files named; print what was not expected, and the counts as JSON."""
    checkout, *names = Path(sys.argv[1]).resolve(), *sys.argv[2:]
    expected = exceptions()
    counts = {"ok": 0, "skip": 0, "expected": 0, "unexpected": 0, "stale": 0}
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="rftest-crun-"))
    environment = prepare(checkout, directory)
    before = cgroups()
    for file in sorted((checkout / "tests").glob("test_*.py")):
        if file.stem in expected or (names and file.stem not in names):
            continue
        for name, result in run_file(file, environment, directory):
            place = f"{file.stem}:{name}"
            if result == "fail":
                kind = "expected" if place in expected else "unexpected"
            else:
                kind = "stale" if result == "ok" and place in expected else result
            counts[kind] += 1
            if kind in ("unexpected", "stale"):
                print(f"{kind}: {place} (log: {directory}/{file.stem}.log)", flush=True)  # noqa: T201
    clean(before)
    print(json.dumps({**counts, "seconds": round(time.monotonic() - started)}))  # noqa: T201
    return 1 if counts["unexpected"] or counts["stale"] else 0


if __name__ == "__main__":
    sys.exit(main())
