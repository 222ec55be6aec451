# SPDX-License-Identifier: Apache-2.0
"""Structs and enums of a BPF object, from its BTF, and their differences from a Layout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ringfence.abi import Field, Layout

_INTEGERS = {
    "u8": (1, False),
    "u16": (2, False),
    "u32": (4, False),
    "u64": (8, False),
    "s8": (1, True),
    "s32": (4, True),
}


class Btf:
    """The types of one object."""

    def __init__(self, types: list[dict[str, Any]]) -> None:
        self._types = {entry["id"]: entry for entry in types}
        self._structs = {entry["name"]: entry for entry in types if entry["kind"] == "STRUCT"}
        self._enums = {entry["name"]: entry for entry in types if entry["kind"] in ("ENUM", "ENUM64")}

    @classmethod
    def read(cls, path: Path, bpftool: str) -> Btf:
        dump = [bpftool, "btf", "dump", "-j", "file", str(path)]
        return cls(json.loads(subprocess.run(dump, check=True, capture_output=True).stdout)["types"])

    def enum(self, name: str) -> dict[str, int]:
        """Returns member -> value."""
        return {member["name"]: member["val"] for member in self._enums[name]["values"]}

    def differences(self, layout: Layout) -> list[str]:
        """Returns the differences between a Layout and the
        struct of its name, in words; empty if they agree.
        """
        struct = self._structs.get(layout.ctype)
        if struct is None:
            return [f"{layout.ctype} is not in the BTF"]
        found = []
        if struct["size"] != layout.size:
            found.append(f"{layout.ctype}: {struct['size']} bytes in C, {layout.size} in Python")
        declared = list(layout.offsets())
        names = [member["name"] for member in struct["members"]]
        if names != [field.name for field, _ in declared]:
            return [
                *found,
                f"{layout.ctype}: members {names} in C, {[f.name for f, _ in declared]} in Python",
            ]
        end = 0
        for member, (field, offset) in zip(struct["members"], declared, strict=True):
            where = f"{layout.ctype}.{field.name}"
            begin = member["bits_offset"] // 8
            if begin != end:
                found.append(f"{where}: an unnamed hole of {begin - end} bytes before it")
            if begin != offset:
                found.append(f"{where}: at {begin} in C, at {offset} in Python")
            end = begin + self._size(member["type_id"])
            if end - begin != field.size or not self._is(member["type_id"], field):
                found.append(f"{where}: another type than {field.type} x {field.count}")
        if end != struct["size"]:
            found.append(f"{layout.ctype}: an unnamed hole of {struct['size'] - end} bytes at its end")
        return found

    def _plain(self, type_id: int) -> dict[str, Any]:
        """Returns the type without typedef, const, volatile."""
        entry = self._types[type_id]
        while entry["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            entry = self._types[entry["type_id"]]
        return entry

    def _size(self, type_id: int) -> int:
        entry = self._plain(type_id)
        if entry["kind"] == "ARRAY":
            return int(entry["nr_elems"]) * self._size(entry["type_id"])
        return int(entry["size"])

    def _is(self, type_id: int, field: Field) -> bool:
        """Returns True if the type is what the field says, element for element."""
        entry = self._plain(type_id)
        if isinstance(field.type, Layout):
            return bool(entry["kind"] == "STRUCT" and entry["name"] == field.type.ctype)
        if entry["kind"] == "ARRAY":
            if field.count != entry["nr_elems"]:
                return False
            entry = self._plain(entry["type_id"])
        elif field.count != 1 or field.type in ("char", "bytes"):
            return False
        if field.type == "char" or entry["kind"] != "INT" or entry["name"] == "char":
            return field.type == "char" and str(entry["name"]) == "char"
        size, signed = (1, False) if field.type == "bytes" else _INTEGERS[str(field.type)]
        return bool((entry["size"], "SIGNED" in entry["encoding"]) == (size, signed))
