# SPDX-License-Identifier: Apache-2.0
"""A copy of this system's root, and systemd's manager in it, for tests that install the package."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.cgroups import new_cgroup, remove_trees
from tests.support.force import missing, need_program, need_root
from tests.support.waiting import patience, wait_for

__all__ = ["Machine", "booted", "overlay"]

_UNITS = ("usr/lib/systemd/system", "etc/systemd/system", "usr/lib/systemd/user", "etc/systemd/user",
          "usr/lib/systemd/user-generators", "usr/lib/systemd/user-environment-generators")  # fmt: skip
_TARGETS = ("basic", "multi-user", "paths", "shutdown", "sockets", "timers")
# The agent has to be in the host's pid namespace, where only one process can be PID 1. So it is the manager
# of a user, root, that runs: the same program, with the same units.
_SYSTEMCTL = '#!/bin/sh\nexec /usr/bin/systemctl.real --user "$@"\n'
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "COLUMNS": "100",
    "XDG_RUNTIME_DIR": "/run/user/0",
    "SYSTEMD_IGNORE_CHROOT": "1",
    "SYSTEMD_UNIT_PATH": "/etc/systemd/system:/usr/lib/systemd/system",
    "DEBIAN_FRONTEND": "noninteractive",
}
# What PID 1 has made before any unit starts: filesystems, and nodes that sandboxes of units are made with.
_START = """
set -e
if [ -d /sys/fs/cgroup/systemd ]; then
  mkdir "/sys/fs/cgroup/systemd/$2"
  echo $$ >"/sys/fs/cgroup/systemd/$2/cgroup.procs"
fi
for part in proc dev sys; do mount --rbind /$part "$1/$part"; done
mount -t tmpfs tmpfs "$1/run"
mount -t bpf bpf "$1/sys/fs/bpf"
mountpoint -q "$1/sys/kernel/tracing" || mount -t tracefs tracefs "$1/sys/kernel/tracing"
mkdir -p "$1/run/systemd/system" "$1/run/systemd/inaccessible/dir"
mkdir -p -m 700 "$1/run/user/0"
cd "$1/run/systemd/inaccessible"
touch reg
mkfifo fifo
mknod chr c 0 0
mknod blk b 0 0
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
cd "$1"
pivot_root . mnt
umount -l mnt
exec /usr/lib/systemd/systemd --user --unit=basic.target
"""


@contextlib.contextmanager
def overlay(directory: Path) -> Iterator[Path]:
    """A copy of this system's root that nobody else sees: an overlay, with its upper layer on a tmpfs."""
    need_root()
    layers, root = directory / "layers", directory / "root"
    for path in (layers, root):
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", layers], check=True)
    try:
        for name in ("upper", "work"):
            (layers / name).mkdir()
        where = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        words = ["mount", "-t", "overlay", "-o", where, "overlay", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            missing("root", f"no overlay of / here: {done.stderr.strip()}")
        yield root
    finally:
        subprocess.run(["umount", "-R", root], check=False, capture_output=True)
        subprocess.run(["umount", layers], check=True)


class Machine:
    """A root and the service manager in it."""

    def __init__(self, root: Path, pid: int) -> None:
        self.root = root
        self.pid = pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        argv = ["nsenter", "-t", str(self.pid), "-m", "--", *words]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env=_ENVIRONMENT, timeout=patience(120)
        )

    def do(self, *words: str) -> str:
        """Runs a command that has to succeed. Returns its output."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Returns a property of a unit."""
        return self.do("systemctl", "show", "--value", "-p", name, unit).strip()

    def log(self) -> str:
        """Returns the end of the agent's log."""
        return self.run("sh", "-c", "tail -c 3000 /run/agent.log").stdout


@contextlib.contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Starts the manager on a copy of the root, in which no other unit is left than those of `_TARGETS`."""
    need_program("pivot_root")
    if not Path("/usr/lib/systemd/systemd").exists():
        missing("image", "no systemd here: tools/deps image")
    _prepare(root)
    with new_cgroup("manager") as group:
        words = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            _START,
            "sh",
            str(root),
            group.name,
        ]
        process = group.popen(
            words, armed=False, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        machine = Machine(root, process.pid)
        try:
            wait_for(lambda: machine.run("systemctl", "is-system-running").stdout == "running\n", "systemd")
            yield machine
        finally:
            machine.run("systemctl", "stop", "ringfence-agent", "ringfence-launcher.socket")
            machine.run("ringfence", "agent", "--uninstall")
            process.kill()
            process.wait(60)
            group.remove()
            remove_trees([Path("/sys/fs/cgroup/systemd", group.name)], group.name)


def _prepare(root: Path) -> None:
    for name in _UNITS:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _UNITS[:2]:
        (root / name).mkdir(parents=True)
    for name in _TARGETS:
        (root / f"etc/systemd/system/{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    os.rename(root / "usr/bin/systemctl", root / "usr/bin/systemctl.real")
    (root / "usr/bin/systemctl").write_text(_SYSTEMCTL)
    (root / "usr/bin/systemctl").chmod(0o755)
