# SPDX-License-Identifier: Apache-2.0
"""The program of the native init while operations are lowered to it: shared instructions and slots."""

from __future__ import annotations

import os
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.launch.paths import ABSENT, RESOLVE, RESOLVE_STRICT
from ringfence_runtime.launch.program import Program, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CLONE_BENEATH", "KEYRING", "Lowering", "text"]

#: the size of the data that receives the name of the session keyring
KEYRING = 512
CLONE_BENEATH = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | os.O_CLOEXEC
_TO_FD = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
_O_PATH = os.O_PATH | os.O_CLOEXEC


def text(value: str) -> bytes:
    """The bytes of a name in the configuration."""
    return value.encode("utf-8", "surrogateescape")


class Lowering:
    """A program, and the slots that correspond to the descriptors of a `World`."""

    __slots__ = (
        "arguments",
        "devpts",
        "directories",
        "env",
        "keyring",
        "kinds",
        "listening",
        "null",
        "procfs",
        "program",
        "root",
        "sealed",
    )

    def __init__(self, *, listening: bool, kinds: dict[int, bool]) -> None:
        self.program = Program()
        #: the place of the keyring's name, which differs between containers with the same program
        self.keyring = self.program.data(bytes(KEYRING), own=True)
        self.listening = listening
        self.kinds = kinds  # whether the source of a bind mount is a directory, by the index of the mount
        self.root = self.program.fd("rootfs")
        self.null = self.program.slot()
        self.procfs = self.program.slot()
        self.devpts: Slot | None = None
        self.sealed: list[Slot] = []  # mounts that become read-only after all mounts and devices
        self.directories: dict[str, Slot] = {}
        self.env = 0  # offsets of vectors
        self.arguments = 0

    def filesystem(
        self, fstype: str, options: Iterable[tuple[str, str | Slot | None]], attr: int = 0
    ) -> Slot:
        """A detached mount of a new filesystem. An option's value may be data that an instruction writes."""
        call = self.program.call
        context, tree = self.program.slot(), self.program.slot()
        call("fsopen", text(fstype), 1, into=context)
        for key, value in options:
            if value is None:
                call("fsconfig", context, 0, text(key), 0, 0)
            else:
                call("fsconfig", context, 1, text(key), value if isinstance(value, Slot) else text(value), 0)
        call("fsconfig", context, 6, 0, 0, 0)
        call("fsmount", context, 1, attr, into=tree)
        return tree

    def set_attributes(
        self,
        tree: Slot,
        *,
        attr_set: int = 0,
        attr_clr: int = 0,
        propagation: int = 0,
        recursive: bool = False,
    ) -> None:
        """As syscalls.mount_setattr."""
        flags = syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0)
        data = syscalls.mount_attributes(attr_set, attr_clr, propagation)
        self.program.call(
            "mount_setattr", tree, b"", flags, self.program.at(self.program.data(data)), len(data)
        )

    def copy_tree(self, source: Slot, *, recursive: bool = False) -> Slot:
        """A detached copy of what `source` is open on."""
        tree = self.program.slot()
        flags = CLONE_BENEATH | (syscalls.AT_RECURSIVE if recursive else 0)
        self.program.call("open_tree", source, b"", flags, into=tree)
        return tree

    def ensure(
        self,
        path: str,
        *,
        directory: bool,
        mode: int = 0o755,
        follow: bool = True,
        root: Slot | None = None,
        errors: Sequence[int] = (),
    ) -> Slot:
        """As paths.ensure; `errors` are expected."""
        found, resolve = self.program.slot(), RESOLVE if follow else RESOLVE_STRICT
        words = (root or self.root, text(path), int(directory), resolve, mode)
        self.program.add("ensure", *words, into=found, errors=errors)
        return found

    def open_at(self, root: Slot, path: str, flags: int, resolve: int, errors: Sequence[int] = ()) -> Slot:
        """As syscalls.openat2."""
        found = self.program.slot()
        how = self.program.at(self.program.data(pack("<QQQ", flags, 0, resolve)))
        self.program.call("openat2", root, text(path), how, 24, into=found, errors=errors)
        return found

    def try_open(self, path: str) -> tuple[Slot, int]:
        """As paths.try_open: (the slot, the place of the instruction that must skip what uses the slot)."""
        found = self.open_at(self.root, path.lstrip("/") or ".", _O_PATH, RESOLVE, ABSENT)
        return found, self.program.last()

    def move(self, tree: Slot, target: Slot) -> None:
        """As syscalls.move_mount."""
        self.program.call("move_mount", tree, b"", target, b"", _TO_FD)

    def close(self, *slots: Slot | None) -> None:
        """Closes descriptors."""
        for slot in slots:
            if slot is not None:
                self.program.call("close", slot)

    def directory(self, path: str) -> Slot:
        """The directory of a device node, which is opened once: no symlink is followed."""
        if path not in self.directories:
            self.directories[path] = self.ensure(path or "/", directory=True, follow=False)
        return self.directories[path]
