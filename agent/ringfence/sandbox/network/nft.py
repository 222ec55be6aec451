# SPDX-License-Identifier: Apache-2.0
"""nftables by netlink: expressions, rules, and one table that is replaced as a whole.

linux/netfilter/nf_tables.h. An expression is bytes; a rule is a list of them and a comment. Numbers are
big-endian.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import NamedTuple

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.network.netlink import NLA_F_NESTED, Message, attribute, nested, send_batch

__all__ = ["ACCEPT", "DROP", "Chain", "Rule", "delete_table", "replace_table"]

INET = 1
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_CREATE, _APPEND = 0x400, 0x800
_TRANSPORT, _NETWORK = 2, 1
_EQUAL, _UNEQUAL = 0, 1
IPV4, IPV6 = 2, 10
_LOCAL = 2  # RTN_LOCAL
_DNAT_DONE = 1 << 5  # IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
_ESTABLISHED_RELATED = 2 | 4
PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4


class Rule(NamedTuple):
    """A rule of a chain."""

    expressions: tuple[bytes, ...]
    comment: str = ""


class Chain(NamedTuple):
    """A base chain."""

    name: str
    kind: str
    hook: int
    priority: int
    rules: tuple[Rule, ...]


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


def _expression(name: str, *parts: tuple[int, bytes]) -> bytes:
    data = attribute(2 | NLA_F_NESTED, nested(*parts))
    return attribute(1 | NLA_F_NESTED, attribute(1, name.encode() + b"\0") + data)


def _value(data: bytes) -> bytes:
    return nested((1, data))


def _compare(data: bytes, *, equal: bool = True) -> bytes:
    parts = ((1, _u32(1)), (2, _u32(_EQUAL if equal else _UNEQUAL)), (3 | NLA_F_NESTED, _value(data)))
    return _expression("cmp", *parts)


def _meta(key: int) -> bytes:
    return _expression("meta", (2, _u32(key)), (1, _u32(1)))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", (1, _u32(1)), (2, _u32(base)), (3, _u32(offset)), (4, _u32(length)))


def _mask(mask: bytes) -> bytes:
    parts = ((1, _u32(1)), (2, _u32(1)), (3, _u32(len(mask))), (4 | NLA_F_NESTED, _value(mask)))
    return _expression("bitwise", *parts, (5 | NLA_F_NESTED, _value(b"\0" * len(mask))))


def _bits(key: int, bits: int) -> bytes:
    """`ct KEY & bits != 0`; conntrack's words are of the host's byte order."""
    load = _expression("ct", (2, _u32(key)), (1, _u32(1)))
    return load + _mask(struct.pack("=I", bits)) + _compare(b"\0" * 4, equal=False)


def incoming(name: str, *, equal: bool = True) -> bytes:
    """`iifname NAME`."""
    return _meta(6) + _compare(name.encode().ljust(16, b"\0"), equal=equal)


def outgoing(name: str, *, equal: bool = True) -> bytes:
    """`oifname NAME`."""
    return _meta(7) + _compare(name.encode().ljust(16, b"\0"), equal=equal)


def family(version: int) -> bytes:
    """`meta nfproto ipv4`."""
    return _meta(15) + _compare(bytes([IPV4 if version == 4 else IPV6]))


def _network(text: str, offsets: tuple[int, int]) -> bytes:
    network = ipaddress.ip_network(text)
    length = 4 if network.version == 4 else 16
    load = family(network.version) + _load(_NETWORK, offsets[network.version == 6], length)
    if network.prefixlen < network.max_prefixlen:
        load += _mask(network.netmask.packed)
    return load + _compare(network.network_address.packed)


def source(text: str) -> bytes:
    """`ip saddr NETWORK`."""
    return _network(text, (12, 8))


def destination(text: str) -> bytes:
    """`ip daddr NETWORK`."""
    return _network(text, (16, 24))


def to_this_host(version: int) -> bytes:
    """`fib daddr type local`."""
    return (
        family(version)
        + _expression("fib", (1, _u32(1)), (2, _u32(3)), (3, _u32(2)))
        + _compare(struct.pack("=I", _LOCAL))
    )


def port(protocol: str, number: int) -> bytes:
    """`tcp dport NUMBER`."""
    kind = 6 if protocol == "tcp" else 17
    return _meta(16) + _compare(bytes([kind])) + _load(_TRANSPORT, 2, 2) + _compare(struct.pack(">H", number))


def known() -> bytes:
    """`ct state established,related`."""
    return _bits(0, _ESTABLISHED_RELATED)


def translated() -> bytes:
    """`ct status dnat`."""
    return _bits(2, _DNAT_DONE)


def _immediate(register: int, data: tuple[int, bytes]) -> bytes:
    return _expression("immediate", (1, _u32(register)), (2 | NLA_F_NESTED, nested(data)))


def _verdict(code: int) -> bytes:
    return _immediate(0, (2 | NLA_F_NESTED, nested((1, _u32(code)))))


DROP, ACCEPT = _verdict(0), _verdict(1)
MASQUERADE = _expression("masq")


def dnat(address: str, number: int) -> bytes:
    """`dnat to ADDRESS:NUMBER`."""
    target = ipaddress.ip_address(address)
    kind = IPV4 if target.version == 4 else IPV6
    load = _immediate(1, (1, target.packed)) + _immediate(2, (1, struct.pack(">H", number)))
    parts = ((1, _u32(1)), (2, _u32(kind)), (3, _u32(1)), (5, _u32(2)))
    return load + _expression("nat", *parts)


def _body(*parts: tuple[int, bytes]) -> bytes:
    return struct.pack("=BBH", INET, 0, 0) + nested(*parts)


def _name(text: str) -> bytes:
    return text.encode() + b"\0"


def _chain(table: str, chain: Chain) -> Message:
    hook = nested((1, _u32(chain.hook)), (2, struct.pack(">i", chain.priority)))
    parts = ((1, _name(table)), (3, _name(chain.name)), (4 | NLA_F_NESTED, hook), (7, _name(chain.kind)))
    return _NEWCHAIN, _CREATE, _body(*parts)


def _rule(table: str, chain: Chain, rule: Rule) -> Message:
    comment = rule.comment.encode()[:120] + b"\0"
    parts = [(1, _name(table)), (2, _name(chain.name)), (4 | NLA_F_NESTED, b"".join(rule.expressions))]
    if rule.comment:
        parts.append((7, bytes([0, len(comment)]) + comment))
    return _NEWRULE, _CREATE | _APPEND, _body(*parts)


def replace_table(table: str, chains: list[Chain]) -> None:
    """Replaces the table by `chains`, in one transaction: no packet sees a partial table."""
    new: Message = (_NEWTABLE, _CREATE, _body((1, _name(table))))
    messages = [new, (_DELTABLE, 0, _body((1, _name(table)))), new]
    for chain in chains:
        messages.append(_chain(table, chain))
        messages += [_rule(table, chain, rule) for rule in chain.rules]
    _send(messages)


def delete_table(table: str) -> None:
    """Removes the table, if it exists."""
    _send([(_NEWTABLE, _CREATE, _body((1, _name(table)))), (_DELTABLE, 0, _body((1, _name(table))))])


def _send(messages: list[Message]) -> None:
    try:
        send_batch(messages)
    except OSError as error:
        lacks = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
        hint = "does this kernel have nftables with nat (nf_tables, nft_chain_nat, nft_masq, nft_fib_inet)?"
        raise SandboxError(f"nftables: {error.strerror}", hint=hint if error.errno in lacks else "") from None
