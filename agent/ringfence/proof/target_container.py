# SPDX-License-Identifier: Apache-2.0
"""A throw-away container whose only program is the one that attacks.

The bundle is what `--privileged` gives: every capability that we have ourselves, all devices, no seccomp,
nothing masked or read-only. That is the point: the kernel itself would let an attack through. Its mount,
pid, network, ipc, uts and cgroup namespaces are its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.containers.hierarchy import hierarchy_mounts
from ringfence.errors import Error
from ringfence.proof.fixtures import Props
from ringfence.proof.program import Attempt, program, read_attempt
from ringfence_linux import capabilities

__all__ = ["DISK", "FS", "HELPER", "LEAKED", "MOUNT", "NODE", "OWN", "PEER", "RELEASE"]
__all__ += ["Box", "Config", "Kind", "new_box", "privileged_config"]

# What attacks may write for what differs from run to run.
LEAKED = "{leaked}"  # number of a leaked descriptor: a directory of the disk
FS = "{fs}"  # of another: a filesystem in the making
MOUNT = "{mount}"  # of another: a mount that is attached nowhere
OWN = "{own}"  # cgroup.procs of the container's own cgroup, as it sees it
HELPER = "{helper}"  # pid of a process outside, where the container shares the pid namespace
PEER = "{peer}"  # of another, which is in the host's namespaces
RELEASE = (
    "{release}"  # a release_agent: of a hierarchy of the test's, else of the host's freezer, if it has one
)
NODE = "{node}"  # an address of the node
DISK = "{disk}"  # where the disk is mounted outside

Config = dict[str, Any]
#: what kind of container: `host-pid` shares the host's processes, `userns` has a user namespace of its own
Kind = Literal["plain", "host-pid", "userns"]
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
_HIERARCHY = 6


def _capabilities() -> list[str]:
    """Those of our own bounding set: no runtime can give more."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1]
    return [name for name in capabilities.names(int(bounding, 16)) if not name.removeprefix("CAP_").isdigit()]


def privileged_config(root: Path, props: Props | None, *, kind: Kind = "plain") -> Config:
    """config.json, with the props where attacks look for them; in a user namespace there are none."""
    namespaces = [name for name in _NAMESPACES if name != "pid" or kind != "host-pid"]
    mounts: list[dict[str, Any]] = [
        {"destination": where, "type": fstype, "source": fstype, "options": list(options)}
        for where, fstype, options in _MOUNTS
        if kind != "userns" or fstype != "cgroup"
    ]
    # Onto the same users: what is tested is the namespace, and our files are for root alone.
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
        "mounts": mounts + (_furniture(props) if props and kind != "userns" else []),
        "linux": {
            "namespaces": [{"type": name} for name in (*namespaces, *(["user"] if users else []))],
            **users,
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            "maskedPaths": [],
            "readonlyPaths": [],
        },
    }


def _furniture(props: Props) -> list[dict[str, Any]]:
    """The mounts that show the props inside, and what a careless or deceived runtime shows."""
    binds = [
        (props.socket, "/run/docker.sock"),
        (props.hand, "/run/hand.sock"),
        (Path(f"/proc/{os.getpid()}/ns/uts"), "/run/ns-host-uts"),
        (Path(f"/proc/{props.helper}/ns/uts"), "/run/ns-other-uts"),
        (props.beside, "/run/cgroup-beside"),
        # As a masked path and a console look that were swapped for links while the runtime bound them.
        (Path("/proc/sys/kernel/core_pattern"), "/run/unmasked"),
        (Path("/proc/sysrq-trigger"), "/run/console"),
        (Path("/proc/sys/kernel/core_pattern"), "/run/console-pattern"),
        (Path("/dev/rfexploit"), "/run/exploit"),
    ]
    if props.disk:
        binds.append((props.disk / "etc/passwd", "/run/host-passwd"))
        binds.append((props.disk / "var/log", "/var/log"))
        binds.append((props.disk / "shared", "/run/shared"))
    v1, _ = hierarchy_mounts()
    if "freezer" in v1:
        binds.append((Path(v1["freezer"], "release_agent"), "/run/release_agent"))
    if props.fuse:
        binds.append((props.fuse, "/run/lxcfs"))
    known = Path("/proc/filesystems").read_text().split()
    found: list[dict[str, Any]] = [
        {"destination": inside, "type": "bind", "source": str(outside), "options": ["bind", "rw"]}
        for outside, inside in binds
        if outside.exists()
    ]
    # The host's root, and not what is mounted below it.
    found.append({"destination": "/run/host", "type": "bind", "source": "/", "options": ["bind", "ro"]})
    return found + [
        {"destination": f"/run/{kind}", "type": kind, "source": kind, "options": []}
        for kind in ("tracefs", "binfmt_misc")
        if kind in known
    ]


class Box:
    """The container, and the two pipes by which its program is told what to run."""

    def __init__(self, name: str, runtime: Sequence[str], directory: Path, props: Props | None) -> None:
        self.name, self.runtime, self.directory, self.props = name, runtime, directory, props
        self._commands = self._answers = -1
        self._buffer = b""

    def start(self, config: Config) -> None:
        """`run --detach`; the program waits for words then. Raises Error with what the runtime said."""
        config["linux"]["cgroupsPath"] = f"/{self.name}"
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(config, indent=1))
        theirs_in, self._commands = os.pipe()
        self._answers, theirs_out = os.pipe()
        log = self.directory / "runtime.log"
        leak = self.props is not None
        argv = [*self.runtime, "run", "--detach", "--bundle", str(self.directory)]
        if leak:
            argv = [str(program()), "hand", *argv, "--preserve-fds", str(_HIERARCHY - 2)]
        try:
            with log.open("wb") as errors:
                got = subprocess.run(
                    [*argv, self.name], stdin=theirs_in, stdout=theirs_out, stderr=errors, check=False,
                    timeout=300, preexec_fn=self._leak if leak else None, close_fds=not leak,
                )  # fmt: skip
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        if got.returncode:
            said = log.read_text(errors="replace")[-500:].strip()
            raise Error(f"{self.runtime[0]} did not start {self.name}: {said}")
        self._line("ready", 120)

    def _leak(self) -> None:
        """In the child before exec: two directories, and no other descriptor; attacks/mounts.c adds two."""
        assert self.props is not None
        disk = os.open(self.props.disk or self.props.directory, os.O_RDONLY | os.O_DIRECTORY)
        hierarchy = disk if self.props.hierarchy is None else self.props.hierarchy
        # First out of the way: either may be a number that the other is to have.
        held = fcntl.fcntl(disk, fcntl.F_DUPFD, 64), fcntl.fcntl(hierarchy, fcntl.F_DUPFD, 64)
        for number, fd in zip((3, _HIERARCHY), held, strict=True):
            os.dup2(fd, number, inheritable=True)
        os.closerange(4, _HIERARCHY)
        os.closerange(_HIERARCHY + 1, 1024)

    def run(self, words: str, *, seconds: float = 60.0) -> Attempt:
        """Run `attacks WORDS` inside; what it said, and how it ended."""
        props = self.props
        known = (
            {
                "helper": props.helper,
                "peer": props.peer,
                "disk": props.disk,
                "node": props.address,
                "release": self._release_agent(),
            }
            if props
            else {}
        )
        own = "/sys/fs/cgroup/cgroup.procs"
        if Path("/sys/fs/cgroup/devices").is_dir():
            own = "/sys/fs/cgroup/devices/cgroup.procs"
        text = words.format(own=own, **_DESCRIPTORS, **known)
        os.write(self._commands, text.encode() + b"\n")
        said = []
        while not (line := self._line("", seconds)).startswith("end "):
            said.append(line)
        return read_attempt(int(line.split()[1]), "\n".join(said))

    def _release_agent(self) -> str:
        """By a descriptor it is on no mount of the container: where hooks ask, another rule is met first."""
        held = self.props is not None and self.props.hierarchy is not None and not _is_hooked()
        return f"/proc/self/fd/{_HIERARCHY}/release_agent" if held else "/run/release_agent"

    def _line(self, wanted: str, seconds: float) -> str:
        """The next line (`wanted`: the next one that is this)."""
        end = time.monotonic() + seconds
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if not wanted or line.decode() == wanted:
                    return line.decode(errors="replace")
                continue
            if not select.select([self._answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Error(f"{self.name} did not answer within {seconds:.0f} s")
            more = os.read(self._answers, 65536)
            if not more:
                raise Error(f"{self.name} ended")
            self._buffer += more

    def remove(self) -> None:
        """Delete the container."""
        for fd in (self._commands, self._answers):
            if fd >= 0:
                os.close(fd)
        argv = [*self.runtime, "delete", "--force", self.name]
        subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


@functools.cache
def _is_hooked() -> bool:
    return bool(NodeCapabilities.detect().lsm_hooks)


@contextlib.contextmanager
def new_box(
    label: str, config: Config, *, runtime: Sequence[str], directory: Path, props: Props | None, prefix: str
) -> Iterator[Box]:
    """A container PREFIX-LABEL-xxxxxx that runs; it is gone after the `with` block."""
    name = f"{prefix}{label}-{secrets.token_hex(3)}"
    box = Box(name, runtime, directory / name, props)
    try:
        box.start(config)
        yield box
    finally:
        box.remove()
