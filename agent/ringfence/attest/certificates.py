# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists: loading, and one issuer at a time. Callers build the chain.

Every fault of the X.509 library, which parses lazily, becomes a RefusedError.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from ringfence.attest.refusal import RefusedError, malformed

__all__ = ["Bundle", "check_chain", "check_unrevoked", "common_name", "key_digest", "load"]

_FAULTS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----[^-]{1,65536}-----END \1-----")
_MOST = 16  # certificates and lists in one file
_T = TypeVar("_T")


class Bundle(NamedTuple):
    """The certificates and revocation lists of files, in their order."""

    certificates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    def __add__(self, other: object) -> Bundle:
        """Returns both bundles as one."""
        if not isinstance(other, Bundle):
            return NotImplemented
        return Bundle(self.certificates + other.certificates, self.crls + other.crls)


def load(data: bytes) -> Bundle:
    """Returns the certificates and CRLs of a PEM file, or the one of a DER file."""
    if data[:1] == b"\x30":
        try:
            return Bundle((_quiet(x509.load_der_x509_certificate, data),))
        except RefusedError:
            return Bundle(crls=(_quiet(x509.load_der_x509_crl, data),))
    parts = list(_PEM.finditer(data))
    if not 0 < len(parts) <= _MOST:
        raise malformed(f"{len(parts)} certificates or revocation lists, expected 1 to {_MOST} in PEM or DER")
    return Bundle(
        tuple(_quiet(x509.load_pem_x509_certificate, m[0]) for m in parts if m[1] == b"CERTIFICATE"),
        tuple(_quiet(x509.load_pem_x509_crl, m[0]) for m in parts if m[1] != b"CERTIFICATE"),
    )


def check_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises RefusedError unless `issuer` signed `child` and is named as its issuer."""
    _check_whole(child)
    try:
        child.verify_directly_issued_by(issuer)
    except InvalidSignature:
        raise RefusedError(
            "signature", f"the certificate of {common_name(child)} is not its issuer's"
        ) from None
    except _FAULTS as fault:
        raise RefusedError("chain", f"the certificate of {common_name(child)}: {fault}") from None


def _check_whole(signed: x509.Certificate | x509.CertificateRevocationList) -> None:
    """The library ignores the number of unused bits before the signature; it must be 0."""
    encoded = _guarded(lambda: signed.public_bytes(Encoding.DER))
    if encoded[-len(signed.signature) - 1] != 0:
        raise malformed("the signature of a certificate or revocation list has unused bits")


def check_time(certificate: x509.Certificate, at: datetime) -> None:
    """Raises RefusedError unless the certificate is valid at that time."""
    name = common_name(certificate)
    start = _guarded(lambda: certificate.not_valid_before_utc)
    end = _guarded(lambda: certificate.not_valid_after_utc)
    if at < start:
        raise RefusedError(
            "not-yet-valid", f"the certificate of {name} is valid from {start:%Y-%m-%dT%H:%MZ}"
        )
    if at > end:
        raise RefusedError("expired", f"the certificate of {name} ended at {end:%Y-%m-%dT%H:%MZ}")


def check_chain(chain: Sequence[x509.Certificate], at: datetime) -> None:
    """Raises RefusedError unless each certificate, leaf first, is issued by the next, the last by itself, and
    is valid at that time.
    """
    for child, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        check_issued(child, issuer)
        check_time(child, at)


def check_unrevoked(
    chain: Sequence[x509.Certificate], crls: Iterable[x509.CertificateRevocationList], at: datetime
) -> int:
    """Checks a chain, leaf first, against revocation lists; returns how many lists applied.

    Each list must be signed by an authority of the chain and be current. Raises RefusedError.
    """
    applied = 0
    for child, issuer in pairwise(chain):
        for crl in crls:
            applied += _check_against(crl, child, issuer, at)
    return applied


def _check_against(
    crl: x509.CertificateRevocationList, child: x509.Certificate, issuer: x509.Certificate, at: datetime
) -> bool:
    """Returns False if the list is of another issuer."""
    if _guarded(lambda: crl.issuer) != issuer.subject:
        return False
    _check_crl(crl, issuer, at)
    if _guarded(lambda: crl.get_revoked_certificate_by_serial_number(child.serial_number)):
        raise RefusedError(
            "revoked", f"{common_name(issuer)} revoked the certificate of {common_name(child)}"
        )
    return True


def _check_crl(crl: x509.CertificateRevocationList, issuer: x509.Certificate, at: datetime) -> None:
    name = common_name(issuer)
    _check_whole(crl)
    key = _guarded(issuer.public_key)
    # Of a key that signs no list, the library says so.
    if not _guarded(lambda: crl.is_signature_valid(key)):  # type: ignore[arg-type]
        raise RefusedError("signature", f"the revocation list of {name} is not signed by it")
    start, end = _guarded(lambda: (crl.last_update_utc, crl.next_update_utc))
    if at < start:
        raise RefusedError("not-yet-valid", f"the revocation list of {name} is from {start:%Y-%m-%dT%H:%MZ}")
    if end is not None and at > end:
        raise RefusedError("expired", f"the revocation list of {name} ended at {end:%Y-%m-%dT%H:%MZ}")


def common_name(certificate: x509.Certificate) -> str:
    """Returns the subject's common name, or "?"."""
    names = _guarded(lambda: certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
    return str(names[0].value) if names else "?"


def key_digest(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 of the public key (SubjectPublicKeyInfo) in hexadecimal."""
    key = _guarded(certificate.public_key)
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _quiet(load_one: Callable[[bytes], _T], data: bytes) -> _T:
    """Loads one object. AMD's leaves have the serial 0, of which the library warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return _guarded(lambda: load_one(data))


def _guarded(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except _FAULTS as fault:
        raise malformed(f"a certificate or revocation list cannot be parsed: {fault}") from None
