# SPDX-License-Identifier: Apache-2.0
"""Run crun's public Python suite with this runtime: `make conformance SOURCE=...`, a clone of crun
or its URL.

Its tests are taken at COMMIT and stay outside this tree. They run in a pid and a mount namespace
of their own, in which /usr is a shared mount, as on a host with systemd. The exit code is 1 if a
test fails and is not in `crun-exceptions.txt`, or is there and passes. Needs root, git, gcc with a
static C library.

`--runtime PROGRAM` runs the same tests with another runtime, for comparison: failures are listed,
and do not change the exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNIFIED = Path("/sys/fs/cgroup/unified")
COMMIT = "ba38286f7d232be8087dbd393315bb05018da68c"
INSIDE = "RINGFENCE_CONFORMANCE_INSIDE"
LIMIT = 300  # seconds for one file
LEFT = re.compile("(test-|frozen).*")  # names of cgroups
TOLD = ("unexpected", "stale", "failed")
RACE = "race:"  # prefix of the reason of an exception that may also pass
RESULT = re.compile(r"^(not ok|ok) \d+ - (\S+)(.*)$", re.MULTILINE)


def exceptions(file: str = "crun-exceptions.txt") -> dict[str, str]:
    """Returns `file:test` or `file` -> the reason."""
    found: dict[str, str] = {}
    for line in (HERE / file).read_text().splitlines():
        name, _, reason = line.partition(" ")
        if name and not name.startswith("#"):
            found[name] = reason.strip()
    return found


def checkout(source: str, directory: Path) -> Path:
    """Returns the suite's `tests` directory at COMMIT."""
    place = directory / "crun"
    place.mkdir()
    git = ["git", "-c", "advice.detachedHead=false", "-C", str(place)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "fetch", "-q", "--depth", "1", source, COMMIT], check=True)
    subprocess.run([*git, "checkout", "-q", "FETCH_HEAD", "--", "tests"], check=True)
    return place / "tests"


def install(directory: Path) -> Path:
    """Install the runtime as for an engine."""
    runtime = directory / "ringfence-runtime"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(runtime)]
    subprocess.run(command, check=True, env=environment)
    return runtime


def prepare(tests: Path, directory: Path, runtime: Path) -> dict[str, str]:
    """Build the suite's init. Returns the environment."""
    (directory / "config.h").write_text("")
    init = directory / "init"
    command = ["gcc", "-static", "-O1", "-w", f"-I{directory}", "-o", str(init), str(tests / "init.c")]
    subprocess.run(command, check=True)
    return {
        **os.environ,
        "INIT": str(init),
        "OCI_RUNTIME": str(runtime),
        "PATH": f"{HERE}/crun_stubs/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(HERE / "crun_stubs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def read_all(master: int, process: subprocess.Popen[bytes], end: float) -> str:
    """Returns the terminal's output until the process ends, or is killed at its deadline."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([master], [], [], 0.2)
        try:
            part = os.read(master, 1 << 16) if ready else b""
        except OSError:
            break  # the last process with the terminal has ended
        parts.append(part)
        if not ready and process.poll() is not None:
            break
        if time.monotonic() > end:
            process.kill()
            break
    process.wait()
    os.close(master)
    return b"".join(parts).decode(errors="replace")


def run_file(file: Path, environment: dict[str, str], directory: Path) -> list[tuple[str, str]]:
    """Returns (test, ok

    skip

    fail) of one file, which gets a terminal: some tests are about that.
    """
    master, slave = pty.openpty()
    command = ["/usr/bin/python3", str(file)]
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    text = read_all(master, process, time.monotonic() + LIMIT).replace("\r\n", "\n")
    (directory / f"{file.stem}.log").write_text(text)
    results = [
        (name, "fail" if word == "not ok" else "skip" if "#SKIP" in rest else "ok")
        for word, name, rest in RESULT.findall(text)
    ]
    planned = re.search(r"^1\.\.(\d+)", text, re.MULTILINE)
    if planned is None or int(planned.group(1)) != len(results):
        results.append(("(unfinished)", "fail"))
    return results


def cgroups() -> set[Path]:
    """Returns all cgroup directories two levels below the mounts, or one on a version 2 host."""
    top = Path("/sys/fs/cgroup")
    return {path for path in (*top.glob("*"), *top.glob("*/*")) if path.is_dir()}


def clean(before: set[Path], left: re.Pattern[str] = LEFT) -> None:
    """Remove what the suite leaves: parents of its
    containers' cgroups, and a runtime's leftovers in them.
    """
    tops = [top for top in sorted(cgroups() - before) if left.fullmatch(top.name)]
    for top in tops:
        for state in top.rglob("freezer.state"):
            state.write_text("THAWED")
        for procs in top.rglob("cgroup.procs"):
            kill(int(pid) for pid in procs.read_text().split())
    for top in tops:
        for directory in sorted([top, *(path for path in top.rglob("*") if path.is_dir())], reverse=True):
            for _ in range(100):
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break  # a hierarchy has two names
                except OSError:
                    time.sleep(0.02)


def kill(pids: Iterator[int]) -> None:
    """Kill the processes that still exist; 0 is a process outside the pid namespace."""
    for pid in pids:
        try:
            if pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def reap() -> None:
    """As process 1: reap all orphans until the working child ends. Returns in that child."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def enter(*, hide_unified: bool) -> int:
    """Run this program again, as process 1 of a pid namespace and with its own mounts.

    Without the version 2 directory of a hybrid host, because another runtime refuses that (crun
    does).
    """
    script = 'mount --bind /usr /usr && mount --make-shared /usr && exec "$@"'
    if hide_unified and UNIFIED.is_mount():
        script = f"umount {UNIFIED} && {script}"
    spaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inner = ["/bin/sh", "-ec", script, "sh", sys.executable, *sys.orig_argv[1:]]
    words = ["unshare", *spaces, "--", *inner]
    return subprocess.run(words, check=False, env={**os.environ, INSIDE: "1"}).returncode


def classify(place: str, result: str, expected: dict[str, str]) -> str:
    """Returns the category that the result is counted under."""
    if result == "fail":
        return "excepted" if place in expected else "unexpected"
    if result == "ok" and place in expected and not expected[place].startswith(RACE):
        return "stale"
    return {"ok": "passed", "skip": "skipped"}[result]


def compare(_: str, result: str, __: dict[str, str]) -> str:
    """The same for another runtime, without expectations."""
    return {"ok": "passed", "skip": "skipped", "fail": "failed"}[result]


def main() -> int:
    """Run all, or the named files; print unexpected results, and the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.runtime.crun_suite", description=__doc__)
    parser.add_argument("source", help="a clone of crun, or the address of one")
    parser.add_argument("files", nargs="*", help="such as test_exec (default: all)")
    parser.add_argument("--runtime", type=Path, help="another runtime, to compare with")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        return enter(hide_unified=options.runtime is not None)
    reap()
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="rftest-crun-"))
    directory.chmod(0o755)
    tests = checkout(options.source, directory)
    environment = prepare(tests, directory, options.runtime or install(directory))
    expected, judged = exceptions(), compare if options.runtime else classify
    counts: Counter[str] = Counter()
    before = cgroups()
    for file in sorted(tests.glob("test_*.py")):
        if file.stem in expected or (options.files and file.stem not in options.files):
            continue
        for name, result in run_file(file, environment, directory):
            place = f"{file.stem}:{name}"
            kind = judged(place, result, expected)
            counts[kind] += 1
            if kind in TOLD:
                print(f"{kind}: {place} (log: {directory}/{file.stem}.log)", flush=True)  # noqa: T201
    clean(before)
    print(json.dumps({**counts, "seconds": round(time.monotonic() - started)}))  # noqa: T201
    return 1 if counts["unexpected"] or counts["stale"] else 0


if __name__ == "__main__":
    sys.exit(main())
