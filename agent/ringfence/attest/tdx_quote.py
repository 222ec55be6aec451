# SPDX-License-Identifier: Apache-2.0
"""Parses Intel TDX quotes of versions 4 and 5. It verifies no signature: a parsed quote proves nothing.

Sections are of Intel's "TDX DCAP Quoting Library API", appendix A.3 (version 4) and A.4 (version 5).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ringfence.attest.refusal import malformed

__all__ = ["QeReport", "TdxQuote", "is_quote", "parse"]

_MOST = 32 << 10
_HEADER = struct.Struct("<HHI4x16s20x")  # "TD Quote Header": version, key type, TEE, QE vendor
_BODY = struct.Struct("<16s48s48sQQQ48s48s48s48s48s48s48s48s64s")  # "TD Quote Body"
_BODY_15 = struct.Struct("<16s48s")  # appended by TD 1.5: TEE_TCB_SVN2, MRSERVICETD
_QE_REPORT = struct.Struct("<16s4s28x16s32x32x32s96xHH60x64s")  # "Enclave Report Body"
_TEE_TDX = 0x81
_ECDSA_P256 = 2
_QE_VENDOR_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_CERT_QE_REPORT, _CERT_PCK_CHAIN = 6, 5  # "QE Certification Data", types
_TYPE_TD10, _TYPE_TD15 = 2, 3  # A.4, "TD Quote Body Descriptor"


class QeReport(NamedTuple):
    """The quoting enclave's report, and what its signature covers."""

    raw: bytes
    miscselect: bytes
    attributes: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    report_data: bytes
    signature: bytes
    auth_data: bytes


class TdxQuote(NamedTuple):
    """Fields of a quote. `signed` is what the attestation key signs, `chain` the PCK chain in PEM."""

    version: int
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: int
    td_attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr: tuple[bytes, ...]
    report_data: bytes
    mrservicetd: bytes
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe: QeReport
    chain: bytes


class _Reader:
    """Takes bytes from the start, within bounds."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, size: int) -> bytes:
        part = self._data[self.at : self.at + size]
        if len(part) != size:
            raise malformed(f"the TDX quote is truncated: {size} bytes expected at {self.at}")
        self.at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def end(self, what: str, *, padded: bool = False) -> None:
        rest = self._data[self.at :]
        if any(rest) if padded else rest:
            raise malformed(f"bytes follow {what} of the TDX quote")


def is_quote(data: bytes) -> bool:
    """Returns True if the header is that of a quote, of any TEE and version from 3 to 5."""
    return len(data) >= _HEADER.size and data[:4] in (b"\3\0\2\0", b"\4\0\2\0", b"\5\0\2\0")


def parse(data: bytes) -> TdxQuote:
    """Returns the fields of a quote. Raises RefusedError (malformed) for anything else."""
    if len(data) > _MOST:
        raise malformed(f"not a TDX quote: {len(data)} bytes, expected at most {_MOST}")
    reader = _Reader(data)
    version, key_type, tee, vendor = _HEADER.unpack(reader.take(_HEADER.size))
    if version not in (4, 5):
        raise malformed(f"not a TDX quote: version {version}, expected 4 or 5")
    if tee != _TEE_TDX:
        raise malformed(f"a quote of another kind: TEE type {tee:#x}, expected {_TEE_TDX:#x} (TDX)")
    if key_type != _ECDSA_P256 or vendor != _QE_VENDOR_INTEL:
        raise malformed(f"attestation key type {key_type} of this quoting enclave is unknown")
    body, rtmr, extra = _body(reader, version)
    signed = data[: reader.at]
    signature_data = _Reader(reader.take(reader.number(4)))
    reader.end("the signature", padded=True)  # devices return more than the quote
    signature, key, qe, chain = _signature(signature_data)
    return TdxQuote._make((version, *body[:10], rtmr, body[14], extra, signed, signature, key, qe, chain))


def _body(reader: _Reader, version: int) -> tuple[tuple[Any, ...], tuple[bytes, ...], bytes]:
    """Returns the fields of the TD report, its RTMRs, and MRSERVICETD (empty before TD 1.5)."""
    kind = _TYPE_TD10
    if version == 5:
        kind, size = reader.number(2), reader.number(4)
        expected = {_TYPE_TD10: _BODY.size, _TYPE_TD15: _BODY.size + _BODY_15.size}.get(kind)
        if size != expected:
            raise malformed(f"body of the TDX quote: type {kind} of {size} bytes is unknown")
    fields = _BODY.unpack(reader.take(_BODY.size))
    extra = _BODY_15.unpack(reader.take(_BODY_15.size))[1] if kind == _TYPE_TD15 else b""
    return fields, fields[10:14], extra


def _signature(reader: _Reader) -> tuple[bytes, bytes, QeReport, bytes]:
    """Section "ECDSA 256-bit Quote Signature Data Structure": signature, key, QE report, chain."""
    signature, key = reader.take(64), reader.take(64)
    kind = reader.number(2)
    if kind != _CERT_QE_REPORT:
        raise malformed(f"certification data of type {kind} in the TDX quote is unknown")
    inner = _Reader(reader.take(reader.number(4)))
    reader.end("the certification data")
    raw, qe_signature = inner.take(_QE_REPORT.size), inner.take(64)
    auth = inner.take(inner.number(2))
    kind = inner.number(2)
    if kind != _CERT_PCK_CHAIN:
        raise malformed(
            f"certification data of type {kind} in the QE report is unknown, expected a PCK chain"
        )
    chain = inner.take(inner.number(4))
    inner.end("the PCK chain")
    _, misc, attributes, mrsigner, product, svn, report_data = _QE_REPORT.unpack(raw)
    report = QeReport(raw, misc, attributes, mrsigner, product, svn, report_data, qe_signature, auth)
    return signature, key, report, chain.rstrip(b"\0")
