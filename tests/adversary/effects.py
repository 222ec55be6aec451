# SPDX-License-Identifier: Apache-2.0
"""Effects of an attack, as they are seen from outside of the container."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.adversary.world import Round

__all__ = ["Effect", "accounted", "aged", "clock_moved", "device_held", "exists", "frozen", "gone"]
__all__ += ["in_namespace", "io_idle", "limited", "mode_is", "nodump", "own_userns", "parameter", "planted"]
__all__ += ["received", "reniced", "rescheduled", "secret_shown", "shut_down", "signalled", "stalled"]
__all__ += ["stopped", "swapped", "typed", "upcall", "written", "xattr_set"]

_FITHAW = 0xC0045878
_SYS_IOPRIO_GET = 252  # x86-64
_FS_IOC_GETFLAGS, _FS_NODUMP_FL = 0x80086601, 0x40
Effect = Callable[[Round], bool]


def secret_shown(one: Round) -> bool:
    """The host's secret is in the attacker's output."""
    return one.world.secret in one.attempt.output


def written(path: str) -> Effect:
    """The text of the attacker is in a file of the host."""

    def look(one: Round) -> bool:
        with contextlib.suppress(OSError):
            return one.token in Path(path.format_map(one.words())).read_text(errors="replace")
        return False

    return look


def exists(path: str) -> Effect:
    """Something has that name."""
    return lambda one: os.path.lexists(path.format_map(one.words()))


def gone(path: str) -> Effect:
    """Nothing has that name any more."""
    return lambda one: not os.path.lexists(path.format_map(one.words()))


def mode_is(path: str, mode: int) -> Effect:
    """The file is there, and has these permissions."""

    def has(one: Round) -> bool:
        try:
            return stat.S_IMODE(os.lstat(path.format_map(one.words())).st_mode) == mode
        except FileNotFoundError:
            return False

    return has


def xattr_set(path: str, name: str) -> Effect:
    """The file has an attribute."""
    return lambda one: name in os.listxattr(path.format_map(one.words()))


def nodump(path: str) -> Effect:
    """The file has the inode flag that it has not by itself."""

    def look(one: Round) -> bool:
        flags = ctypes.c_int(0)
        with open(path.format_map(one.words()), "rb") as file:
            fcntl.ioctl(file, _FS_IOC_GETFLAGS, flags)
        return bool(flags.value & _FS_NODUMP_FL)

    return look


def aged(path: str) -> Effect:
    """The file seems to be from 1970."""
    return lambda one: os.lstat(path.format_map(one.words())).st_mtime < 100


def received(one: Round) -> bool:
    """A server of the host received the attacker's text."""
    return one.world.servers.got(one.token)


def signalled(one: Round) -> bool:
    """A signal ended the victim."""
    return one.victim.process.poll() is not None


def stopped(one: Round) -> bool:
    """The victim's cgroup is frozen. Thaws it."""
    file = one.cgroup.paths["v2"] / "cgroup.freeze"
    found = file.read_text().strip() == "1"
    if found:
        file.write_text("0")
    return found


def typed(one: Round) -> bool:
    """The attacker's text has come out of the terminal."""
    ready, _, _ = select.select([one.terminal], [], [], 0)
    return bool(ready) and one.token.encode() in os.read(one.terminal, 4096)


def limited(one: Round) -> bool:
    """The victim may open no more files."""
    return resource.prlimit(one.victim.pid, resource.RLIMIT_NOFILE) == (3, 3)


def rescheduled(one: Round) -> bool:
    """The victim runs only while nobody else does."""
    return os.sched_getscheduler(one.victim.pid) == os.SCHED_IDLE


def reniced(one: Round) -> bool:
    """The victim runs after all others."""
    return os.getpriority(os.PRIO_PROCESS, one.victim.pid) == 19


def io_idle(one: Round) -> bool:
    """The victim reads and writes only while nobody else does."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_SYS_IOPRIO_GET, 1, one.victim.pid)
    return bool(found >> 13 == 3)


def in_namespace(kind: str, pid: str) -> Effect:
    """A process of the container is in that process's namespace, and was not."""

    def look(one: Round) -> bool:
        wanted = os.readlink(f"/proc/{pid.format_map(one.words())}/ns/{kind}")
        for mine in one.hostile.pids():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{mine}/ns/{kind}") == wanted:
                    return True
        return False

    return look


def device_held(number: str) -> Effect:
    """A process of the container has that character device ("MAJOR MINOR") open."""

    def look(one: Round) -> bool:
        wanted = tuple(map(int, number.format_map(one.words()).split()))
        for pid in one.hostile.pids():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    device = os.major(found.st_rdev), os.minor(found.st_rdev)
                    if stat.S_ISCHR(found.st_mode) and device == wanted:
                        return True
        return False

    return look


def planted(path: str) -> Effect:
    """The text is in a file outside of the test's directories, which is removed again."""

    def look(one: Round) -> bool:
        file = Path(path.format_map(one.words()))
        found = written(path)(one)
        with contextlib.suppress(OSError):
            file.unlink()
        return found

    return look


def own_userns(one: Round) -> bool:
    """A process of the container is in a user namespace that is not the host's."""
    host = os.readlink("/proc/self/ns/user")
    for pid in one.hostile.pids():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/user") != host:
                return True
    return False


def swapped(one: Round) -> bool:
    """The node swaps into the container's file. Ends that."""
    found = one.token in Path("/proc/swaps").read_text()
    if found:
        subprocess.run(["swapoff", str(one.given / "swap")], check=True)
    return found


def clock_moved(one: Round) -> bool:
    """The node's clock is ahead. Sets it back."""
    ahead = Round.clock() - one.clock_before
    if ahead < 50:
        return False
    time.clock_settime(time.CLOCK_REALTIME, time.time() - ahead)
    return True


def accounted(one: Round) -> bool:
    """The kernel writes records into the container's file. Ends that."""
    found = (one.given / "file").stat().st_size > len("untouched\n")
    if found:
        ctypes.CDLL(None).acct(None)
    return found


def frozen(one: Round) -> bool:
    """The host's disk is frozen. Thaws it."""
    return _ioctl(one.node.disk, _FITHAW)


def shut_down(one: Round) -> bool:
    """The host's disk does not work any more. Mounts another."""
    try:
        (one.node.disk / "probe").write_text("x")
        os.sync()
        (one.node.disk / "probe").unlink()
    except OSError:
        one.node.mount_disk()
        return True
    return False


def _ioctl(path: Path, number: int) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, number, 0)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def upcall(one: Round) -> bool:
    """The kernel has run the host's helper."""
    return one.node.upcalls.exists()


def stalled(one: Round) -> bool:
    """An open of the host took longer than a second."""
    return one.longest_open > 1.0


def parameter(path: str, value: str, before: str) -> Effect:
    """A file of sysfs has the attacker's value. Writes the former one."""

    def look(one: Round) -> bool:
        del one
        file = Path(path)
        if file.read_text().strip() != value:
            return False
        file.write_text(before)
        return True

    return look
