# SPDX-License-Identifier: Apache-2.0
"""Parses AMD SEV-SNP attestation reports. It verifies no signature: a parsed report proves nothing.

Sections are of AMD's "SEV Secure Nested Paging Firmware ABI Specification" (56860).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ringfence.errors import Error

__all__ = ["SIGNED", "SIZE", "SnpReport", "parse"]

SIZE = 0x4A0  # ATTESTATION_REPORT, section "MSG_REPORT_REQ"
SIGNED = 0x2A0  # the signature covers the bytes before it
_DEBUG = 1 << 19  # POLICY.DEBUG, section "Guest Policy"
_KEYS = {0: "VCEK", 1: "VLEK", 7: "none"}  # SIGNING_KEY, bits 4:2 at 48h
_ECDSA_P384 = 1  # SIGNATURE_ALGO, chapter "Digital Signatures"
# The fields that are kept of ATTESTATION_REPORT; gaps are skipped.
_HEAD = struct.Struct("<IIQ32xIIQQI4x64s48s32s")  # 00h-DFh
_REPORTED_TCB = 0x180
_CHIP_ID = slice(0x1A0, 0x1E0)


class SnpReport(NamedTuple):
    """Fields of ATTESTATION_REPORT. TCB values are the eight raw bytes, whose order is the processor's."""

    version: int
    guest_svn: int
    debug: bool
    vmpl: int
    signing_key: str  # VCEK, VLEK or none
    report_data: bytes
    measurement: bytes
    host_data: bytes
    reported_tcb: bytes
    chip_id: bytes


def parse(data: bytes) -> SnpReport:
    """Returns the fields of a report. Raises Error for another size, version, algorithm or signing key."""
    if len(data) != SIZE:
        raise Error(f"not an SEV-SNP report: {len(data)} bytes, expected {SIZE}")
    version, svn, policy, vmpl, algorithm, _, _, flags, report_data, measurement, host = _HEAD.unpack_from(
        data
    )
    if not 2 <= version <= 0xFFFF:  # a big-endian version is above
        raise Error(f"not an SEV-SNP report: version {version}, expected 2 or later")
    if algorithm != _ECDSA_P384:
        raise Error(f"signature algorithm {algorithm} of the SEV-SNP report is unknown")
    key = _KEYS.get(flags >> 2 & 7)
    if key is None:
        raise Error(f"signing key {flags >> 2 & 7} of the SEV-SNP report is unknown")
    tcb = data[_REPORTED_TCB : _REPORTED_TCB + 8]
    debug = bool(policy & _DEBUG)
    chip = data[_CHIP_ID]
    return SnpReport(version, svn, debug, vmpl, key, report_data, measurement, host, tcb, chip)
