# SPDX-License-Identifier: Apache-2.0
"""exec is in the container's namespaces or nowhere, whatever its init does meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import ROOT, Box
from tests.support.waiting import patience

pytestmark = pytest.mark.root

# The command, with an init that ends just before its namespaces are asked for.
DYING = """
import os, sys
from ringfence_runtime.cli import main
from ringfence_runtime.launch import join

real = join.Joined._join_cgroup

def dying(self, pid):
    os.kill(self.container.pid, 9)
    while self.container.alive():
        pass
    real(self, pid)

join.Joined._join_cgroup = dying
sys.exit(main(sys.argv[1:]))
"""


def test_exec_while_the_init_ends_runs_nothing(box: Box, tmp_path: Path) -> None:
    """Where its namespaces are gone, the process must not be left in the host's."""
    box.start()
    proof = tmp_path / "proof"
    words = ["--root", str(box.runtime.root), "exec", box.name, "/bin/sh", "-c", f"echo escaped > {proof}"]
    got = subprocess.run(
        [sys.executable, "-c", DYING, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=patience(30),
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
    )
    assert not proof.exists()
    assert got.returncode != 0
    assert "is not running" in got.stderr


def test_exec_is_in_the_pid_namespace_of_an_init_that_left_it_for_its_children(
    box: Box, tmp_path: Path
) -> None:
    """unshare(CLONE_NEWPID) without a child leaves no pid_for_children to compare with, and in the host's pid
    namespace a process could signal every other.
    """
    box.args("/bin/unshare", "-U", "-p", "/bin/sleep", "3600").start()
    file = tmp_path / "pid"
    words = ["exec", "--detach", "--pid-file", str(file), box.name, "/bin/sleep", "30"]
    assert box.runtime(*words, capture=False).returncode == 0
    init, pid = box.state()["pid"], file.read_text()
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{init}/ns/pid")
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
