# SPDX-License-Identifier: Apache-2.0
"""exec joins the container's namespaces or fails, whatever its init does at the same time.

No file of the image is run on the way there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import ROOT, Box
from tests.support.waiting import patience

pytestmark = pytest.mark.root

# The command as pip installs it: its modules are files, found when they are imported.
PLAIN = "import sys; from ringfence_runtime.cli import main; sys.exit(main(sys.argv[1:]))"
# The command, with an init that ends just before its namespaces are opened.
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
# The command on a host with SELinux, whose selinuxfs is only in the host's mount namespace.
LABELLED = """
import os, sys
from ringfence_runtime.cli import main
from ringfence_runtime.launch.operations import python_only
from ringfence_runtime.security import labels

def asked_for(procfs, apparmor, selinux, hosts):
    print(selinux, "is set:", hosts[1], flush=True)

host = os.readlink("/proc/self/ns/mnt")
labels.selinux_enabled = lambda: os.readlink("/proc/self/ns/mnt") == host
python_only.apply_labels = asked_for
sys.exit(main(sys.argv[1:]))
"""


def changed(script: str, box: Box, *words: str) -> subprocess.CompletedProcess[str]:
    """exec, by a script that changes the command."""
    return subprocess.run(
        [sys.executable, "-c", script, "--root", str(box.runtime.root), "exec", *words],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=patience(60),
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
    )


def test_exec_while_the_init_ends_runs_nothing(box: Box, tmp_path: Path) -> None:
    """Without its namespaces, the process must not run in the host's."""
    box.start()
    proof = tmp_path / "proof"
    got = changed(DYING, box, box.name, "/bin/sh", "-c", f"echo escaped > {proof}")
    assert not proof.exists()
    assert got.returncode != 0
    assert "not running" in got.stderr


def test_exec_is_in_the_pid_namespace_of_an_init_that_left_it_for_its_children(
    box: Box, tmp_path: Path
) -> None:
    """unshare(CLONE_NEWPID) without a child leaves no pid_for_children to compare with.

    In the host's pid namespace a process could signal every other.
    """
    box.args("/bin/unshare", "-U", "-p", "/bin/sleep", "3600").start()
    file = tmp_path / "pid"
    words = ["exec", "--detach", "--pid-file", str(file), box.name, "/bin/sleep", "600"]
    assert box.runtime(*words, capture=False).returncode == 0
    init, pid = box.state()["pid"], file.read_text()
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{init}/ns/pid")
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")


@pytest.mark.parametrize("words", [[], ["--tty"]])
def test_exec_imports_nothing_from_the_image(box: Box, words: list[str]) -> None:
    """The runtime still has all its rights when it
    is inside: a module of the image would have them.
    """
    package = box.rootfs / str(ROOT).lstrip("/") / "runtime/ringfence_runtime/launch"
    package.mkdir(parents=True)
    (package / "console.py").write_text("open('/owned', 'w').close()\n")
    box.start()
    got = changed(PLAIN, box, *words, box.name, "/bin/echo", "good")
    assert not (box.rootfs / "owned").exists()
    assert got.stdout.strip() == "good", got.stderr


def test_exec_with_a_label_asks_the_host_for_its_lsm(box: Box) -> None:
    """A new sysfs has an empty /sys/fs/selinux, so
    from inside every host seems to have no SELinux.
    """
    box.start()
    got = changed(LABELLED, box, "--process-label", "some_t", box.name, "/bin/true")
    assert got.stdout == "some_t is set: True\n", got.stderr
