# SPDX-License-Identifier: Apache-2.0
"""Stack needs of the programs of a BPF object, with all their calls, as the verifier counts them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Function", "depths"]

_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_RELOCATION = struct.Struct("<QQ")  # Elf64_Rel
_INSTRUCTION = struct.Struct("<BBhi")  # struct bpf_insn: code, registers, offset, immediate
_SHT_SYMTAB, _SHT_REL, _STT_FUNC, _FRAME_POINTER = 2, 9, 2, 10
_CALL, _PSEUDO_CALL, _MOV, _ADD = 0x85, 1, 0xBF, 0x07
_MEMORY = (1, 2, 3)  # classes LDX, ST, STX
_STEP = 32  # frames are rounded up to this (check_max_stack_depth of kernel/bpf/verifier.c)


@dataclass
class Function:
    """`frame` in bytes; `calls` are the (section, offset) of the functions that it calls."""

    name: str
    section: str
    frame: int = 0
    calls: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    link: int
    info: int
    data: bytes


def depths(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Returns program -> bytes of its deepest chain of calls, and the functions of that."""
    functions = _functions(_sections(path.read_bytes()))
    programs = [place for place in functions if place[0] != ".text"]
    return {functions[place].name: _deepest(functions, place, ()) for place in programs}


def _deepest(
    functions: dict[tuple[str, int], Function], place: tuple[str, int], above: tuple[tuple[str, int], ...]
) -> tuple[int, list[str]]:
    mine = functions[place]
    frame = -(-max(mine.frame, 1) // _STEP) * _STEP
    below = [
        _deepest(functions, called, (*above, place))
        for called in mine.calls
        if called in functions and called not in above
    ]
    depth, names = max(below, default=(0, []))
    return frame + depth, [f"{mine.name} ({frame})", *names]


def _sections(elf: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", elf, 40)  # e_shoff
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [_SECTION.unpack_from(elf, table + number * size) for number in range(count)]
    strings = elf[headers[names][4] :]
    return [
        _Section(_string(strings, name), kind, link, info, elf[offset : offset + length])
        for name, kind, _, _, offset, length, link, info, _, _ in headers
    ]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def _functions(sections: list[_Section]) -> dict[tuple[str, int], Function]:
    symtab = next(section for section in sections if section.kind == _SHT_SYMTAB)
    names = sections[symtab.link].data
    symbols = [_SYMBOL.unpack_from(symtab.data, at) for at in range(0, len(symtab.data), _SYMBOL.size)]
    targets = {
        (section.info, offset): (sections[symbols[info >> 32][3]].name, symbols[info >> 32][4])
        for section in sections
        if section.kind == _SHT_REL
        for offset, info in _RELOCATION.iter_unpack(section.data)
        if symbols[info >> 32][3] < len(sections)
    }
    found = {}
    for name, info, _, where, offset, size in symbols:
        if info & 0xF == _STT_FUNC and where < len(sections):
            function = Function(_string(names, name), sections[where].name)
            _read(function, sections[where].data[offset : offset + size], where, offset, targets)
            found[function.section, offset] = function
    return found


def _read(
    function: Function, code: bytes, where: int, begin: int, targets: dict[tuple[int, int], tuple[str, int]]
) -> None:
    frame_pointers: set[int] = set()  # registers that hold the frame pointer
    for at, (op, registers, offset, immediate) in enumerate(_INSTRUCTION.iter_unpack(code)):
        to, of = registers & 0xF, registers >> 4
        if op & 7 in _MEMORY and _FRAME_POINTER in ((of,) if op & 7 == 1 else (to,)):
            function.frame = max(function.frame, -offset)
        elif op == _ADD and to in frame_pointers:
            function.frame = max(function.frame, -immediate)
        elif op == _CALL and of == _PSEUDO_CALL:
            place = begin + at * 8
            section, base = targets.get((where, place), (function.section, 0))
            # For a section's symbol the instruction holds the offset in it: -1 is its first.
            local = (immediate + 1) * 8 if (where, place) in targets and base == 0 else base
            function.calls.add((section, local if (where, place) in targets else place + (immediate + 1) * 8))
        frame_pointers = (frame_pointers - {to}) if op & 7 in (1, 4, 7) else frame_pointers
        if op == _MOV and of == _FRAME_POINTER:
            frame_pointers.add(to)
