# SPDX-License-Identifier: Apache-2.0
"""A fake AMD: its keys sign certificates, lists and reports that no public vector has."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from ringfence.attest.certificates import Bundle

START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
AT = datetime(2026, 1, 1, tzinfo=UTC)
CHIP = bytes(range(64))
_PSS = padding.PSS(padding.MGF1(SHA384()), 48)
_OID = "1.3.6.1.4.1.3704.1."


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@dataclass
class FakeAmd:
    """An ARK, an ASK and a VCEK, for a product."""

    product: str = "Milan"
    chip: bytes = CHIP
    tcb: dict[str, int] = field(
        default_factory=lambda: {"3.1": 4, "3.2": 0, "3.3": 22, "3.8": 213},
    )
    ark_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ask_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    leaf_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @cached_property
    def ark(self) -> x509.Certificate:
        """The root, signed by itself."""
        return self._certify(
            f"ARK-{self.product}", self.ark_key.public_key(), f"ARK-{self.product}", self.ark_key
        )

    @cached_property
    def ask(self) -> x509.Certificate:
        """The intermediate."""
        return self._certify(
            f"SEV-{self.product}", self.ask_key.public_key(), f"ARK-{self.product}", self.ark_key, 7
        )

    @cached_property
    def vcek(self) -> x509.Certificate:
        """The leaf, with AMD's extensions."""
        name = self.product.encode() + b"-B0"
        values = {"2": b"\x16" + bytes([len(name)]) + name, "4": self.chip}
        for oid, number in self.tcb.items():
            raw = number.to_bytes(2 if number > 127 else 1, "big")
            values[oid] = b"\x02" + bytes([len(raw)]) + raw
        public = self.leaf_key.public_key()
        return self._certify("SEV-VCEK", public, f"SEV-{self.product}", self.ask_key, 9, values)

    @property
    def bundle(self) -> Bundle:
        """The whole chain."""
        return Bundle((self.vcek, self.ask, self.ark))

    def _certify(
        self, subject: str, public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, issuer: str,
        key: rsa.RSAPrivateKey, serial: int = 1, values: dict[str, bytes] | None = None,
    ) -> x509.Certificate:  # fmt: skip
        builder = x509.CertificateBuilder(_name(issuer), _name(subject), public, serial, START, END)
        for oid, value in (values or {}).items():
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(_OID + oid), value)
            builder = builder.add_extension(unknown, critical=False)
        return builder.sign(key, SHA384(), rsa_padding=_PSS)

    def crl(self, *serials: int, end: datetime = END) -> x509.CertificateRevocationList:
        """A list of the ARK's that revokes these serials."""
        builder = x509.CertificateRevocationListBuilder(_name(f"ARK-{self.product}"), START, end)
        for serial in serials:
            one = x509.RevokedCertificateBuilder(serial, START).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self.ark_key, SHA384(), rsa_padding=_PSS)

    def report(
        self, *, version: int = 3, policy: int = 0x30000, vmpl: int = 0, tcb: str = "04000000000016d5",
        cpu: tuple[int, int, int] = (0x19, 1, 1), report_data: bytes = b"", key: int = 0,
    ) -> bytes:  # fmt: skip
        """A report that the leaf's key signed."""
        body = bytearray(0x2A0)
        struct.pack_into("<II", body, 0, version, 0)
        struct.pack_into("<Q", body, 8, policy)
        struct.pack_into("<II", body, 0x30, vmpl, 1)
        struct.pack_into("<I", body, 0x48, key << 2)
        body[0x50 : 0x50 + len(report_data)] = report_data
        body[0x180:0x188] = bytes.fromhex(tcb)
        body[0x188:0x18B] = bytes(cpu)
        body[0x1A0:0x1E0] = CHIP
        r, s = decode_dss_signature(self.leaf_key.sign(bytes(body), ec.ECDSA(SHA384())))
        return bytes(body) + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)
