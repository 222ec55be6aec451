# SPDX-License-Identifier: Apache-2.0
"""Settings of the namespaces and of the process: names, sysctls, umask, execution domain."""

from __future__ import annotations

import _socket
import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.operations.base import Operation
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.paths import check_magic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering

__all__ = ["SetDomainName", "SetHostname", "SetPersonality", "SetUmask", "Sysctl"]

# CVE-2025-52881: the file is opened below the detached procfs, and nothing may lead out of it.
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


class SetHostname(Operation):
    """Sets the host name in the uts namespace."""

    name: str

    def describe(self) -> str:
        return f"set the host name {self.name}"

    def execute(self, world: World) -> None:
        _socket.sethostname(self.name)

    def lower(self, target: Lowering) -> None:
        name = text(self.name)
        target.program.call("sethostname", name, len(name))


class SetDomainName(Operation):
    """Sets the NIS domain name in the uts namespace."""

    name: str

    def describe(self) -> str:
        return f"set the domain name {self.name}"

    def execute(self, world: World) -> None:
        syscalls.setdomainname(self.name)

    def lower(self, target: Lowering) -> None:
        name = text(self.name)
        target.program.call("setdomainname", name, len(name))


class Sysctl(Operation):
    """Writes a sysctl of one of the container's namespaces. `name`: below /proc/sys."""

    name: str
    value: str

    def describe(self) -> str:
        return f"set the sysctl {self.name} to {self.value!r}"

    def execute(self, world: World) -> None:
        try:
            fd = syscalls.openat2(world.procfs, f"sys/{self.name}", os.O_WRONLY, resolve=_RESOLVE)
            try:
                check_magic(fd, syscalls.PROC_SUPER_MAGIC, self.name)
                os.write(fd, self.value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise Error(f"config: linux.sysctl.{self.name.replace('/', '.')}: {error.strerror}") from None

    def lower(self, target: Lowering) -> None:
        file = target.open_at(target.procfs, f"sys/{self.name}", os.O_WRONLY | os.O_CLOEXEC, _RESOLVE)
        target.program.add("check_magic", file, syscalls.PROC_SUPER_MAGIC)
        target.program.call("write", file, self.value.encode(), len(self.value.encode()))
        target.close(file)


class SetUmask(Operation):
    """Sets the umask: 0 while the files of the container are created, later that of the workload."""

    value: int

    def describe(self) -> str:
        return f"set the umask {self.value:04o}"

    def execute(self, world: World) -> None:
        os.umask(self.value)

    def lower(self, target: Lowering) -> None:
        target.program.call("umask", self.value)


class SetPersonality(Operation):
    """Sets the execution domain (personality(2))."""

    persona: int

    def describe(self) -> str:
        return f"set the personality {self.persona:#x}"

    def execute(self, world: World) -> None:
        syscalls.personality(self.persona)

    def lower(self, target: Lowering) -> None:
        target.program.call("personality", self.persona)
