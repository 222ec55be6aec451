# SPDX-License-Identifier: Apache-2.0
"""Run the validation programs of the OCI's runtime-tools with this runtime.

`python -m tests.runtime.validation_suite CHECKOUT`, after `make runtimetest
validation-executables` there (Go 1.21). They stay outside this tree and run like crun's suite
(crun_suite.py).

A program fails if it ends with an error, has a `not ok`, or reports only an error. The exit code
is 1 if one fails and is not in `validation-exceptions.txt`, or is there and passes. `--runtime
PROGRAM` runs them with another runtime, without changing the exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.runtime import crun_suite as suite

LIMIT = 120  # seconds for one program
LEFT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|cgrouptest|testdir|test")


def run_program(program: Path, runtime: Path, checkout: Path, log: Path) -> Counter[str]:
    """Returns the assertions of one program by their result, and `failed` if it failed."""
    command = ["timeout", str(LIMIT), str(program)]
    environment = {**os.environ, "RUNTIME": str(runtime)}
    got = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, check=False)
    text = got.stdout.decode(errors="replace")
    log.write_text(f"{text}\n{got.stderr.decode(errors='replace')}")
    words = [(word, "# skip" in rest.lower()) for word, rest in re.findall(r"^(not ok|ok)(.*)$", text, re.M)]
    counts = Counter("skipped" if skip else word for word, skip in words)
    nothing = not words and '"error"' in text
    counts["failed"] = int(bool(got.returncode or counts["not ok"] or nothing))
    return counts


def main() -> int:
    """Run all, or the named ones; print unexpected results, and the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.runtime.validation_suite", description=__doc__)
    parser.add_argument("checkout", type=Path, help="runtime-tools, built")
    parser.add_argument("programs", nargs="*", help="such as linux_sysctl (default: all)")
    parser.add_argument("--runtime", type=Path, help="another runtime, to compare with")
    options = parser.parse_args()
    if suite.INSIDE not in os.environ:
        return suite.enter(hide_unified=options.runtime is not None)
    suite.reap()
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="rftest-validation-"))
    directory.chmod(0o755)
    runtime = options.runtime or suite.install(directory)
    expected = suite.exceptions("validation-exceptions.txt")
    before, total, programs = suite.cgroups(), Counter[str](), Counter[str]()
    for program in sorted(options.checkout.resolve().glob("validation/*/*.t")):
        if options.programs and program.stem not in options.programs:
            continue
        log = directory / f"{program.stem}.log"
        counts = run_program(program, runtime, options.checkout, log)
        result = "fail" if counts.pop("failed") else "ok"
        kind = (suite.compare if options.runtime else suite.classify)(program.stem, result, expected)
        total += counts
        programs[kind] += 1
        if kind in suite.TOLD:
            print(f"{kind}: {program.stem} (log: {log})", flush=True)  # noqa: T201
    suite.clean(before, LEFT)
    print(json.dumps({**programs, "assertions": total, "seconds": round(time.monotonic() - started)}))  # noqa: T201
    return 1 if programs["unexpected"] or programs["stale"] else 0


if __name__ == "__main__":
    sys.exit(main())
