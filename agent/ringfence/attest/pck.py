# SPDX-License-Identifier: Apache-2.0
"""Reads Intel's extension of a PCK certificate: the platform's family, and its TCB.

Sections are of Intel's "SGX PCK Certificate and Certificate Revocation List Profile Specification".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cryptography import x509

from ringfence.attest.refusal import malformed

__all__ = ["Platform", "platform_of"]

_SGX = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1, section 1.3.5
_TCB, _PCE_ID, _FMSPC = b"\x02", b"\x03", b"\x04"
_PCE_SVN = 17  # of the TCB: 1 to 16 are the components
_SEQUENCE, _OID, _INTEGER, _OCTETS = 0x30, 0x06, 0x02, 0x04


class Platform(NamedTuple):
    """What a PCK certificate says of its platform."""

    fmspc: bytes
    pce_id: bytes
    components: tuple[int, ...]  # sixteen security versions
    pce_svn: int


def platform_of(certificate: x509.Certificate) -> Platform:
    """Returns the platform of a PCK certificate. Raises RefusedError (malformed)."""
    try:
        identifier = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
        value = certificate.extensions.get_extension_for_oid(identifier).value
        assert isinstance(value, x509.UnrecognizedExtension)
        whole = _pairs(_one(value.value, _SEQUENCE), _SGX)
        tcb = _pairs(_one(whole[_TCB], _SEQUENCE), _SGX + _TCB)
        numbers = {key[0]: int.from_bytes(_one(part, _INTEGER), "big") for key, part in tcb.items()
                   if 1 <= key[0] <= _PCE_SVN}  # fmt: skip
        components = tuple(numbers[index] for index in range(1, 17))
        fmspc, pce_id = _one(whole[_FMSPC], _OCTETS), _one(whole[_PCE_ID], _OCTETS)
        return Platform(fmspc, pce_id, components, numbers[_PCE_SVN])
    except (x509.ExtensionNotFound, KeyError, IndexError, ValueError, AssertionError):
        raise malformed("the PCK certificate lacks Intel's SGX extension, or it cannot be parsed") from None


def _pairs(data: bytes, prefix: bytes) -> dict[bytes, bytes]:
    """Returns the values (in DER) of a sequence of (identifier, value), by identifier after the prefix."""
    found = {}
    for _, pair in _items(data):
        (_, identifier), *_ = _items(pair)
        if identifier[: len(prefix)] == prefix:
            found[identifier[len(prefix) :]] = pair[2 + len(identifier) :]
    return found


def _one(data: bytes, tag: int) -> bytes:
    """Returns the content of the only item, which has this tag."""
    ((found, content),) = _items(data)
    if found != tag:
        raise ValueError(found)
    return content


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields tag and content of each DER item; lengths have at most two bytes."""
    at = 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 2:
                raise ValueError(size)
            size, start = int.from_bytes(data[start : start + count], "big"), start + count
        content = data[start : start + size]
        if len(content) != size:
            raise ValueError(size)
        yield tag, content
        at = start + size
