# SPDX-License-Identifier: Apache-2.0
"""A JSON value with its path: typed access, and an error that names the place.

Members that the model does not know are ignored, as the specification demands; `null` is the same as absent,
because Go's encoders write it for an empty list. The case of a member's name does not matter, as for Go's
decoders, with which runc and the engines read the same file. Two names of one member are an error: decoders
differ in which of them they take. The keys of a map (`entries`, `table`) keep their case.
"""

from __future__ import annotations

from ringfence_runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

__all__ = ["Node", "choice"]

U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF
I64 = 0x7FFFFFFFFFFFFFFF
NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
}


def _name(value: object) -> str:
    return NAMES.get(type(value), "null")


def choice(path: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`; else an error that suggests the nearest."""
    names = sorted(allowed)
    if value in names:
        return value
    from difflib import get_close_matches  # only on the way to an error

    near = get_close_matches(value, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(names)}"
    raise SpecError(path, f"{value!r} is not known{hint}")


def _fold(name: str) -> str:
    """Returns the form in which Go's decoder compares names: by simple folding, with which U+017F is an s."""
    return name.lower().replace("\u017f", "s")


class Node:
    """An object of the configuration and its JSON path."""

    __slots__ = ("_names", "data", "path")

    def __init__(self, data: Any, path: str) -> None:
        if type(data) is not dict:
            raise SpecError(path or "(top)", f"expected an object, got {_name(data)}")
        self.data: dict[str, Any] = data
        self.path = path
        self._names = {_fold(name): name for name in data}

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, what: str) -> SpecError:
        return SpecError(self.at(key), what)

    def _find(self, key: str) -> Any:
        """Returns the value of a member, or None if it is absent or null."""
        folded = _fold(key)
        name = self._names.get(folded)
        if name is None:
            return None
        if len(self._names) != len(self.data):
            names = [each for each in self.data if _fold(each) == folded]
            if len(names) > 1:
                raise self.error(key, f"appears twice, as {names[0]!r} and as {names[1]!r}")
        return self.data[name]

    def _get(self, key: str, kind: type, expected: str) -> Any:
        value = self._find(key)
        if value is not None and type(value) is not kind:
            raise self.error(key, f"expected {expected}, got {_name(value)}")
        return value

    def has(self, key: str) -> bool:
        return self._find(key) is not None

    def child(self, key: str) -> Node | None:
        value = self._find(key)
        return None if value is None else Node(value, self.at(key))

    def need(self, key: str) -> Node:
        node = self.child(key)
        if node is None:
            raise self.error(key, "is required")
        return node

    def text(self, key: str, default: str = "") -> str:
        value: str | None = self._get(key, str, "a string")
        if value is None:
            return default
        if "\0" in value:
            raise self.error(key, "contains a NUL character")
        return value

    def need_text(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise self.error(key, "is required and must not be empty")
        return value

    def absolute(self, key: str) -> str:
        value = self.need_text(key)
        if not value.startswith("/"):
            raise self.error(key, f"{value!r} must be an absolute path")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def optional_flag(self, key: str) -> bool | None:
        value: bool | None = self._get(key, bool, "true or false")
        return value

    def number(self, key: str, low: int, high: int) -> int | None:
        """An integer between `low` and `high`, or None where it is absent."""
        value = self._find(key)
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise self.error(key, f"expected an integer, got {_name(value)}")
        if not low <= value <= high:
            raise self.error(key, f"{value} is not between {low} and {high}")
        return value

    def need_number(self, key: str, low: int, high: int) -> int:
        value = self.number(key, low, high)
        if value is None:
            raise self.error(key, "is required")
        return value

    def choice(self, key: str, allowed: Iterable[str]) -> str:
        return choice(self.at(key), self.need_text(key), allowed)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, "a list") or ()
        for index, value in enumerate(values):
            if type(value) is not str:
                raise self.error(f"{key}[{index}]", f"expected a string, got {_name(value)}")
            if "\0" in value:
                raise self.error(f"{key}[{index}]", "contains a NUL character")
        return tuple(values)

    def numbers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        values = self._get(key, list, "a list") or ()
        for index, value in enumerate(values):
            if type(value) is not int or not low <= value <= high:
                raise self.error(
                    f"{key}[{index}]", f"expected an integer between {low} and {high}, got {value!r}"
                )
        return tuple(values)

    def nodes(self, key: str) -> Iterator[Node]:
        for index, value in enumerate(self._get(key, list, "a list") or ()):
            yield Node(value, f"{self.at(key)}[{index}]")

    def entries(self, key: str) -> Iterator[tuple[str, Node]]:
        """The members of an object that is a map to objects."""
        child = self.child(key)
        for name, value in child.data.items() if child else ():
            yield name, Node(value, f"{self.at(key)}.{name}")

    def table(self, key: str) -> dict[str, str]:
        """An object whose members are all strings."""
        values: dict[str, str] = self._get(key, dict, "an object") or {}
        for name, value in values.items():
            if type(value) is not str:
                raise self.error(f"{key}.{name}", f"expected a string, got {_name(value)}")
        return values
