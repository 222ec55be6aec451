# SPDX-License-Identifier: Apache-2.0
"""A list of system calls for front/init.c: laid out beforehand, executed by a process without an interpreter.

An argument is a number, bytes (a pointer to a copy of them is passed) or a `Slot` (the descriptor or number
that stands there by then). A step whose error is not named beforehand makes the init give up before the
workload has run; the runtime then starts the init that Python is.
"""

from __future__ import annotations

from _struct import Struct, pack

from ringfence_linux.numbers import number as number_of

__all__ = ["Program", "Slot"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = 0x52464932
MOST_BYTES = 192 * 1024
MOST_FDS = 250
MOST_SLOTS = 1024
HEADER = Struct("<6I")
STEP = Struct("<HHhH4h8B6Q")
#: the kinds of steps, in the order of the enum in init.c
KINDS = (
    "call",
    "ensure",
    "check_magic",
    "check_not_magic",
    "check_device",
    "skip",
    "skip_unless_directory",
    "existing_mode",
    "drop_bounding",
    "home",
    "directory",
    "streams",
    "find",
    "ready",
    "execute",
)
_NUMBER, _SLOT, _DATA = 0, 1, 2


class Slot:
    """Where a descriptor will stand."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Program:
    """Steps, the data that they point to, and the descriptors that come with them."""

    def __init__(self) -> None:
        #: names of the descriptors that come with it, in order
        self.fds: list[str] = []
        self._steps: list[tuple[int, ...]] = []
        self._data = bytearray()
        self._known: dict[bytes, int] = {}
        self._pointers: list[int] = []
        self._slots = MOST_FDS

    def fd(self, name: str) -> Slot:
        """The slot of a descriptor that is handed over under this name."""
        if name not in self.fds:
            self.fds.append(name)
        return Slot(self.fds.index(name))

    def slot(self) -> Slot:
        """A new one, for a result."""
        self._slots += 1
        return Slot(self._slots - 1)

    def data(self, content: bytes, *, own: bool = False) -> int:
        """The offset of these bytes, aligned; the same bytes stand once, unless they are written to
        (`own`).
        """
        if not own and content in self._known:
            return self._known[content]
        self._data += bytes(-len(self._data) % 8)
        offset = len(self._data)
        self._data += content
        if not own:
            self._known[content] = offset
        return offset

    def vector(self, texts: Sequence[bytes | int]) -> int:
        """An array of pointers to texts (or offsets of data) with a null at its end, as execve wants it."""
        offsets = [text if isinstance(text, int) else self.data(text + b"\0") for text in texts]
        start = self.data(pack(f"{len(offsets) + 1}Q", *offsets, 0), own=True)
        self._pointers += range(start, start + 8 * len(offsets), 8)
        return start

    def pointing(self, content: bytes, at: int) -> int:
        """Data whose 8 bytes at `at` are the offset of other data: they become a pointer."""
        start = self.data(content, own=True)
        self._pointers.append(start + at)
        return start

    def call(
        self, name: str, *arguments: int | bytes | Slot, into: Slot | None = None, errors: Sequence[int] = ()
    ) -> int:
        """Add a system call; its place, for `skip`. `errors` do not matter."""
        return self._add("call", number_of(name), arguments, into, errors)

    def step(
        self, kind: str, *arguments: int | bytes | Slot, into: Slot | None = None, errors: Sequence[int] = ()
    ) -> int:
        """Add a step of another kind; its place."""
        return self._add(kind, 0, arguments, into, errors)

    def at(self, offset: int) -> Slot:
        """An argument that points to data which is there already."""
        return _Pointer(offset)

    def skip(self, place: int) -> None:
        """Let the step at `place` leave out all that was added since, where it met one of its errors."""
        step = self._steps[place]
        self._steps[place] = (*step[:3], len(self._steps) - place - 1, *step[4:])

    def _add(
        self,
        kind: str,
        number: int,
        arguments: Sequence[int | bytes | Slot],
        into: Slot | None,
        errors: Sequence[int],
    ) -> int:
        hows, values = [0] * 8, [0] * 6
        for index, argument in enumerate(arguments):
            if isinstance(argument, _Pointer):
                hows[index], values[index] = _DATA, argument.index
            elif isinstance(argument, Slot):
                hows[index], values[index] = _SLOT, argument.index
            elif isinstance(argument, bytes):
                hows[index], values[index] = _DATA, self.data(argument + b"\0")
            else:
                values[index] = argument & 0xFFFFFFFFFFFFFFFF
        result = -1 if into is None else into.index
        four = [*errors, *[0] * (4 - len(errors))]
        self._steps.append((KINDS.index(kind), number, result, 0, *four, *hows, *values))
        return len(self._steps) - 1

    def place_of(self, offset: int) -> int:
        """Where data lies in the message, from its end (negative)."""
        return offset - len(self._data)

    def fits(self) -> bool:
        """Whether one message can carry it."""
        return (
            len(self.fds) <= MOST_FDS and self._slots < MOST_SLOTS and len(self._data) < MOST_BYTES // 2
        ) and len(self._steps) * STEP.size < MOST_BYTES // 2

    def encode(self) -> bytes:
        """The message; it ends with the data."""
        if len(self._pointers) % 2:
            self._pointers.append(self.data(bytes(8), own=True))  # so that the data begins aligned
        head = HEADER.pack(MAGIC, len(self._steps), len(self.fds), len(self._pointers), len(self._data), 0)
        steps = b"".join(STEP.pack(*step) for step in self._steps)
        return head + steps + pack(f"<{len(self._pointers)}I", *self._pointers) + bytes(self._data)


class _Pointer(Slot):
    """A pointer to data that is there already."""

    __slots__ = ()
