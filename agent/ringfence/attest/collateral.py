# SPDX-License-Identifier: Apache-2.0
"""Intel's collateral for TDX: signed TCB info and QE identity, their chains, revocation lists.

The file has the members of the structure `sgx_ql_qve_collateral_t`, as dcap-qvl and PCCS clients
write it. Statements are parsed only after their signature is verified. The values are of Intel's
"API for Trusted Services", Get TDX TCB Info V4 and Get TD QE Identity V4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ringfence.attest.certificates import (
    Bundle,
    check_chain,
    check_unrevoked,
    common_name,
    key_digest,
    load,
)
from ringfence.attest.refusal import RefusedError, malformed
from ringfence.attest.roots import INTEL_ROOT

__all__ = ["Collateral", "authenticate", "parse", "statement", "verify_raw"]

_ROOT = "Intel SGX Root CA"
_SIGNER = "Intel SGX TCB Signing"


class Collateral(NamedTuple):
    """The parts of the file, unverified."""

    tcb_info: bytes
    tcb_info_signature: bytes
    tcb_info_chain: Bundle
    qe_identity: bytes
    qe_identity_signature: bytes
    qe_identity_chain: Bundle
    crls: tuple[x509.CertificateRevocationList, ...]


def parse(data: bytes) -> Collateral:
    """Returns the parts of a collateral file. Raises RefusedError (malformed)."""
    try:
        whole = json.loads(data)
        text = {name: value for name, value in whole.items() if isinstance(value, str)}
        crls = [load(bytes.fromhex(text[name])).crls for name in ("root_ca_crl", "pck_crl")]
        return Collateral(
            text["tcb_info"].encode(),
            bytes.fromhex(text["tcb_info_signature"]),
            load(text["tcb_info_issuer_chain"].encode()),
            text["qe_identity"].encode(),
            bytes.fromhex(text["qe_identity_signature"]),
            load(text["qe_identity_issuer_chain"].encode()),
            tuple(one for found in crls for one in found),
        )
    except KeyError as error:
        raise malformed(f"the collateral lacks {error}") from None
    except (ValueError, AttributeError, RecursionError):
        raise malformed("the collateral is no JSON object of texts and hexadecimal digits") from None


def authenticate(
    chain: Sequence[x509.Certificate],
    names: Sequence[str],
    crls: Sequence[x509.CertificateRevocationList] | None,
    at: datetime,
) -> None:
    """Checks a chain, leaf first, up to Intel's pinned key; with lists, each issuer must have one.

    `names` are the starts of the subjects' common names below the root. Raises RefusedError.
    """
    found = [common_name(one) for one in chain]
    expected = [*names, _ROOT]
    if len(found) != len(expected) or not all(map(str.startswith, found, expected)):
        raise RefusedError("chain", f"the chain is {', '.join(found) or 'empty'}")
    if key_digest(chain[-1]) != INTEL_ROOT:
        raise RefusedError("unknown-root", f"{found[-1]} does not have Intel's pinned key")
    check_chain(chain, at)
    if crls is not None and check_unrevoked(chain, crls, at) < len(names):
        raise RefusedError("collateral", f"no revocation list for each issuer of {found[0]}")


def statement(
    text: bytes, signature: bytes, chain: Bundle, crls: Sequence[x509.CertificateRevocationList],
    kind: str, at: datetime,
) -> dict[str, Any]:  # fmt: skip
    """Returns a signed statement whose `id` is `kind`, current at that time. Raises RefusedError."""
    authenticate(chain.certificates, [_SIGNER], crls, at)
    verify_raw(chain.certificates[0], signature, text, f"the statement {kind}")
    try:
        value: dict[str, Any] = json.loads(text)
        found, start, end = value["id"], _date(value["issueDate"]), _date(value["nextUpdate"])
    except (ValueError, KeyError, TypeError):
        raise malformed(f"the statement {kind} cannot be parsed") from None
    if found != kind:
        raise RefusedError("collateral", f"the statement is of {found}, expected {kind}")
    if at < start:
        raise RefusedError("not-yet-valid", f"the statement {kind} is from {start:%Y-%m-%dT%H:%MZ}")
    if at > end:
        raise RefusedError("expired", f"the statement {kind} ended at {end:%Y-%m-%dT%H:%MZ}")
    return value


def _date(text: str) -> datetime:
    date = datetime.fromisoformat(text)
    if date.tzinfo is None:
        raise ValueError(text)
    return date


def verify_raw(signer: x509.Certificate | bytes, signature: bytes, data: bytes, what: str) -> None:
    """Checks an ECDSA P-256 signature of 64 bytes (r, s, big-endian) with SHA-256. Raises RefusedError."""
    try:
        key = (
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + signer)
            if isinstance(signer, bytes)
            else signer.public_key()
        )
        if len(signature) != 64 or not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        raise RefusedError("signature", f"{what} is not signed by its key") from None
