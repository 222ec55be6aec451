# SPDX-License-Identifier: Apache-2.0
"""Parses AMD SEV-SNP attestation reports. It verifies no signature: a parsed report proves nothing.

Sections are of AMD's "SEV Secure Nested Paging Firmware ABI Specification" (56860).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ringfence.attest.refusal import malformed

__all__ = ["SIGNED", "SIZE", "SnpReport", "parse", "product_of", "tcb_parts"]

SIZE = 0x4A0  # ATTESTATION_REPORT, section "MSG_REPORT_REQ"
SIGNED = 0x2A0  # the signature covers the bytes before it
_DEBUG = 1 << 19  # POLICY.DEBUG, section "Guest Policy"
_KEYS = {0: "VCEK", 1: "VLEK", 7: "none"}  # SIGNING_KEY, bits 4:2 at 48h
_ECDSA_P384 = 1  # SIGNATURE_ALGO, chapter "Digital Signatures"
# The fields that are kept of ATTESTATION_REPORT; gaps are skipped.
_HEAD = struct.Struct("<IIQ32xII8s8xI4x64s48s32s")  # 00h-DFh
_TAIL = struct.Struct("<8s3B21x64s8s8x8s")  # 180h-1F7h; CPUID fields since version 3
_SIGNATURE = struct.Struct("<72s72s")  # 2A0h: R and S, little-endian; the rest is reserved
# Section "TCB Version": the bytes of TCB_VERSION, by family of the processor
_TCB = {0: "bootloader", 1: "tee", 6: "snp", 7: "microcode"}
_TCB_TURIN = {0: "fmc", 1: "bootloader", 2: "tee", 3: "snp", 7: "microcode"}


class SnpReport(NamedTuple):
    """Fields of ATTESTATION_REPORT. TCB values are the eight raw bytes (see `tcb_parts`)."""

    version: int
    guest_svn: int
    policy: int
    debug: bool
    vmpl: int
    signing_key: str  # VCEK, VLEK or none
    report_data: bytes
    measurement: bytes
    host_data: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    cpu: tuple[int, int, int]  # family, model, stepping; zeros before version 3
    chip_id: bytes
    r: int
    s: int


def parse(data: bytes) -> SnpReport:
    """Returns the fields of a report. Raises RefusedError (malformed) for anything else."""
    if len(data) != SIZE:
        raise malformed(f"not an SEV-SNP report: {len(data)} bytes, expected {SIZE}")
    version, svn, policy, vmpl, algorithm, current, flags, text, measurement, host = _HEAD.unpack_from(data)
    if not 2 <= version <= 0xFFFF:  # a big-endian version is above
        raise malformed(f"not an SEV-SNP report: version {version}, expected 2 or later")
    if algorithm != _ECDSA_P384:
        raise malformed(f"signature algorithm {algorithm} of the SEV-SNP report is unknown")
    key = _KEYS.get(flags >> 2 & 7)
    if key is None:
        raise malformed(f"signing key {flags >> 2 & 7} of the SEV-SNP report is unknown")
    if any(data[SIGNED + _SIGNATURE.size :]):
        raise malformed("reserved bytes after the signature of the SEV-SNP report are not zero")
    reported, family, model, stepping, chip, committed, launch = _TAIL.unpack_from(data, 0x180)
    r, s = _SIGNATURE.unpack_from(data, SIGNED)
    return SnpReport(
        version, svn, policy, bool(policy & _DEBUG), vmpl, key, text, measurement, host,
        current, reported, committed, launch, (family, model, stepping), chip,
        int.from_bytes(r, "little"), int.from_bytes(s, "little"),
    )  # fmt: skip


def product_of(report: SnpReport) -> str:
    """Returns the processor's product by its CPUID family and model, or "" if the report has none.

    Models are those of AMD's processor programming references: Genoa includes Bergamo and Siena.
    """
    family, model, _ = report.cpu
    if report.version < 3:
        return ""
    if family == 0x19:
        return "Milan" if model < 0x10 else "Genoa" if model < 0x20 or 0xA0 <= model < 0xB0 else "unknown"
    return "Turin" if family == 0x1A and model < 0x20 else "unknown"


def tcb_parts(raw: bytes, product: str) -> dict[str, int]:
    """Returns the security versions in a TCB_VERSION. Turin has an order of its own."""
    names = _TCB_TURIN if product == "Turin" else _TCB
    return {name: raw[index] for index, name in names.items()}
