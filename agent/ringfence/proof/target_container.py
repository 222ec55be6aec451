# SPDX-License-Identifier: Apache-2.0
"""A disposable container whose only program is the attack program.

The bundle corresponds to `--privileged`: every capability of this process, all devices, no seccomp,
no masked or read-only paths. That is intended: the kernel itself would allow the attacks. Its mount,
pid, network, ipc, uts and cgroup namespaces are its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.containers.hierarchy import hierarchy_mounts
from ringfence.errors import Error
from ringfence.proof.fixtures import Fixtures
from ringfence.proof.program import Attempt, program, read_attempt
from ringfence.proof.served import Served
from ringfence_linux import capabilities

__all__ = ["BESIDE", "DISK", "FS", "HELPER", "LEAKED", "MOUNT", "NODE", "OWN", "PEER", "RELEASE", "TERMINAL"]
__all__ += ["Config", "Kind", "TargetContainer", "new_target", "privileged_config"]

# Placeholders in attack commands for values that differ between runs.
LEAKED = "{leaked}"  # a leaked descriptor: a directory of the disk
FS = "{fs}"  # a leaked descriptor: a filesystem context (fsopen)
MOUNT = "{mount}"  # a leaked descriptor: a detached mount
BESIDE = "{beside}"  # a descriptor of cgroup.procs of the cgroup beside, open for writing
OWN = "{own}"  # cgroup.procs of the container's own cgroup, as the container sees it
HELPER = "{helper}"  # pid of a process outside, if the container shares the pid namespace
PEER = "{peer}"  # pid of a process in the host's namespaces
#: a release_agent: of the test's own hierarchy, else of the host's freezer, if it has one
RELEASE = "{release}"
NODE = "{node}"  # an address of the node
TERMINAL = "{terminal}"  # a terminal of the host, below the host's devpts
DISK = "{disk}"  # mount point of the disk outside the container

Config = dict[str, Any]
#: `host-pid` and `host-network` share a namespace of the host, `userns` has its own user namespace
Kind = Literal["plain", "host-pid", "host-network", "userns"]
_NAMESPACES = ("pid", "mount", "network", "ipc", "uts", "cgroup")
_MOUNTS = (
    ("/proc", "proc", ()),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "mode=755", "size=64k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=8m")),
    ("/tmp", "tmpfs", ("mode=1777", "size=64m")),
    ("/sys/fs/cgroup", "cgroup", ("rw",)),
)
_DESCRIPTORS = {"leaked": 3, "fs": 4, "mount": 5}
_HIERARCHY, _BESIDE = 6, 7


def _capabilities() -> list[str]:
    """Returns the capabilities of this process's bounding set: a runtime cannot grant more."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1]
    return [name for name in capabilities.names(int(bounding, 16)) if not name.removeprefix("CAP_").isdigit()]


def privileged_config(root: Path, fixtures: Fixtures | None, *, kind: Kind = "plain") -> Config:
    """Returns config.json with the fixtures at the paths of the attacks; a `userns` container has none."""
    namespaces = [name for name in _NAMESPACES if kind != f"host-{name}"]
    mounts: list[dict[str, Any]] = [
        {"destination": where, "type": fstype, "source": fstype, "options": list(options)}
        for where, fstype, options in _MOUNTS
        if kind != "userns" or fstype != "cgroup"
    ]
    # An identity mapping: the namespace is what is tested, and the test's files are readable by root only.
    everyone = [{"containerID": 0, "hostID": 0, "size": 65536}]
    users = {"uidMappings": everyone, "gidMappings": everyone} if kind == "userns" else {}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/attacks", "serve"],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _capabilities()),
        },
        "root": {"path": str(root), "readonly": False},
        "hostname": "ringfence-test",
        "annotations": {},
        "mounts": mounts + (_fixture_mounts(fixtures) if fixtures and kind != "userns" else []),
        "linux": {
            "namespaces": [{"type": name} for name in (*namespaces, *(["user"] if users else []))],
            **users,
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            "maskedPaths": [],
            "readonlyPaths": [],
        },
    }


def _fixture_mounts(fixtures: Fixtures) -> list[dict[str, Any]]:
    """Returns the mounts of the fixtures, and those that a careless or deceived runtime exposes."""
    binds = [
        (fixtures.socket, "/run/docker.sock"),
        (fixtures.bus, "/run/dbus/system_bus_socket"),
        (fixtures.hand, "/run/hand.sock"),
        (Path(f"/proc/{os.getpid()}/ns/uts"), "/run/ns-host-uts"),
        (Path(f"/proc/{fixtures.helper}/ns/uts"), "/run/ns-other-uts"),
        (fixtures.beside, "/run/cgroup-beside"),
        (Path("/dev/pts"), "/run/host-pts"),
        # As if a masked path and a console were replaced by links while the runtime bound them.
        (Path("/proc/sys/kernel/core_pattern"), "/run/unmasked"),
        (Path("/proc/sysrq-trigger"), "/run/console"),
        (Path("/proc/sys/kernel/core_pattern"), "/run/console-pattern"),
        (Path("/dev/rfexploit"), "/run/exploit"),
    ]
    if fixtures.disk:
        binds.append((fixtures.disk / "etc/passwd", "/run/host-passwd"))
        binds.append((fixtures.disk / "var/log", "/var/log"))
        binds.append((fixtures.disk / "shared", "/run/shared"))
    v1, _ = hierarchy_mounts()
    if "freezer" in v1:
        binds.append((Path(v1["freezer"], "release_agent"), "/run/release_agent"))
    if fixtures.fuse:
        binds.append((fixtures.fuse, "/run/lxcfs"))
    known = Path("/proc/filesystems").read_text().split()
    found: list[dict[str, Any]] = [
        {"destination": inside, "type": "bind", "source": str(outside), "options": ["bind", "rw"]}
        for outside, inside in binds
        if outside.exists()
    ]
    # The host's root without the mounts below it.
    found.append({"destination": "/run/host", "type": "bind", "source": "/", "options": ["bind", "ro"]})
    return found + [
        {"destination": f"/run/{kind}", "type": kind, "source": kind, "options": []}
        for kind in ("tracefs", "binfmt_misc")
        if kind in known
    ]


def leak(descriptors: Mapping[int, int]) -> None:
    """Gives descriptors these numbers for the program that is executed next; closes all others from 3 on.

    Runs in the child of a fork.
    """
    # First duplicate all to high numbers: one may have another's final number.
    held = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for number, fd in descriptors.items()}
    first = 3
    for number, fd in sorted(held.items()):
        os.dup2(fd, number, inheritable=True)
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, 1024)


class TargetContainer:
    """The container, and the two pipes by which its program receives commands and answers."""

    def __init__(self, name: str, runtime: Sequence[str], directory: Path, fixtures: Fixtures | None) -> None:
        self.name, self.runtime, self.directory, self.fixtures = name, runtime, directory, fixtures
        self._served = Served()

    def start(self, config: Config) -> None:
        """Runs `run --detach`; the program then waits for commands. Raises Error if the runtime fails."""
        config["linux"].setdefault("cgroupsPath", f"/{self.name}")
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(config, indent=1))
        log = self.directory / "runtime.log"
        leak = self.fixtures is not None
        argv = [*self.runtime, "run", "--detach", "--bundle", str(self.directory)]
        if leak:
            argv = [str(program()), "hand", *argv, "--preserve-fds", str(_BESIDE - 2)]
        with log.open("wb") as errors, self._served.streams() as (theirs_in, theirs_out):
            got = subprocess.run(
                [*argv, self.name], stdin=theirs_in, stdout=theirs_out, stderr=errors, check=False,
                timeout=300, preexec_fn=self._leak if leak else None, close_fds=not leak,
            )  # fmt: skip
        if got.returncode:
            said = log.read_text(errors="replace")[-500:].strip()
            raise Error(f"{self.runtime[0]} did not start {self.name}: {said}")
        self._line("ready", 120)

    def _leak(self) -> None:
        """Runs in the child before exec: leaks two directories and a cgroup's list of processes;
        attacks/mounts.c adds two descriptors."""
        assert self.fixtures is not None
        disk = os.open(self.fixtures.disk or self.fixtures.directory, os.O_RDONLY | os.O_DIRECTORY)
        hierarchy = disk if self.fixtures.hierarchy is None else self.fixtures.hierarchy
        beside = os.open(self.fixtures.beside / "cgroup.procs", os.O_WRONLY)
        leak({_DESCRIPTORS["leaked"]: disk, _HIERARCHY: hierarchy, _BESIDE: beside})

    def run(self, words: str, *, seconds: float = 60.0) -> Attempt:
        """Runs `attacks WORDS` inside and returns its output and status."""
        fixtures = self.fixtures
        known = (
            {
                "helper": fixtures.helper,
                "peer": fixtures.peer,
                "disk": fixtures.disk,
                "node": fixtures.address,
                "beside": _BESIDE,
                "terminal": f"/run/host-pts/{fixtures.terminal}",
                "release": self._release_agent(),
            }
            if fixtures
            else {}
        )
        own = "/sys/fs/cgroup/cgroup.procs"
        if Path("/sys/fs/cgroup/devices").is_dir():
            own = "/sys/fs/cgroup/devices/cgroup.procs"
        text = words.format(own=own, **_DESCRIPTORS, **known)
        self._served.send(text)
        said = []
        while not (line := self._line("", seconds)).startswith("end "):
            said.append(line)
        return read_attempt(int(line.split()[1]), "\n".join(said))

    def _release_agent(self) -> str:
        """Returns the path of a release_agent.

        By a descriptor it is on no mount of the container; with LSM hooks, another rule matches first.
        """
        held = self.fixtures is not None and self.fixtures.hierarchy is not None and not _is_hooked()
        return f"/proc/self/fd/{_HIERARCHY}/release_agent" if held else "/run/release_agent"

    def _line(self, wanted: str, seconds: float) -> str:
        try:
            return self._served.line(wanted, seconds)
        except (EOFError, TimeoutError) as error:
            raise Error(f"{self.name} {error}") from None

    def remove(self) -> None:
        """Deletes the container."""
        self._served.close()
        argv = [*self.runtime, "delete", "--force", self.name]
        subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


@functools.cache
def _is_hooked() -> bool:
    return bool(NodeCapabilities.detect().lsm_hooks)


@contextlib.contextmanager
def new_target(
    label: str,
    config: Config,
    *,
    runtime: Sequence[str],
    directory: Path,
    fixtures: Fixtures | None,
    prefix: str,
) -> Iterator[TargetContainer]:
    """Runs a container PREFIX-LABEL-xxxxxx and deletes it after the `with` block."""
    name = f"{prefix}{label}-{secrets.token_hex(3)}"
    target = TargetContainer(name, runtime, directory / name, fixtures)
    try:
        target.start(config)
        yield target
    finally:
        target.remove()
