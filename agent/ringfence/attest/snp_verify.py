# SPDX-License-Identifier: Apache-2.0
"""Verifies SEV-SNP reports: the chain to a pinned AMD key, the signature, and what is expected.

Sections of the leaf's extensions are of AMD's "Versioned Chip Endorsement Key (VCEK) Certificate
and KDS Interface Specification" (57230), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from ringfence.attest.certificates import (
    Bundle,
    check_chain,
    check_unrevoked,
    common_name,
    key_digest,
)
from ringfence.attest.expected import Expected, Verdict, check_measurement, check_report_data
from ringfence.attest.refusal import RefusedError, malformed
from ringfence.attest.roots import AMD_ROOTS
from ringfence.attest.snp_report import SIGNED, SnpReport, parse, product_of, tcb_parts

__all__ = ["verify"]

_AMD = "1.3.6.1.4.1.3704.1."
_PRODUCT_NAME = _AMD + "2"
_HARDWARE_ID = _AMD + "4"
_SPL = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}


def verify(data: bytes, material: Bundle, expected: Expected, at: datetime) -> Verdict:
    """Returns the verdict on a report, with the certificates given, at that time. Raises RefusedError."""
    report = parse(data)
    chain, product = _chain(report, material.certificates)
    check_chain(chain, at)
    lists = check_unrevoked(chain, material.crls, at)
    _check_signature(data, report, chain[0])
    _check_leaf(report, chain[0], product)
    _check_expected(report, expected, product)
    return _verdict(report, product, expected, lists)


def _chain(report: SnpReport, certificates: Iterable[x509.Certificate]) -> tuple[list[x509.Certificate], str]:
    """Returns leaf, intermediate and root, and the product whose pinned key the root has."""
    if report.signing_key == "none":
        raise RefusedError("signature", "the report is not signed (signing key: none)")
    named: dict[str, list[x509.Certificate]] = {}
    for certificate in certificates:
        named.setdefault(common_name(certificate), []).append(certificate)
    roots = [one for name, group in named.items() if name.startswith("ARK-") for one in group]
    root = _only(roots, "ARK (the root)")
    product = AMD_ROOTS.get(key_digest(root))
    if product is None:
        raise RefusedError("unknown-root", f"{common_name(root)} has none of AMD's pinned keys")
    middle = f"SEV-{product}" if report.signing_key == "VCEK" else f"SEV-VLEK-{product}"
    leaf = f"SEV-{report.signing_key}"
    return [_only(named.get(leaf, []), leaf), _only(named.get(middle, []), middle), root], product


def _only(found: list[x509.Certificate], what: str) -> x509.Certificate:
    if len(found) != 1:
        raise RefusedError("chain", f"{len(found)} certificates of {what} were given, expected 1")
    return found[0]


def _check_signature(data: bytes, report: SnpReport, leaf: x509.Certificate) -> None:
    """Section "Digital Signatures": ECDSA P-384 with SHA-384 over the bytes before the signature."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise RefusedError("chain", f"the key of {common_name(leaf)} is not of the curve P-384")
    try:
        key.verify(encode_dss_signature(report.r, report.s), data[:SIGNED], ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise RefusedError("signature", f"the report is not signed by this {report.signing_key}") from None


def _check_leaf(report: SnpReport, leaf: x509.Certificate, product: str) -> None:
    """The leaf is for this product, this TCB and, if it is a VCEK, this chip."""
    extensions = _extensions(leaf)
    name = _string(extensions.get(_PRODUCT_NAME, b"")).split("-")[0]
    by_cpu = product_of(report) or product
    if name != product or by_cpu != product:
        raise RefusedError("product", f"root of {product}, leaf of {name or '?'}, report of {by_cpu}")
    parts = tcb_parts(report.reported_tcb, product)
    certified = {part: _integer(extensions.get(_AMD + _SPL[part], b"")) for part in parts}
    if certified != parts:
        raise RefusedError("tcb-mismatch", f"the report's TCB is {parts}, the certificate's {certified}")
    if report.signing_key == "VCEK" and not _same_chip(report.chip_id, extensions.get(_HARDWARE_ID, b"")):
        raise RefusedError("chip-id", "the certificate is of another chip")


def _extensions(leaf: x509.Certificate) -> dict[str, bytes]:
    found = {}
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            found[extension.oid.dotted_string] = extension.value.value
    return found


def _string(value: bytes) -> str:
    """Returns a DER IA5String."""
    return (
        value[2:].decode("ascii", "replace")
        if value[:1] == b"\x16" and value[1:2] == bytes([len(value) - 2])
        else ""
    )


def _integer(value: bytes) -> int | None:
    """Returns a DER INTEGER of one byte, 0 to 255; None for all else."""
    if value[:1] != b"\x02" or len(value) not in (3, 4) or value[1] != len(value) - 2:
        return None
    number = int.from_bytes(value[2:], "big", signed=True)
    return number if 0 <= number <= 255 else None


def _same_chip(chip_id: bytes, hardware_id: bytes) -> bool:
    """The hardware id is raw or an OCTET STRING, of 64 bytes or (Turin) 8; CHIP_ID is padded by zeros."""
    if hardware_id[:2] in (b"\x04\x40", b"\x04\x08") and len(hardware_id) == hardware_id[1] + 2:
        hardware_id = hardware_id[2:]
    return len(hardware_id) in (8, 64) and any(hardware_id) and chip_id == hardware_id.ljust(64, b"\0")


def _check_expected(report: SnpReport, expected: Expected, product: str) -> None:
    if report.debug:
        raise RefusedError("debug", "the guest's policy permits the host to read its memory")
    if report.vmpl != expected.vmpl:
        raise RefusedError("vmpl", f"the report is of VMPL {report.vmpl}, expected {expected.vmpl}")
    if expected.event_log is not None or expected.accept_tcb:
        raise malformed("an event log and a TCB status are of TDX, the evidence is an SEV-SNP report")
    check_report_data(report.report_data, expected)
    check_measurement(report.measurement, expected)
    parts = tcb_parts(report.reported_tcb, product)
    for name, least in expected.min_tcb.items():
        if name not in parts:
            raise malformed(f"{product} has no TCB part {name} ({', '.join(parts)})")
        if parts[name] < least:
            raise RefusedError("outdated-tcb", f"{name} is {parts[name]}, expected {least} or later")


def _verdict(report: SnpReport, product: str, expected: Expected, lists: int) -> Verdict:
    optional = {
        "report-data": expected.report_data is not None,
        "measurement": expected.measurement is not None,
        "min-tcb": bool(expected.min_tcb),
        "revocation": bool(lists),
    }
    checked = ["chain", "signature", "product", "tcb", "debug", "vmpl"]
    if report.signing_key == "VCEK":
        checked.append("chip-id")
    fields: dict[str, object] = {
        "product": product,
        "signing_key": report.signing_key,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "chip_id": report.chip_id.hex(),
        "reported_tcb": tcb_parts(report.reported_tcb, product),
    }
    return Verdict(
        "sev-snp",
        (*checked, *(name for name, done in optional.items() if done)),
        tuple(name for name, done in optional.items() if not done),
        fields,
    )
