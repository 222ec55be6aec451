# SPDX-License-Identifier: Apache-2.0
"""A program for the native init (native/init.c): system calls and the checks between them.

An argument is a number, bytes (a pointer to a copy of them is passed) or a `Slot` (the descriptor or
number that an earlier instruction stored there). If an instruction fails with an error that it does not
list, the native init ends before the workload has run, and the runtime starts the Python init.
"""

from __future__ import annotations

from _struct import Struct, pack

from ringfence_linux.numbers import number as number_of

__all__ = ["Program", "Slot"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = 0x52464933
MOST_BYTES = 192 * 1024
MOST_FDS = 250
MOST_SLOTS = 1024
HEADER = Struct("<6I")
INSTRUCTION = Struct("<HHhH8h8B6Q")
#: the kinds of instructions, in the order of the enum in native/interpreter.h
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
_PLACES = {kind: place for place, kind in enumerate(KINDS)}
_CALL = _PLACES["call"]
_SLOT, _DATA = 1, 2  # how an argument is given; 0: as a number
# The places in the fields of an instruction: 4 words, the errors, how each argument is given, the arguments.
_SKIP, _ERRORS, _HOWS, _VALUES, _FIELDS = 3, 4, 12, 20, 26


class Slot:
    """The number of a place that holds a descriptor or a result."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Program:
    """Instructions, the data that they point to, and the names of the descriptors that they need."""

    def __init__(self) -> None:
        #: names of the descriptors in the message, in order
        self.fds: list[str] = []
        self._instructions: list[list[int]] = []
        self._data = bytearray()
        self._known: dict[bytes, int] = {}
        self._pointers: list[int] = []
        self._slots = MOST_FDS

    def fd(self, name: str) -> Slot:
        """The slot of the descriptor with this name, which the runtime sends with the program."""
        if name not in self.fds:
            self.fds.append(name)
        return Slot(self.fds.index(name))

    def slot(self) -> Slot:
        """A new slot for a result."""
        self._slots += 1
        return Slot(self._slots - 1)

    def data(self, content: bytes, *, own: bool = False) -> int:
        """Returns the aligned offset of these bytes. Equal bytes share one copy, unless they are `own`:
        data that an instruction writes.
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
        """An array of pointers to texts (or offsets of data), terminated by a null pointer, for execve."""
        offsets = [text if isinstance(text, int) else self.data(text + b"\0") for text in texts]
        start = self.data(pack(f"{len(offsets) + 1}Q", *offsets, 0), own=True)
        self._pointers += range(start, start + 8 * len(offsets), 8)
        return start

    def pointing(self, content: bytes, at: int) -> int:
        """Data with the offset of other data in its 8 bytes at `at`; the native init makes it a pointer."""
        start = self.data(content, own=True)
        self._pointers.append(start + at)
        return start

    def call(
        self, name: str, *arguments: int | bytes | Slot, into: Slot | None = None, errors: Sequence[int] = ()
    ) -> int:
        """Adds a system call and returns its place, for `skip`. `errors` are expected and ignored."""
        return self._add(_CALL, number_of(name), arguments, into, errors)

    def add(
        self, kind: str, *arguments: int | bytes | Slot, into: Slot | None = None, errors: Sequence[int] = ()
    ) -> int:
        """Adds an instruction of another kind and returns its place."""
        return self._add(_PLACES[kind], 0, arguments, into, errors)

    def last(self) -> int:
        """The place of the last instruction."""
        return len(self._instructions) - 1

    def at(self, offset: int) -> Slot:
        """An argument that points to existing data."""
        return _Pointer(offset)

    def skip(self, place: int) -> None:
        """Makes the instruction at `place` skip all that were added since, if one of its errors occurs."""
        self._instructions[place][_SKIP] = len(self._instructions) - place - 1

    def _add(
        self,
        place: int,
        number: int,
        arguments: Sequence[int | bytes | Slot],
        into: Slot | None,
        errors: Sequence[int],
    ) -> int:
        row = [0] * _FIELDS
        row[0], row[1], row[2] = place, number, -1 if into is None else into.index
        for index, argument in enumerate(arguments):
            if isinstance(argument, int):
                row[_VALUES + index] = argument & 0xFFFFFFFFFFFFFFFF
            elif isinstance(argument, bytes):
                row[_HOWS + index], row[_VALUES + index] = _DATA, self.data(argument + b"\0")
            else:
                row[_HOWS + index] = _DATA if isinstance(argument, _Pointer) else _SLOT
                row[_VALUES + index] = argument.index
        if errors:
            row[_ERRORS : _ERRORS + len(errors)] = errors
        self._instructions.append(row)
        return len(self._instructions) - 1

    def place_of(self, offset: int) -> int:
        """The position of data in the message, counted from its end (negative)."""
        return offset - len(self._data)

    def fits(self) -> bool:
        """Returns True if one message can carry the program."""
        return (
            len(self.fds) <= MOST_FDS and self._slots < MOST_SLOTS and len(self._data) < MOST_BYTES // 2
        ) and len(self._instructions) * INSTRUCTION.size < MOST_BYTES // 2

    def encode(self) -> bytes:
        """The message. Its last part is the data."""
        if len(self._pointers) % 2:
            self._pointers.append(self.data(bytes(8), own=True))  # aligns the data
        head = HEADER.pack(
            MAGIC, len(self._instructions), len(self.fds), len(self._pointers), len(self._data), 0
        )
        code = b"".join(INSTRUCTION.pack(*each) for each in self._instructions)
        return head + code + pack(f"<{len(self._pointers)}I", *self._pointers) + bytes(self._data)


class _Pointer(Slot):
    """A pointer to existing data."""

    __slots__ = ()
