# SPDX-License-Identifier: Apache-2.0
"""`ringfence audit` with real containers: reports
missing isolation, and only the requested containers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import environment
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, new_container
from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "busybox")]


def audit(*words: str) -> tuple[int, Any]:
    """Returns exit code and document, for containers of this test only."""
    argv = [
        sys.executable, "-m", "ringfence", "audit", "--containers-known", "no", "--containers-patterns",
        f"{PREFIX}audit-*", "--cri-socket", "off", *words,
    ]  # fmt: skip
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=patience(60), check=False, env=environment()
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if "-o" in words else done.stdout


def test_a_container_without_isolation_is_reported(bundle: Bundle, tmp_path: Path) -> None:
    """Privileged, the host's /etc, the host's processes, no filter: reported, with its exit code."""
    bundle.bind(Path("/etc"), "/host-etc")
    namespaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "pid"]
    with new_container(bundle, "audit") as container:
        code, document = audit("-o", "json", "--only", "containers")
        _, text = audit("--only", "containers", "--min-severity", "high")
        _, sarif = audit("-o", "sarif", "--only", "containers")
    assert code == 1
    assert document["containers"] == 1
    found = {one["check"]: one for one in document["findings"]}
    assert {"privileged", "host-etc", "host-pid", "no-seccomp", "strong-capabilities"} <= set(found)
    assert {one["subject"] for one in document["findings"]} == {container.name}
    assert found["host-etc"]["detail"] == "/etc at /host-etc (writable)"
    assert "privileged" in text
    assert "no-new-privs-off" not in text
    assert {one["ruleId"] for one in sarif["runs"][0]["results"]} == set(found)


def test_an_isolated_container_has_no_high_finding(bundle: Bundle) -> None:
    """No capabilities, no new privileges, a filter: no high finding, and exit code 0."""
    process = bundle.config["process"]
    process["capabilities"] = {"bounding": [], "effective": [], "permitted": []}
    process["noNewPrivileges"] = True
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["add_key"], "action": "SCMP_ACT_ERRNO"}],
    }  # fmt: skip
    for mount in bundle.config["mounts"]:
        if mount["type"] == "sysfs":
            mount["options"].append("ro")
    bundle.config["linux"]["readonlyPaths"] = ["/proc/sys"]
    with new_container(bundle, "audit"):
        code, document = audit("-o", "json", "--only", "containers")
    assert document["containers"] == 1
    assert code == 0, document["findings"]
    assert {one["check"] for one in document["findings"]} <= {"root-without-userns", "unconfined"}


def test_the_node_alone_is_audited_without_containers() -> None:
    """There is always a finding; the exit code follows --fail-on."""
    code, document = audit("-o", "json", "--only", "node", "--fail-on", "never")
    assert code == 0
    assert document["containers"] == 0
    assert {one["scope"] for one in document["findings"]} <= {"node"}
    assert all(one["check"] and one["what"] for one in document["not_seen"])
