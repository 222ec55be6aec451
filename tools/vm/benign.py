# SPDX-License-Identifier: Apache-2.0
"""The study of false positives: tests/benign on each kernel, kept as results/benign.json."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tools.vm.catalogue import Prepared
from tools.vm.coverage import RESULTS, commit, keep
from tools.vm.suite import RESULTS as REPORTS
from tools.vm.suite import ROOT, run_suite

__all__ = ["measure", "saved_benign"]

TESTS = "tests/benign"
#: test of the study -> its name on the page
TITLES = {
    "test_a_debugger_does_its_work": "gdb",
    "test_shells_and_health_checks_are_not_affected": "shells and health checks",
    "test_systemd_boots_as_podman_starts_it": "systemd",
    "test_systemd_gives_its_services_their_own_views": "systemd with CAP_SYS_ADMIN, two exceptions",
}


def measure(name: str, kernel: Prepared | None, echo: IO[bytes] | None = None) -> int:
    """Runs the study on a kernel (None: this machine's own), keeps the results; returns the failures."""
    if kernel is None:
        with tempfile.TemporaryDirectory() as directory:
            junit = Path(directory) / "junit.xml"
            argv = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", TESTS]
            subprocess.run(argv, cwd=ROOT, check=False)
            found, release = _outcomes(junit), platform.release()
    else:
        report = run_suite(kernel, [TESTS], echo=echo)
        if report.broken:
            raise RuntimeError(report.line())
        found, release = _outcomes(REPORTS / f"{name}.xml"), kernel.release
    kept = {"kernel": release, "date": time.strftime("%Y-%m-%d"), "commit": commit(), "workloads": found}
    keep("benign", {**saved_benign(), name: kept})
    return sum(outcome == "stopped" for outcome in found.values())


def saved_benign() -> Mapping[str, Any]:
    """Returns kernel -> the last results."""
    file = RESULTS / "benign.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _outcomes(junit: Path) -> dict[str, str]:
    """Returns workload -> `left alone`, `stopped` (denied, reported, or it failed) or `not here`."""
    found = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        test = str(case.get("name"))
        name = TITLES.get(test) or re.sub(r".*\[(.*)\]", r"\1", test)
        bad = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        found[name] = "stopped" if bad else "not here" if skipped else "left alone"
    return found
