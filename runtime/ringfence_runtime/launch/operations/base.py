# SPDX-License-Identifier: Apache-2.0
"""What an operation is, and the state that it acts on when Python executes it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, dataclass_transform

    from ringfence_linux.syscalls import Exec
    from ringfence_runtime.launch.channel import Channel
    from ringfence_runtime.launch.operations.lowering import Lowering
    from ringfence_runtime.spec.mounts import Mount
    from ringfence_runtime.state import Container
else:

    def dataclass_transform(**_: object) -> object:
        """For mypy, which then checks the arguments of the constructors. `dataclasses` is slow to import."""
        return lambda cls: cls


__all__ = ["NotLowerableError", "Operation", "World"]


class NotLowerableError(Exception):
    """An operation that has no form in the native init's program, so that Python executes the launch."""


@dataclass_transform(frozen_default=True)
class Operation:
    """One act of a launch. Its annotations are the fields, in the order of the arguments; it is frozen."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = (*cls._fields, *cls.__annotations__)

    def __init__(self, *values: Any, **named: Any) -> None:
        self.__dict__.update(zip(self._fields, values, strict=False))
        self.__dict__.update(named)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def describe(self) -> str:
        """One line for `--debug`."""
        raise NotImplementedError

    def execute(self, world: World) -> None:
        """Performs the act in this process, which is the container's init (or that of `exec`)."""
        raise NotImplementedError

    def lower(self, target: Lowering) -> None:
        """Appends the act to the native init's program. Raises NotLowerableError if that is not possible.

        Both interpreters must produce the same container: tests/runtime/test_two_interpreters.py.
        """
        raise NotLowerableError(self.describe())


class World:
    """The state of a launch while Python executes its operations: descriptors and intermediate results."""

    __slots__ = (
        "apart",
        "call",
        "channel",
        "console",
        "container",
        "device_fds",
        "devpts",
        "entered",
        "env",
        "listener",
        "mount_fds",
        "namespaces",
        "null",
        "procfs",
        "root",
        "ruleset",
        "sealed",
        "tasks",
    )

    def __init__(self, container: Container, channel: Channel) -> None:
        self.container = container
        self.channel = channel
        self.listener: Channel | None = None  # the socket on which `start` connects
        self.console = -1
        self.tasks: list[int] = []  # the `tasks` files of the version 1 cgroups
        self.namespaces: dict[str, int] = {}  # to join, by kind
        self.root = -1  # the root filesystem
        self.null = -1  # /dev/null of the host
        self.procfs = -1
        self.devpts = -1
        self.mount_fds: dict[int, int] = {}  # sources of bind mounts, by the index of the mount
        self.device_fds: dict[str, int] = {}  # device nodes, by path
        self.apart: list[tuple[Mount, int]] = []  # mounts that keep their own propagation
        self.sealed: list[tuple[Mount, int]] = []  # mounts that become read-only after all mounts and devices
        self.entered = True  # whether the working directory could be entered with the runtime's rights
        self.ruleset = -1  # of Landlock
        self.env: list[str] = []
        self.call: Exec | None = None  # the prepared execve
