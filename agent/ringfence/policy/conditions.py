# SPDX-License-Identifier: Apache-2.0
"""Compiles the value of one key of a match block to predicates: one parser for each kind of operand."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from ringfence.abi import MATCH_TEXT
from ringfence.policy import paths
from ringfence.policy.model import Condition
from ringfence.policy.operand import Bits, Conjunction, Kind, Network, Networks, Operand, Texts, Values, fnv1a
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode

__all__ = ["Complain", "parse_condition", "suggestion", "sysctl_name"]

#: reports an error at a node
Complain = Callable[[Node, str], None]

_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_DEVICE = re.compile(r"([abc]) ([0-9]+|\*):([0-9]+|\*)")
#: a driver as /proc/devices names it, or a miscellaneous device as /proc/misc does
_DRIVER = re.compile(r"([bc]) driver \S+|(c) misc \S+")
_DEVICE_TYPES = {"b": 1, "c": 2}
_DEVICE_DIMS = {"number": 2, "major": 3}
#: stands for the addresses of the node on which the rule is compiled
NODE = "node"
MAX_RANGE = 1024
MAX_LIST = 1024
_MAX_DEVICE = {"major": 0xFFF, "minor": 0xFFFFF}
#: more digits than any operand has; Python refuses to convert thousands of them
_MAX_DIGITS = 64
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class _Words(NamedTuple):
    """The words of a value: plain ones (in `any`), or those of {any|all|none|not: [...]}."""

    any: tuple[Scalar, ...] = ()
    all: tuple[Scalar, ...] = ()
    none: tuple[Scalar, ...] = ()
    negated: bool = False

    @property
    def every(self) -> tuple[Scalar, ...]:
        return (*self.any, *self.all, *self.none)


def parse_condition(operand: Operand, node: Node, complain: Complain) -> Condition | None:
    """Returns the condition of one key; None after errors, which are passed to `complain`."""
    words = _words(operand, node, complain)
    if words is None:
        return None
    errors = 0

    def complain_counted(where: Node, message: str) -> None:
        nonlocal errors
        errors += 1
        complain(where, message)

    for word in words.every:
        if "\0" in word.text and not word.text.startswith("@"):  # abstract socket names may contain NUL
            complain_counted(word, f"{word.text!r} contains a NUL, which no name can: it can never match")
    alternatives = _PARSERS[operand.kind](operand, words, complain_counted)
    if errors or not alternatives:
        return None
    texts = tuple(word.text for word in words.every)
    return Condition(operand.name, _written(words), tuple(alternatives), texts, node.line, node.column)


def _written(words: _Words) -> str:
    parts = []
    for prefix, some in (
        ("not " if words.negated else "", words.any),
        ("all of ", words.all),
        ("none of ", words.none),
    ):
        if some:
            parts.append(prefix + ", ".join(word.text for word in some))
    return "; ".join(parts)


def _words(operand: Operand, node: Node, complain: Complain) -> _Words | None:
    if not isinstance(node, MappingNode):
        plain = _list(node, complain)
        return _Words(any=plain) if plain else None
    allowed = ("any", "all", "none") if operand.kind is Kind.FLAGS else ("not",)
    found: dict[str, tuple[Scalar, ...]] = {}
    for item in node.items:
        if item.key.text not in allowed:
            complain(item.key, f"{item.key.text!r} is not allowed here{suggestion(item.key.text, allowed)}")
            return None
        if item.key.text in found:
            complain(item.key, f"{item.key.text!r} is given twice")
            return None
        some = _list(item.value, complain)
        if some is None:
            return None
        found[item.key.text] = some
    if not found:
        complain(node, "is empty and would match everything: remove the key, or give values")
        return None
    if "not" in found:
        return _Words(any=found["not"], negated=True)
    return _Words(found.get("any", ()), found.get("all", ()), found.get("none", ()))


def _list(node: Node, complain: Complain) -> tuple[Scalar, ...] | None:
    if isinstance(node, Scalar):
        nodes: Sequence[Node] = (node,)
    elif isinstance(node, SequenceNode):
        nodes = node.items
    else:
        complain(node, "must be a word or a list of words")
        return None
    if not nodes:
        complain(node, "is an empty list, which can never match")
        return None
    if len(nodes) > MAX_LIST:
        complain(node, f"lists {len(nodes)} values; at most {MAX_LIST} are allowed")
        return None
    good = []
    for word in nodes:
        if isinstance(word, Scalar) and word.kind in ("str", "int") and word.text:
            good.append(word)
        else:
            complain(word, "must be a word or a number")
    return tuple(good) if len(good) == len(nodes) else None


def suggestion(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean X?` for a near miss, else the first known words."""
    upper = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), upper, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {upper[near[0]]!r}?"
    some = sorted(known)
    return f"; known: {', '.join(some[:24])}{', ...' if len(some) > 24 else ''}" if some else ""


def _integer(text: str, base: int = 10) -> int:
    """Returns the number; for one with too many digits, a value that exceeds every operand."""
    return int(text, base) if len(text) <= _MAX_DIGITS else 1 << 256


def _number(operand: Operand, word: Scalar, complain: Complain) -> int | None:
    value = _integer(word.text, 0)
    if not 0 <= value <= operand.largest:
        complain(word, f"{word.text} is not between 0 and {operand.largest}")
        return None
    return value


def _choice(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    values: set[int] = set()
    for word in words.any:
        if word.text in operand.words:
            values.update(operand.words[word.text])
        elif word.kind == "int" and operand.largest:
            number = _number(operand, word, complain)
            values.update(() if number is None else (number & operand.mask,))
        else:
            complain(
                word,
                f"{word.text!r} is not a value of {operand.name!r}{suggestion(word.text, [*operand.words])}",
            )
    return [(Values(operand.dim, operand.mask, frozenset(values), words.negated),)]


def _flags(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    def bits(some: Sequence[Scalar]) -> int:
        total = 0
        for word in some:
            if word.text in operand.words:
                total |= operand.words[word.text][0]
            elif word.kind == "int" and operand.largest:
                number = _number(operand, word, complain)
                if number == 0:
                    complain(word, "0 tests no bit: name the bits that must be set, or remove the key")
                total |= number or 0
            else:
                hint = suggestion(word.text, [*operand.words])
                complain(word, f"{word.text!r} is not one of the {operand.name!r}{hint}")
        return total

    wanted = Bits(operand.dim, bits(words.any), bits(words.all), bits(words.none))
    if clash := wanted.all & wanted.none:
        complain(words.none[0], f"requires and excludes {operand.word_of(clash)}: this can never match")
    elif wanted.any and not wanted.any & ~wanted.none:
        complain(words.none[0], "excludes everything that `any` requires: this can never match")
    return [(wanted,)]


def _numbers(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    values: set[int] = set()
    for word in words.any:
        if found := _RANGE.fullmatch(word.text):
            low, high = _integer(found[1]), _integer(found[2])
            if low > high or high > operand.largest:
                complain(word, f"is not a range within 0-{operand.largest}")
            elif high - low >= MAX_RANGE:
                complain(word, f"is a range of {high - low + 1} values; at most {MAX_RANGE} are allowed")
            else:
                values.update(range(low, high + 1))
        elif word.text.isascii() and word.text.isdigit():
            number = _number(
                operand, Scalar(word.text.lstrip("0") or "0", "int", word.line, word.column), complain
            )
            values.update(() if number is None else (number,))
        else:
            complain(word, f"{word.text!r} is not a number or a range such as 8000-8100")
    return [(Values(operand.dim, operand.mask, frozenset(values), words.negated),)]


def _programs(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    hashes = set()
    for word in words.any:
        problem = paths.problem_of_absolute(word.text)
        if problem:
            complain(word, problem)
        hashes.add(fnv1a(word.text.encode()))
    return [(Values(operand.dim, operand.mask, frozenset(hashes), words.negated),)]


def _names(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    hashes = set()
    for word in words.any:
        if "/" in word.text or paths.has_glob(word.text):
            complain(word, f"{word.text!r} must be a plain name, without `/` and wildcards")
        hashes.add(fnv1a(word.text.encode()))
    return [(Values(operand.dim, operand.mask, frozenset(hashes), words.negated),)]


def _texts(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    exact: set[bytes] = set()
    prefixes: set[bytes] = set()
    for word in words.any:
        text = sysctl_name(word.text) if operand.name == "sysctl" else word.text
        begin = text.rstrip("*")
        if paths.has_glob(begin):
            complain(word, f"{word.text!r}: `*` is only allowed at the end")
        elif len(begin.encode()) >= MATCH_TEXT:
            complain(word, f"is longer than {MATCH_TEXT - 1} bytes")
        (prefixes if begin != text else exact).add(begin.encode())
    return [(Texts(frozenset(exact), frozenset(prefixes), words.negated),)]


def sysctl_name(text: str) -> str:
    """Returns the kernel's name (kernel/core_pattern) of a sysctl written as for sysctl(8) or as a file."""
    text = text.removeprefix("/proc/sys/").removeprefix("proc:sys/").lstrip("/")
    separator = re.search("[./]", text)
    # net.ipv4.conf.eth0/1.forwarding: the first separator is used throughout, the other one is literal.
    return text.translate(_SWAPPED) if separator and separator[0] == "." else text


_SWAPPED = str.maketrans("./", "/.")


def _networks(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    found = set()
    for word in words.any:
        if word.text == NODE:
            continue
        try:
            network = ipaddress.ip_network(word.text)
        except ValueError as error:
            complain(word, f"{word.text!r} is not an address, a range or the word `{NODE}`: {error}")
            continue
        if "%" in word.text:
            complain(word, f"{word.text!r}: events have no zone: remove `%` and what follows")
        found |= _both_families(network)
    node = any(word.text == NODE for word in words.any)
    return [(Networks(frozenset(found), words.negated, node=node),)]


def _both_families(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> set[Network]:
    """Returns a range in both families: an IPv6 socket reaches IPv4 addresses as ::ffff:a.b.c.d."""
    packed, prefix = network.network_address.packed, network.prefixlen
    if isinstance(network, ipaddress.IPv6Network):
        found = {Network(6, packed, prefix)}
        return found | {Network(4, packed[12:], prefix - 96)} if network.subnet_of(_MAPPED) else found
    mapped = _MAPPED.network_address.packed[:12] + packed
    return {Network(4, packed, prefix), Network(6, mapped, 96 + prefix)}


def _devices(operand: Operand, words: _Words, complain: Complain) -> list[Conjunction]:
    if words.negated:
        complain(words.any[0], "devices cannot be negated: match all and put these into `exceptions`")
    shapes: dict[tuple[int | None, str], set[int]] = {}
    drivers: dict[tuple[int, int], set[str]] = {}
    for word in words.any:
        if named := _DRIVER.fullmatch(word.text):
            which = _DEVICE_TYPES[named[1] or named[2]], _DEVICE_DIMS["major" if named[1] else "number"]
            drivers.setdefault(which, set()).add(word.text)
            continue
        found = _DEVICE.fullmatch(word.text)
        if not found or (found[2] == "*" and found[3] != "*"):
            forms = '"c 1:3", "b 8:*", "b *:*", "a *:*", "c driver mei" or "c misc fuse"'
            complain(word, f"{word.text!r} is not a device: write {forms}")
            continue
        major, minor = found[2], found[3]
        if any(
            n != "*" and _integer(n) > _MAX_DEVICE[which] for which, n in (("major", major), ("minor", minor))
        ):
            complain(word, f"{word.text!r}: the maximum is 4095 for majors, 1048575 for minors")
            continue
        shape = "any" if major == "*" else "major" if minor == "*" else "number"
        value = 0 if shape == "any" else int(major) if shape == "major" else int(major) << 20 | int(minor)
        shapes.setdefault((_DEVICE_TYPES.get(found[1]), shape), set()).add(value)
    alternatives: list[Conjunction] = [
        (
            Values(0, operand.mask, frozenset((type_,))),
            Values(dim, operand.mask, frozenset(), drivers=frozenset(names)),
        )
        for (type_, dim), names in drivers.items()
    ]
    for (type_, shape), values in shapes.items():
        parts = [] if type_ is None else [Values(0, operand.mask, frozenset((type_,)))]
        if shape in _DEVICE_DIMS:
            parts.append(Values(_DEVICE_DIMS[shape], operand.mask, frozenset(values)))
        # "a *:*" tests nothing; a predicate that always holds makes it a visible condition.
        alternatives.append(tuple(parts) or (Values(0, 0, frozenset((0,))),))
    return alternatives


_PARSERS: dict[Kind, Callable[[Operand, _Words, Complain], list[Conjunction]]] = {
    Kind.CHOICE: _choice,
    Kind.FLAGS: _flags,
    Kind.NUMBER: _numbers,
    Kind.PROGRAM: _programs,
    Kind.NAME: _names,
    Kind.OBJECT: lambda o, w, complain: paths.objects(o, w.any, negated=w.negated, complain=complain),
    Kind.TEXT: _texts,
    Kind.SOCKET: lambda o, w, complain: paths.sockets(w.any, negated=w.negated, complain=complain),
    Kind.NETWORK: _networks,
    Kind.DEVICE: _devices,
}
