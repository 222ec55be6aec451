# SPDX-License-Identifier: Apache-2.0
"""Distinguishes kinds of evidence. `fields_of` needs no library; `verify` needs `cryptography`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ringfence.attest import snp_report, tdx_quote
from ringfence.attest.expected import Expected, Verdict
from ringfence.attest.refusal import RefusedError

if TYPE_CHECKING:
    from ringfence.attest.certificates import Bundle

__all__ = ["fields_of", "verify"]


def fields_of(data: bytes) -> dict[str, object]:
    """Returns the fields of evidence, unverified. Raises RefusedError (malformed)."""
    return _quote_fields(data) if tdx_quote.is_quote(data) else _report_fields(data)


def _report_fields(data: bytes) -> dict[str, object]:
    report = snp_report.parse(data)
    product = snp_report.product_of(report)
    fields: dict[str, object] = {"kind": "sev-snp", "verified": "no"}
    for name, value in report._asdict().items():
        if name in ("r", "s", "cpu"):
            continue
        if name.endswith("_tcb"):
            fields[name] = snp_report.tcb_parts(value, product)
        else:
            fields[name] = value.hex() if isinstance(value, bytes) else value
    fields["product"] = product or "not in the report"
    return fields


def _quote_fields(data: bytes) -> dict[str, object]:
    quote = tdx_quote.parse(data)
    fields: dict[str, object] = {"kind": "tdx", "verified": "no", "debug": bool(quote.td_attributes & 1)}
    for name, value in quote._asdict().items():
        if name in ("signed", "signature", "attestation_key", "qe", "chain"):
            continue
        if name == "rtmr":
            fields.update({f"rtmr{index}": one.hex() for index, one in enumerate(value)})
        else:
            fields[name] = value.hex() if isinstance(value, bytes) else value
    return fields


def verify(
    data: bytes, material: Bundle, collateral: bytes | None, expected: Expected, at: datetime
) -> Verdict:
    """Returns the verdict on evidence: `material` is for SEV-SNP, `collateral` for TDX."""
    if not tdx_quote.is_quote(data):
        from ringfence.attest import snp_verify

        return snp_verify.verify(data, material, expected, at)
    from ringfence.attest import collateral as files
    from ringfence.attest import tdx_verify

    tdx_quote.parse(data)  # what is malformed is reported as such, with collateral or without
    if collateral is None:
        raise RefusedError(
            "collateral", "a TDX quote is verified with Intel's collateral", hint="--collateral FILE"
        )
    return tdx_verify.verify(data, files.parse(collateral), expected, at)
