# SPDX-License-Identifier: Apache-2.0
"""The runtime's record of a container between commands: one directory with three small files.

`state.json` (its identity), `config.json` (its configuration, as bytes) and `start.sock`, on which its
init waits until `start`. The directory is created with mkdir, which prevents a second container of the
same name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from ringfence_linux import strictjson, syscalls
from ringfence_linux.atomicfile import replace_file
from ringfence_linux.procfs import live_start
from ringfence_runtime.cgroup.group import Cgroup
from ringfence_runtime.errors import Error, NotFoundError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence_runtime.spec import Config

__all__ = ["Container", "Store", "check_id"]

_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(name: str) -> str:
    """Checks a container's id (a directory and a cgroup): letters, digits, `_+-.`, no first `.`."""
    if not name:
        raise Error("the container ID is empty")
    if set(name) - _ID_LETTERS or name[0] in ".-" or len(name) > 255:
        raise Error(
            f"invalid character or length in the container ID {name!a}",
            hint="letters, digits and _ + - . are allowed, 255 at most, and neither . nor - at its beginning",
        )
    return name


class Container:
    """One container on disk."""

    __slots__ = (
        "annotations",
        "bundle",
        "cgroup",
        "created",
        "directory",
        "id",
        "keep_keyring",
        "owner",
        "pid",
        "root",
        "start",
        "systemd",
        "userns",
        "version",
    )

    def __init__(self, directory: str, data: dict[str, Any]) -> None:
        self.directory = directory
        self.id: str = data["id"]
        self.version: str = data["ociVersion"]
        self.pid: int = data["pid"]
        self.start: int = data["start"]
        self.bundle: str = data["bundle"]
        self.root: str = data["rootfs"]
        self.created: str = data["created"]
        self.owner: str = data["owner"]
        self.annotations: dict[str, str] = data["annotations"]
        self.keep_keyring: bool = data.get(
            "keepKeyring", False
        )  # exec, too, has its caller's session keyring
        self.userns: int = data.get("userns", -1)  # the number of its range of ids
        self.cgroup = Cgroup(
            data["cgroup"]["path"], data["cgroup"]["dirs"], data["cgroup"].get("foreign", [])
        )

    def save(self) -> None:
        """Writes a temporary file and renames it, so that a reader never sees a partial file."""
        data = {
            "ociVersion": self.version,
            "id": self.id,
            "pid": self.pid,
            "start": self.start,
            "bundle": self.bundle,
            "rootfs": self.root,
            "created": self.created,
            "owner": self.owner,
            "annotations": self.annotations,
            "userns": self.userns,
            "keepKeyring": self.keep_keyring,
            "cgroup": _cgroup_data(self.cgroup),
        }
        replace_file(f"{self.directory}/state.json", strictjson.dumps(data))

    @property
    def socket(self) -> str:
        return f"{self.directory}/start.sock"

    @property
    def unready(self) -> str:
        """The socket's name until `create` has finished: an earlier `start` finds none."""
        return f"{self.directory}/start.sock.new"

    def alive(self) -> bool:
        return self.pid > 0 and self.start != 0 and live_start(self.pid) == self.start

    def processes(self) -> list[int]:
        """Returns its processes: those in its cgroup, or without one those in its pid namespace."""
        if self.cgroup.dirs:
            return self.cgroup.processes()
        if not self.alive():
            return []
        from ringfence_linux.namespaces import link

        space, own = link(self.pid, "pid"), link("self", "pid")
        if not space or not own:
            return []
        if space == own:
            return [self.pid]  # it has no namespace of its own, and nothing distinguishes its children
        names = (name for name in os.listdir("/proc") if name.isdecimal())
        return sorted(int(name) for name in names if link(name, "pid") == space)

    def status(self) -> str:
        """Returns creating, created, running, paused or stopped."""
        if self.pid == 0:
            return "creating"
        if not self.alive():
            return "stopped"
        if os.path.exists(self.unready):
            return "creating"
        if self._waits():
            return "created"
        return "paused" if self.cgroup.frozen() else "running"

    def _waits(self) -> bool:
        """Returns True if the init still listens for `start`. A killed `start` leaves the socket's file.

        Connecting with the wrong socket type fails differently if something listens, without an effect.
        """
        try:
            from ringfence_runtime.launch.channel import connect

            connect(self.socket, stream=True).close()
        except FileNotFoundError:
            return False
        except OSError as error:
            return error.errno == errno.EPROTOTYPE
        return True

    def describe(self) -> dict[str, Any]:
        """Returns the state as the specification defines it (runtime.md#state), with runc's additions."""
        status = self.status()
        return {
            "ociVersion": self.version,
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.root,
            "created": self.created,
            "annotations": self.annotations,
            "owner": self.owner,
        }

    def hook_state(self, status: str, pid: int) -> str:
        return strictjson.dumps(
            {
                "ociVersion": self.version,
                "id": self.id,
                "status": status,
                "pid": pid,
                "bundle": self.bundle,
                "annotations": self.annotations,
            }
        )

    def config(self) -> Config:
        from ringfence_runtime.spec import load_config

        return load_config(f"{self.directory}/config.json")[0]

    def open_init(self) -> int:
        """Returns a pidfd of the container's init, checked after opening, as the pid can be reused.

        containerd interprets `container not running` as "nothing left to kill".
        """
        if self.pid <= 0:
            raise StateError(f"container {self.id} has no process yet")
        try:
            fd = syscalls.pidfd_open(self.pid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            raise StateError(f"container not running: {self.id}") from None
        if not self.alive():
            os.close(fd)
            raise StateError(f"container not running: {self.id}")
        return fd

    def _unlink(self, *names: str) -> None:
        for name in names:
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                continue

    def destroy(self) -> None:
        """Removes the directory; files that a concurrent delete removed are no error."""
        self._unlink("config.json", "state.json")
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            self._unlink("start.sock", "start.sock.new", "state.json.new")
            os.rmdir(self.directory)
        if self.userns >= 0:
            from ringfence_runtime.launch.autouserns import release

            release(self.userns, self.directory)


def _cgroup_data(group: Cgroup) -> dict[str, Any]:
    """`foreign` names hierarchies in which the directory existed before: it is not removed there."""
    return {"path": group.path, "dirs": group.dirs, "foreign": group.foreign}


def write_new(path: str, data: bytes) -> None:
    """Writes a file that no other process reads yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def now() -> str:
    """Returns the time in RFC 3339 with nanoseconds, as Go's engines parse it."""
    nanoseconds = time.time_ns()
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9)) + f".{nanoseconds % 10**9:09d}Z"
    )


class Store:
    """All containers below one `--root`."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def create(
        self,
        name: str,
        *,
        bundle: str,
        rootfs: str,
        version: str,
        annotations: dict[str, str],
        cgroup: Cgroup,
        userns: int = -1,
        keep_keyring: bool = False,
    ) -> Container:
        """Creates a directory with a first state (`creating`) that names the cgroup.

        So a runtime killed from here on can be cleaned up. Error if the name or the cgroup is in use.
        """
        directory = f"{self.root}/{check_id(name)}"
        try:
            self._make(directory)
        except FileExistsError:
            raise StateError(f"container {name} already exists") from None
        try:
            cgroup.claim()
        except Error:
            os.rmdir(directory)
            raise
        container = Container(
            directory,
            {
                "ociVersion": version,
                "id": name,
                "pid": 0,
                "start": 0,
                "bundle": bundle,
                "rootfs": rootfs,
                "created": now(),
                "owner": _owner(),
                "annotations": annotations,
                "userns": userns,
                "keepKeyring": keep_keyring,
                "cgroup": _cgroup_data(cgroup),
            },
        )
        try:
            container.save()
        except OSError:
            container.destroy()
            raise
        return container

    def _make(self, directory: str) -> None:
        mode = 0o711 if os.geteuid() else 0o700
        try:
            os.mkdir(directory, mode)
        except FileNotFoundError:
            os.makedirs(self.root, 0o711, exist_ok=True)
            os.mkdir(directory, mode)

    def load(self, name: str) -> Container:
        directory = f"{self.root}/{check_id(name)}"
        try:
            with open(f"{directory}/state.json", "rb") as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"container {name} does not exist") from None
        try:
            return Container(directory, strictjson.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"the state of container {name} is damaged: {error}", hint="delete --force it"
            ) from None

    def names(self) -> list[str]:
        try:
            entries = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        return [name for name in entries if os.path.isfile(f"{self.root}/{name}/state.json")]

    def lock(self, name: str) -> int:
        """Locks the container exclusively: two deletes, or a delete and a start, exclude each other."""
        try:
            fd = os.open(f"{self.root}/{check_id(name)}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"container {name} does not exist") from None
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd


def _owner() -> str:
    """The user's name, read without the pwd module's NSS (it loads libraries on the launch path)."""
    uid = os.geteuid()
    return "root" if uid == 0 else str(uid)
