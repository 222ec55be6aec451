# SPDX-License-Identifier: Apache-2.0
"""The whole configuration: `config.json` of a bundle, or the `--process` file of exec."""

from __future__ import annotations

import os
import stat

from ringfence_linux import strictjson
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec.linux import Linux
from ringfence_runtime.spec.mounts import Mount, parse_mounts
from ringfence_runtime.spec.node import Node
from ringfence_runtime.spec.process import Process

__all__ = ["HOOK_KINDS", "Config", "Hook", "load_config", "parse_config", "parse_process_file", "read_file"]

HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Hook:
    """A program of the host, run at a moment of the container's life."""

    __slots__ = ("args", "env", "path", "place", "timeout")

    def __init__(self, node: Node) -> None:
        self.place = node.path
        self.path = node.absolute("path")
        self.args = node.texts("args")
        self.env = node.texts("env")
        self.timeout = node.number("timeout", 1, 86400 * 365)


class Config:
    """The configuration; every member checked."""

    __slots__ = (
        "annotations",
        "domainname",
        "handler",
        "hooks",
        "hostname",
        "linux",
        "mounts",
        "process",
        "root_path",
        "root_readonly",
        "version",
    )

    def __init__(self, node: Node) -> None:
        self.version = _version(node)
        process = node.child("process")
        self.process = Process(process) if process else None
        root = node.need("root")
        self.root_path = root.need_text("path")
        self.root_readonly = root.flag("readonly")
        self.mounts: tuple[Mount, ...] = parse_mounts(node)
        self.linux = Linux(node.child("linux") or Node({}, "linux"))
        self.linux.resources.interpret(self.version)
        self.hostname = node.text("hostname")
        self.domainname = node.text("domainname")
        for key in ("hostname", "domainname"):
            if node.text(key) and "uts" not in self.linux.namespaces:
                raise node.error(key, "needs a uts namespace")
            if len(os.fsencode(node.text(key))) > 64:
                raise node.error(key, "is longer than 64 bytes")
        domainname = self.linux.sysctls.get("kernel/domainname")
        if self.domainname and domainname not in (None, self.domainname):
            raise node.error("domainname", f"is {self.domainname!r}, but linux.sysctl says {domainname!r}")
        self.annotations = node.table("annotations")
        self.handler = ""
        """set by launch.wasm for a module: how the program is executed"""
        hooks = node.child("hooks")
        self.hooks = {
            kind: [Hook(item) for item in hooks.nodes(kind)] if hooks else [] for kind in HOOK_KINDS
        }
        self._check_user_ids()

    def _check_user_ids(self) -> None:
        """Ids that the user namespace does not map would fail late and unclearly."""
        if self.process is None or not self.linux.new("user"):
            return
        user = self.process.user
        for key, value, ranges in (
            ("uid", user.uid, self.linux.uid_map),
            ("gid", user.gid, self.linux.gid_map),
        ):
            if not any(item.container <= value < item.container + item.size for item in ranges):
                raise SpecError(
                    f"process.user.{key}", f"{value} is mapped by no range of linux.{key}Mappings"
                )


def _version(node: Node) -> str:
    version = node.need_text("ociVersion")
    major = version.split(".")[0]
    if major != "1" or version.count(".") < 2:
        raise node.error("ociVersion", f"{version!r} is not supported; 1.x.y is")
    return version


def read_file(path: str, *, pipes: bool = False) -> bytes:
    """A regular file of bounded size: a FIFO or a device in a bundle must not hang the runtime.

    `pipes`: also a FIFO, for a file that the caller names, as in a shell's `<(...)`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise Error(f"cannot read {path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if pipes and stat.S_ISFIFO(status.st_mode):
            _await_writer(fd)
        elif not stat.S_ISREG(status.st_mode) and path != "/dev/stdin":
            raise Error(f"{path} is not a regular file")
        if status.st_size > strictjson.MAX_BYTES:
            raise Error(f"{path} has {status.st_size} bytes; at most {strictjson.MAX_BYTES} are read")
        os.set_blocking(fd, True)
        parts = []
        size = 0
        while part := os.read(fd, 1 << 16):
            parts.append(part)
            size += len(part)
            if size > strictjson.MAX_BYTES:
                raise Error(f"{path} is longer than {strictjson.MAX_BYTES} bytes")
        return b"".join(parts)
    finally:
        os.close(fd)


def _await_writer(fd: int) -> None:
    """Waits until a FIFO was opened for writing. A pipe without a name is at its end if it has no writer."""
    if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
        return
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def decode(data: bytes, what: str) -> Node:
    """The object in these bytes."""
    try:
        value = strictjson.loads(data)
    except ValueError as error:
        raise Error(f"{what}: not JSON: {error}") from None
    return Node(value, "")


def parse_config(data: bytes, what: str = "config.json") -> Config:
    """Check and model a configuration; raises SpecError with the JSON path of the first fault."""
    return Config(decode(data, what))


def load_config(path: str) -> tuple[Config, bytes]:
    """The configuration in a file, and its bytes."""
    data = read_file(path)
    return parse_config(data, path), data


def parse_process_file(path: str) -> Process:
    """The file of `exec --process`: a process object at the top."""
    return Process(decode(read_file(path, pipes=True), path))
