# SPDX-License-Identifier: Apache-2.0
"""`userns: auto`: 65,536 ids of the host for each container, which no other container has.

The ranges are those of user `ringfence` in /etc/subuid and /etc/subgid, as for Docker's userns-remap.
Without such lines they come from a pool (RINGFENCE_USERNS_POOL=FIRST:COUNT names another), minus what
those files give to other users. One directory holds a file for each range in use and is changed under a
lock. If the container of a file does not exist and the process that took it has ended, the range is
free again: a killed runtime loses none.
"""

from __future__ import annotations

import fcntl
import os

from ringfence_linux import strictjson
from ringfence_runtime.errors import Error, SpecError, UsageError
from ringfence_runtime.launch.plan import USERNS
from ringfence_runtime.spec.mounts import IdMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec.config import Config

__all__ = ["POOL", "SIZE", "Range", "ranges", "release", "rewrite", "take", "wanted"]

DIRECTORY = "/run/ringfence/userns"
USER = "ringfence"
SIZE = 65536
#: Above the ids that sssd assigns to a directory (ldap_idmap_range_max is 2000200000), and above those of
#: systemd-nspawn; below systemd's foreign range (systemd.io/UIDS-GIDS).
POOL = (0x77390000, 2245)
POOL_VARIABLE = "RINGFENCE_USERNS_POOL"
_FILES = ("/etc/subuid", "/etc/subgid")
_LAST = (1 << 32) - 2


class Range:
    """The ids of the host that are 0 to 65,535 in a container."""

    __slots__ = ("gid", "index", "uid")

    def __init__(self, index: int, uid: int, gid: int) -> None:
        self.index = index
        self.uid = uid
        self.gid = gid

    def maps(self) -> tuple[list[IdMapping], list[IdMapping]]:
        """For uids and for gids."""
        return [IdMapping(0, self.uid, SIZE)], [IdMapping(0, self.gid, SIZE)]


def wanted(config: Config, asked: str) -> bool:
    """Returns True if the option or the annotation asks for it."""
    text = asked or config.annotations.get(USERNS, "")
    if text not in ("", "auto", "host"):
        if asked:
            raise UsageError(f"--userns: {text[:40]!a} is neither auto nor host")
        raise SpecError(f"annotations.{USERNS}", f"{text[:40]!a} is neither auto nor host")
    if text == "auto" and (config.linux.uid_map or config.linux.namespaces.get("user")):
        raise SpecError("linux.uidMappings", "userns auto makes a user namespace and its mappings itself")
    return text == "auto"


def take(container: str) -> Range:
    """A free range for the container whose state directory is (or will be) `container`."""
    from ringfence_linux.procfs import live_start

    directory = os.environ.get("RINGFENCE_USERNS_DIR", DIRECTORY)
    os.makedirs(directory, 0o700, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken = set(os.listdir(directory))
        for index, uid, gid in ranges():
            if str(index) in taken and _is_held(f"{directory}/{index}"):
                continue
            pid = os.getpid()
            _write(f"{directory}/{index}", f"{pid} {live_start(pid)} {container}")
            return Range(index, uid, gid)
    finally:
        os.close(lock)
    raise Error(
        "userns auto: every range of ids is taken",
        hint=f"give user {USER} more in /etc/subuid and /etc/subgid",
    )


def release(index: int, container: str) -> None:
    """Gives a range back, if it still belongs to this container."""
    directory = os.environ.get("RINGFENCE_USERNS_DIR", DIRECTORY)
    path = f"{directory}/{index}"
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _read(path).split(" ", 2)[2:] == [container]:
            os.unlink(path)
    finally:
        os.close(lock)


def ranges() -> list[tuple[int, int, int]]:
    """(number, first uid, first gid) of every range that a container may have.

    Numbers stay the same while the files do: they name what is taken.
    """
    lines = [_lines(file) for file in _FILES]
    given = [
        [
            first
            for name, begin, count in each
            if name == USER
            for first in range(begin, begin + count - SIZE + 1, SIZE)
        ]
        for each in lines
    ]
    if bool(given[0]) != bool(given[1]):
        missing = _FILES[0 if not given[0] else 1]
        raise Error(f"userns auto: {missing} gives user {USER} no range", hint="uids and gids come together")
    if given[0]:
        return [(number, *pair) for number, pair in enumerate(zip(*given, strict=False))]
    begin, count = _pool()
    others = [(first, first + size) for each in lines for name, first, size in each if name != USER]
    return [
        (number, first, first)
        for number, first in enumerate(range(begin, begin + count * SIZE, SIZE))
        if not any(first < end and start < first + SIZE for start, end in others)
    ]


def _pool() -> tuple[int, int]:
    """(first id, number of ranges)."""
    text = os.environ.get(POOL_VARIABLE, "")
    if not text:
        return POOL
    begin, _, count = text.partition(":")
    if not begin.isdecimal() or not count.isdecimal() or not 0 < int(begin) + int(count) * SIZE <= _LAST:
        raise Error(f"{POOL_VARIABLE}={text!a} is not FIRST:COUNT, an id and a number of ranges of {SIZE}")
    return int(begin), int(count)


def _lines(file: str) -> list[tuple[str, int, int]]:
    """(user, first id, number of ids) of each line of a file of subuid(5); what is none is left out."""
    found = []
    for line in _read(file).splitlines():
        name, _, rest = line.strip().partition(":")
        begin, _, count = rest.partition(":")
        if begin.isdecimal() and count.isdecimal():
            found.append((name, int(begin), int(count)))
    return found


def _is_held(path: str) -> bool:
    from ringfence_linux.procfs import live_start

    words = _read(path).split(" ", 2)
    if len(words) != 3 or not words[0].isdecimal() or not words[1].isdecimal():
        return False
    return os.path.isdir(words[2]) or live_start(int(words[0])) == int(words[1])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def rewrite(data: bytes, ids: Range) -> bytes:
    """The configuration with a user namespace of this range, as exec and start will read it, too."""
    config = strictjson.loads(data)
    linux = config.setdefault("linux", {})
    spaces = [space for space in linux.get("namespaces") or [] if space.get("type") != "user"]
    linux["namespaces"] = [*spaces, {"type": "user"}]
    for key, start in (("uidMappings", ids.uid), ("gidMappings", ids.gid)):
        linux[key] = [{"containerID": 0, "hostID": start, "size": SIZE}]
    return strictjson.dumps(config).encode("ascii")
