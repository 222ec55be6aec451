# SPDX-License-Identifier: Apache-2.0
"""Distinguishes kinds of evidence. `fields_of` needs no library; `verify` needs `cryptography`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ringfence.attest import snp_report
from ringfence.attest.expected import Expected, Verdict

if TYPE_CHECKING:
    from ringfence.attest.certificates import Bundle

__all__ = ["fields_of", "verify"]


def fields_of(data: bytes) -> dict[str, object]:
    """Returns the fields of evidence, unverified. Raises RefusedError (malformed)."""
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


def verify(data: bytes, material: Bundle, expected: Expected, at: datetime) -> Verdict:
    """Returns the verdict on evidence. Raises RefusedError."""
    from ringfence.attest import snp_verify

    return snp_verify.verify(data, material, expected, at)
