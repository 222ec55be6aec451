# SPDX-License-Identifier: Apache-2.0
"""What a predicate holds for, and which predicates the words of a rule become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ringfence.abi import DIM_OBJECT, MATCH_TEXT, PATH_LEN, EventKind
from ringfence.errors import PolicyError
from ringfence.policy.conditions import sysctl_name
from ringfence.policy.operand import (
    Bits,
    Conjunction,
    Kind,
    Network,
    Networks,
    Operand,
    Predicate,
    Texts,
    Values,
    fnv1a,
)
from ringfence.policy.overlap import covers, implies, may_overlap
from ringfence.policy.paths import problem_of_absolute
from tests.unit.policy.documents import load, policy, rule

K = EventKind
FULL = (1 << 64) - 1


def alternatives(event: str, **match: Any) -> Sequence[Conjunction]:
    """Returns what a match block with one key becomes."""
    (one,) = load(policy(rule(event=event, match=match))).policies[0].rules
    return one.match[one.events[0]][0].alternatives


def refusal(event: str, **match: Any) -> str:
    """Returns the messages about a match block."""
    with pytest.raises(PolicyError) as caught:
        load(policy(rule(event=event, match=match)))
    return "\n".join(problem.message for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_a_name_is_hashed_as_fnv_specifies(text: bytes, value: int) -> None:
    """The vectors of the FNV reference, 64 bits, variant 1a."""
    assert fnv1a(text) == value


def test_values_hold_by_their_mask() -> None:
    """A negated predicate holds for all others."""
    values = Values(0, 0xF, frozenset((1, 2)))
    assert [values.holds(n) for n in (0, 1, 2, 3, 0x11)] == [False, True, True, False, True]
    assert [values._replace(negated=True).holds(n) for n in (1, 3, 0x11)] == [False, True, False]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Values(0, FULL, frozenset((1,))), Values(0, FULL, frozenset((2,))), True),
        (Values(0, FULL, frozenset((1, 2))), Values(0, FULL, frozenset((2,))), False),
        (Values(0, FULL, frozenset((1,))), Values(1, FULL, frozenset((2,))), False),
        (Values(0, FULL, frozenset((1,))), Values(0, 1, frozenset((2,))), False),
        (Values(0, FULL, frozenset((1, 2)), True), Values(0, FULL, frozenset((2,))), True),
        (Values(0, FULL, frozenset((1,)), True), Values(0, FULL, frozenset((1, 2))), False),
        (Values(0, FULL, frozenset((1,)), True), Values(0, FULL, frozenset((2,)), True), False),
        (Values(0, FULL, frozenset((1,)), drivers=frozenset("x")), Values(0, FULL, frozenset((2,))), False),
    ],
)
def test_values_exclude_each_other_if_no_operand_has_both(one: Values, other: Values, expected: bool) -> None:
    """A driver's numbers are those of a node, so nothing is certain about them."""
    assert one.excludes(other) is expected
    assert other.excludes(one) is expected


@pytest.mark.parametrize(
    ("bits", "holds", "not_"),
    [
        (Bits(0, any=3), (1, 2, 7), (0, 4)),
        (Bits(0, all=3), (3, 7), (0, 1, 2)),
        (Bits(0, none=3), (0, 4), (1, 2, 7)),
        (Bits(0, any=1, all=2, none=4), (3, 11), (1, 2, 7)),
    ],
)
def test_bits_hold_for_any_all_and_none(bits: Bits, holds: Sequence[int], not_: Sequence[int]) -> None:
    """Together, each of them must hold."""
    assert all(map(bits.holds, holds))
    assert not any(map(bits.holds, not_))
    assert bits.mask == bits.any | bits.all | bits.none


def test_texts_hold_exactly_or_by_their_beginning() -> None:
    """Negated, for all others; they are of the event's object."""
    texts = Texts(frozenset((b"a",)), frozenset((b"b/",)))
    assert [texts.holds(one) for one in (b"a", b"ab", b"b/", b"b/c", b"b")] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert [texts._replace(negated=True).holds(one) for one in (b"a", b"ab")] == [False, True]
    assert texts.dim == Networks(frozenset()).dim == DIM_OBJECT


def test_an_address_is_in_a_range_of_its_family() -> None:
    """By the bits of the prefix."""
    half = Network(4, bytes((10, 0, 0, 128)), 25)
    assert half.contains(4, bytes((10, 0, 0, 255)))
    assert not half.contains(4, bytes((10, 0, 0, 127)))
    assert not half.contains(6, bytes((10, 0, 0, 255)))
    everything = Network(4, bytes(4), 0)
    assert everything.contains(4, b"\xff" * 4)
    ranges = Networks(frozenset((half,)))
    assert ranges.holds(4, bytes((10, 0, 0, 128)))
    assert not ranges._replace(negated=True).holds(4, bytes((10, 0, 0, 128)))


def test_a_value_has_a_word_or_stays_a_number() -> None:
    """Of flags, each word whose bits are all set."""
    choice = Operand("a", Kind.CHOICE, 0, "", {"x": (1, 2), "y": (3,)}, mask=0xF)
    assert [choice.word_of(n) for n in (2, 3, 4, 0x13)] == ["x", "y", "4", "y"]
    flags = Operand("a", Kind.FLAGS, 0, "", {"both": (3,), "one": (1,), "four": (4,)}, mask=0xFF)
    assert [flags.word_of(n) for n in (0, 1, 3, 5, 8, 0x104)] == [
        "0",
        "one",
        "both",
        "one|four",
        "0x8",
        "four",
    ]


def test_numbers_are_values_and_ranges() -> None:
    """Both ends belong to a range; zeros before a number mean nothing."""
    (conjunction,) = alternatives("network.connect", port=["80", "8000-8002", "0443"])
    (values,) = conjunction
    assert isinstance(values, Values)
    assert values.values == {80, 443, 8000, 8001, 8002}
    assert not values.negated
    ((negated,),) = alternatives("network.connect", port={"not": [80]})
    assert isinstance(negated, Values)
    assert negated.negated
    ((most,),) = alternatives("network.connect", port="1-1024")
    assert isinstance(most, Values)
    assert len(most.values) == 1024


@pytest.mark.parametrize(
    ("event", "match", "words"),
    [
        ("network.connect", {"port": "1-1025"}, "range of 1025 values; at most 1024"),
        ("network.connect", {"port": "9-8"}, "not a range within"),
        ("network.connect", {"port": "65000-65536"}, "not a range within"),
        ("network.connect", {"port": "9" * 5000}, "not between"),
        ("network.connect", {"port": ["a", "b"]}, "'b' is not a number"),
        ("network.connect", {"port": list(range(1, 1026))}, "lists 1025 values; at most 1024"),
        ("network.connect", {"address": "fe80::1%eth0"}, "no zone"),
        ("unshare", {"flags": {"all": ["CLONE_NEWNS"], "none": ["CLONE_NEWNS"]}}, "requires and excludes"),
        ("unshare", {"flags": {"any": ["CLONE_NEWNS"], "none": ["CLONE_NEWNS"]}}, "excludes everything"),
        ("unshare", {"flags": {"not": ["CLONE_NEWNS"]}}, "not allowed here"),
        ("unshare", {"flags": {}}, "would match everything"),
        ("unshare", {"flags": [0]}, "tests no bit"),
        ("unshare", {"flags": [True]}, "must be a word or a number"),
        ("unshare", {"flags": [[]]}, "must be a word or a number"),
        ("setns", {"target": {"any": ["host"]}}, "not allowed here"),
        ("file.open", {"name": "a/b"}, "plain name"),
        ("file.open", {"name": "nsen*"}, "plain name"),
        ("file.open", {"name": "a\0"}, "contains a NUL"),
        ("file.open", {"path": "proc:"}, "the path is missing"),
        ("file.open", {"path": "proc:a//b"}, "not a plain path"),
        ("file.open", {"path": "proc:./b"}, "not a plain path"),
        ("file.open", {"path": "proc:**/a/b"}, "followed by one plain name"),
        ("file.open", {"path": "proc:**/a*"}, "followed by one plain name"),
        ("file.open", {"path": "proc:a**/b"}, "after whole components"),
        ("file.open", {"path": "proc:*/**/b"}, "after whole components"),
        ("device.access", {"device": {"not": ["c 1:3"]}}, "cannot be negated"),
        ("device.access", {"device": "c 4096:0"}, "maximum is 4095"),
        ("device.access", {"device": "c 1:1048576"}, "1048575 for minors"),
        ("device.access", {"device": "d 1:3"}, "is not a device"),
        ("device.access", {"device": "b misc fuse"}, "is not a device"),
        ("unix.connect", {"socket": "/"}, "is not a socket"),
        ("unix.connect", {"socket": "/a*b"}, "is not a socket"),
        ("unix.connect", {"socket": "/a/../b"}, "not a plain path"),
        ("unix.connect", {"socket": "/" + "x" * (MATCH_TEXT - 1)}, f"longer than {MATCH_TEXT - 1} bytes"),
        ("sysctl.access", {"sysctl": "x" * MATCH_TEXT}, f"longer than {MATCH_TEXT - 1} bytes"),
    ],
)
def test_a_value_at_a_limit_is_refused(event: str, match: dict[str, Any], words: str) -> None:
    """With the reason."""
    assert words in refusal(event, **match)


def test_a_value_within_its_limits_is_taken() -> None:
    """The neighbours of what is refused."""
    longest = "x" * (MATCH_TEXT - 1)
    assert alternatives("sysctl.access", sysctl=longest) == ((_texts(longest),),)
    assert alternatives("unix.connect", socket="/" + longest[1:]) == ((_texts("/" + longest[1:]),),)
    assert alternatives("unix.connect", socket="@a\0b") == ((_texts("\0a\0b"),),)
    assert alternatives("unix.connect", socket="@b*") == ((Texts(frozenset(), frozenset((b"\0b",))),),)
    assert alternatives("file.open", path="proc:" + longest[1:])
    assert "longer" in refusal("file.open", path="proc:" + longest)


def _texts(*exact: str) -> Texts:
    return Texts(frozenset(text.encode() for text in exact), frozenset())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("c 1:3", [(0, {2}), (2, {1 << 20 | 3})]),
        ("b 4095:1048575", [(0, {1}), (2, {4095 << 20 | 1048575})]),
        ("b 8:*", [(0, {1}), (3, {8})]),
        ("b *:*", [(0, {1})]),
        ("a 1:3", [(2, {1 << 20 | 3})]),
        ("a *:*", [(0, {0})]),
    ],
)
def test_a_device_is_a_type_and_numbers(word: str, expected: list[tuple[int, set[int]]]) -> None:
    """Operands of device.access: 0 the type (1 block, 2 character), 2 the number, 3 its major."""
    (found,) = alternatives("device.access", device=word)
    assert [(one.dim, set(one.values)) for one in found if isinstance(one, Values)] == expected


@pytest.mark.parametrize(
    ("word", "kind", "dim"), [("c driver mei", 2, 3), ("b driver sd", 1, 3), ("c misc fuse", 2, 2)]
)
def test_a_driver_has_the_numbers_of_the_node(word: str, kind: int, dim: int) -> None:
    """A driver has majors, a miscellaneous device one number."""
    (found,) = alternatives("device.access", device=word)
    assert found == (
        Values(0, FULL, frozenset((kind,))),
        Values(dim, FULL, frozenset(), False, frozenset((word,))),
    )


def test_an_address_is_matched_in_both_families() -> None:
    """An IPv6 socket reaches an IPv4 address as ::ffff:a.b.c.d, and a rule may be written so."""
    mapped = bytes(10) + b"\xff\xff"
    ((four,),) = alternatives("network.connect", address="10.0.0.0/8")
    both = {Network(4, bytes((10, 0, 0, 0)), 8), Network(6, mapped + bytes((10, 0, 0, 0)), 104)}
    assert isinstance(four, Networks)
    assert four.networks == both
    assert not four.node
    ((six,),) = alternatives("network.connect", address="::ffff:10.0.0.0/104")
    assert isinstance(six, Networks)
    assert six.networks == both
    ((other,),) = alternatives("network.connect", address=["fd00::/8", "node"])
    assert isinstance(other, Networks)
    assert other.networks == {Network(6, b"\xfd" + bytes(15), 8)}
    assert other.node


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kernel.core_pattern", "kernel/core_pattern"),
        ("kernel/core_pattern", "kernel/core_pattern"),
        ("/proc/sys/kernel/core_pattern", "kernel/core_pattern"),
        ("proc:sys/kernel/core_pattern", "kernel/core_pattern"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("panic", "panic"),
    ],
)
def test_a_sysctl_has_the_kernels_name(text: str, name: str) -> None:
    """sysctl(8): the first separator is used throughout."""
    assert sysctl_name(text) == name


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bin/sh", "must begin"),
        ("/bin/*", "patterns are not allowed"),
        ("/bin/", "ends with"),
        ("/", "ends with"),
        ("/a/../b", "plain path"),
        ("/a/./b", "plain path"),
        ("/a//b", "plain path"),
        ("/" + "x" * (PATH_LEN - 1), "too long"),
        ("/" + "x" * (PATH_LEN - 2), ""),
        ("/bin/..sh", ""),
    ],
)
def test_a_program_has_one_absolute_path(path: str, words: str) -> None:
    """As the kernel reports it, with its end in PATH_LEN bytes."""
    problem = problem_of_absolute(path)
    assert words in problem
    assert bool(problem) is bool(words)


_V, _N = frozenset, Networks
_TEN, _TEN_ONE = Network(4, bytes((10, 0, 0, 0)), 8), Network(4, bytes((10, 1, 0, 0)), 16)


@pytest.mark.parametrize(
    ("narrow", "wide", "within"),
    [
        (Values(0, FULL, _V((1,))), Values(0, FULL, _V((1, 2))), True),
        (Values(0, FULL, _V((1, 3))), Values(0, FULL, _V((1, 2))), False),
        (Values(0, FULL, _V((1,))), Values(1, FULL, _V((1, 2))), False),
        (Values(0, FULL, _V((1,))), Values(0, FULL, _V((2,)), True), True),
        (Values(0, FULL, _V((2,))), Values(0, FULL, _V((2,)), True), False),
        (Values(0, FULL, _V((1, 2)), True), Values(0, FULL, _V((2,)), True), True),
        (Values(0, FULL, _V((2,)), True), Values(0, FULL, _V((1, 2)), True), False),
        (Values(0, FULL, _V((1,)), True), Values(0, FULL, _V((2,))), False),
        (Values(0, FULL, _V(), drivers=_V("x")), Values(0, FULL, _V((1,))), False),
        (Bits(0, all=3), Bits(0, all=1), True),
        (Bits(0, all=1), Bits(0, all=3), False),
        (Bits(0, all=1), Bits(0, any=3), True),
        (Bits(0, any=1), Bits(0, any=3), True),
        (Bits(0, any=5), Bits(0, any=3), False),
        (Bits(0), Bits(0, any=3), False),
        (Bits(0, none=3), Bits(0, none=1), True),
        (Bits(0, none=1), Bits(0, none=3), False),
        (Bits(0, all=3), Bits(1, all=1), False),
        (Texts(_V((b"a/b",)), _V()), Texts(_V(), _V((b"a/",))), True),
        (Texts(_V(), _V((b"a/b",))), Texts(_V(), _V((b"a/",))), True),
        (Texts(_V(), _V((b"a/",))), Texts(_V(), _V((b"a/b",))), False),
        (Texts(_V((b"c",)), _V()), Texts(_V((b"a",)), _V((b"b",))), False),
        (Texts(_V((b"a",)), _V(), True), Texts(_V(), _V((b"",))), False),
        (_N(_V((_TEN_ONE,))), _N(_V((_TEN,))), True),
        (_N(_V((_TEN,))), _N(_V((_TEN_ONE,))), False),
        (_N(_V((_TEN_ONE,)), node=True), _N(_V((_TEN,))), False),
        (_N(_V((_TEN_ONE,)), node=True), _N(_V((_TEN,)), node=True), True),
        (_N(_V((_TEN_ONE,)), True), _N(_V((_TEN,))), False),
        (Values(0, FULL, _V((1,))), Bits(0, all=1), False),
    ],
)
def test_a_predicate_is_within_a_wider_one(narrow: Predicate, wide: Predicate, within: bool) -> None:
    """Only where that is certain; every predicate is within itself."""
    assert implies((narrow,), (wide,)) is within
    assert implies((narrow,), (narrow,))
    assert implies((narrow,), ())
    assert not implies((), (wide,))
    assert covers([(wide,)], [(narrow,)]) is within
    assert not covers([], [(narrow,)])


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (Values(0, FULL, _V((1,))), Values(0, FULL, _V((2,))), False),
        (Values(0, FULL, _V((1,))), Values(1, FULL, _V((2,))), True),
        (Bits(0, all=1), Bits(0, none=1), False),
        (Bits(0, any=1), Bits(0, none=3), False),
        (Bits(0, any=5), Bits(0, none=3), True),
        (Bits(0), Bits(0, none=3), True),
        (Texts(_V((b"a",)), _V()), Texts(_V((b"b",)), _V()), False),
        (Texts(_V((b"a/b",)), _V()), Texts(_V(), _V((b"a/",))), True),
        (Texts(_V(), _V((b"a/",))), Texts(_V(), _V((b"a/b",))), True),
        (Texts(_V(), _V((b"a/",))), Texts(_V(), _V((b"b/",))), False),
        (Texts(_V((b"a",)), _V(), True), Texts(_V((b"a",)), _V()), True),
        (_N(_V((_TEN,))), _N(_V((_TEN_ONE,))), True),
        (_N(_V((_TEN_ONE,))), _N(_V((Network(4, bytes((11, 0, 0, 0)), 8),))), False),
        (_N(_V((_TEN_ONE,)), node=True), _N(_V((Network(4, bytes((11, 0, 0, 0)), 8),))), True),
    ],
)
def test_predicates_overlap_unless_that_is_certain_not_to_be(
    one: Predicate, other: Predicate, overlap: bool
) -> None:
    """In either order."""
    assert may_overlap(K.FILE_OPEN, (one,), (other,)) is overlap
    assert may_overlap(K.FILE_OPEN, (other,), (one,)) is overlap


def test_a_device_number_has_its_major() -> None:
    """`c 1:3` and `c 2:*` are apart, although they test different operands."""
    number, major = Values(2, FULL, frozenset((1 << 20 | 3,))), Values(3, FULL, frozenset((2,)))
    assert not may_overlap(K.DEVICE_ACCESS, (number,), (major,))
    assert may_overlap(K.DEVICE_ACCESS, (number,), (major._replace(values=frozenset((1,))),))
    assert may_overlap(K.DEVICE_ACCESS, (number._replace(negated=True),), (major,))
    assert may_overlap(K.FILE_OPEN, (number,), (major,))
