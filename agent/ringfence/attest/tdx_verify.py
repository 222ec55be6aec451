# SPDX-License-Identifier: Apache-2.0
"""Verifies TDX quotes: PCK chain, quoting enclave, signature, TCB by Intel's collateral.

The steps are those of Intel's "SGX and TDX DCAP Quote Verification", as the "API for Trusted
Services" (Get TDX TCB Info V4) states them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cryptography import x509

from ringfence.attest import ccel
from ringfence.attest.certificates import load
from ringfence.attest.collateral import Collateral, authenticate, statement, verify_raw
from ringfence.attest.expected import Expected, Verdict, check_measurement, check_report_data
from ringfence.attest.pck import Platform, platform_of
from ringfence.attest.refusal import RefusedError, malformed
from ringfence.attest.tdx_quote import QeReport, TdxQuote, parse

__all__ = ["TcbStatus", "check_quote", "verify"]

_PCK_NAMES = ("Intel SGX PCK Certificate", "Intel SGX PCK P")  # ... Platform CA, ... Processor CA
_DEBUG = 0xFF  # TDATTRIBUTES.TUD: a debuggable or otherwise untrusted TD


class TcbStatus(NamedTuple):
    """The status of a platform, and what Intel says of it."""

    status: str
    date: str
    advisories: tuple[str, ...]


def verify(data: bytes, collateral: Collateral, expected: Expected, at: datetime) -> Verdict:
    """Returns the verdict on a quote, with the collateral given, at that time. Raises RefusedError."""
    quote = parse(data)
    pck = check_quote(quote, collateral.crls, at)
    info = statement(
        collateral.tcb_info, collateral.tcb_info_signature, collateral.tcb_info_chain, collateral.crls,
        "TDX", at,
    )  # fmt: skip
    identity = statement(
        collateral.qe_identity, collateral.qe_identity_signature, collateral.qe_identity_chain,
        collateral.crls, "TD_QE", at,
    )  # fmt: skip
    status = _merged(quote, platform_of(pck), info, identity)
    _check_status(status, expected)
    _check_expected(quote, expected)
    return _verdict(quote, status, expected)


def check_quote(
    quote: TdxQuote, crls: Sequence[x509.CertificateRevocationList] | None, at: datetime
) -> x509.Certificate:
    """Checks the signatures from Intel's root to the quote; returns the PCK certificate."""
    chain = load(quote.chain).certificates
    authenticate(chain, _PCK_NAMES, crls, at)
    verify_raw(chain[0], quote.qe.signature, quote.qe.raw, "the report of the quoting enclave")
    bound = hashlib.sha256(quote.attestation_key + quote.qe.auth_data).digest()
    if quote.qe.report_data != bound + bytes(32):
        raise RefusedError("qe-identity", "the quoting enclave's report is for another attestation key")
    verify_raw(quote.attestation_key, quote.signature, quote.signed, "the quote")
    return chain[0]


def _merged(quote: TdxQuote, platform: Platform, info: dict[str, Any], identity: dict[str, Any]) -> TcbStatus:
    """Returns the status of all parts; a statement of another shape is malformed."""
    try:
        return _status(quote, platform, info, identity)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise malformed("the collateral lacks a value, or has one of another type") from None


def _status(quote: TdxQuote, platform: Platform, info: dict[str, Any], identity: dict[str, Any]) -> TcbStatus:
    """Returns the worst of the platform's, the TDX module's and the quoting enclave's status."""
    if bytes.fromhex(info["fmspc"]) != platform.fmspc or bytes.fromhex(info["pceId"]) != platform.pce_id:
        raise RefusedError(
            "collateral", f"the TCB info is of FMSPC {info['fmspc']}, the quote of {platform.fmspc.hex()}"
        )
    if info["version"] != 3 or identity["version"] != 2:
        raise RefusedError("collateral", "the version of the TCB info or of the QE identity is unknown")
    status = _platform_level(quote, platform, info)
    for part in (_module_level(quote, info), _enclave_level(quote.qe, identity)):
        status = TcbStatus(_worse(status.status, part.status), min(status.date, part.date),
                           tuple(dict.fromkeys(status.advisories + part.advisories)))  # fmt: skip
    return status


def _platform_level(quote: TdxQuote, platform: Platform, info: dict[str, Any]) -> TcbStatus:
    """The first level whose components the platform reaches (levels are sorted, newest first)."""
    skip = 2 if quote.tee_tcb_svn[1] else 0  # then the module has levels of its own
    for level in info["tcbLevels"]:
        tcb = level["tcb"]
        sgx = [part["svn"] for part in tcb["sgxtcbcomponents"]]
        tdx = [part["svn"] for part in tcb["tdxtcbcomponents"]]
        if (
            _reaches(platform.components, sgx)
            and platform.pce_svn >= tcb["pcesvn"]
            and _reaches(quote.tee_tcb_svn[skip:], tdx[skip:])
        ):
            return _level(level)
    raise RefusedError("outdated-tcb", "the platform reaches no level of the TCB info")


def _reaches(has: Sequence[int], least: Sequence[int]) -> bool:
    return all(one >= other for one, other in zip(has, least, strict=True))


def _level(level: dict[str, Any]) -> TcbStatus:
    return TcbStatus(level["tcbStatus"], level["tcbDate"], tuple(level.get("advisoryIDs", ())))


def _module_level(quote: TdxQuote, info: dict[str, Any]) -> TcbStatus:
    """The TDX module: its signer and attributes, and the level of its version."""
    svn, version = quote.tee_tcb_svn[:2]
    if not version:
        identity, levels = info["tdxModule"], None
    else:
        name = f"TDX_{version:02X}"
        found = [one for one in info["tdxModuleIdentities"] if one["id"].upper() == name]
        if not found:
            raise RefusedError("collateral", f"the TCB info has no TDX module {name}")
        identity, levels = found[0], found[0]["tcbLevels"]
    mask = bytes.fromhex(identity["attributesMask"])
    if bytes.fromhex(identity["mrsigner"]) != quote.mrsignerseam or _masked(
        quote.seam_attributes.to_bytes(8, "little"), mask
    ) != bytes.fromhex(identity["attributes"]):
        raise RefusedError("tcb-mismatch", "the TDX module is of another signer or has other attributes")
    if levels is None:
        return TcbStatus("UpToDate", "9999", ())
    return _by_svn(levels, svn, "TDX module")


def _enclave_level(qe: QeReport, identity: dict[str, Any]) -> TcbStatus:
    """The quoting enclave is Intel's, and the level of its version."""
    texts = {name: bytes.fromhex(identity[name]) for name in
             ("mrsigner", "miscselect", "miscselectMask", "attributes", "attributesMask")}  # fmt: skip
    # MISCSELECT is a number: the report is little-endian, the text big-endian.
    misc = _masked(qe.miscselect[::-1], texts["miscselectMask"])
    if (
        qe.mrsigner != texts["mrsigner"]
        or qe.isvprodid != identity["isvprodid"]
        or misc != texts["miscselect"]
        or _masked(qe.attributes, texts["attributesMask"]) != texts["attributes"]
    ):
        raise RefusedError("qe-identity", "the quoting enclave is not the one of the QE identity")
    return _by_svn(identity["tcbLevels"], qe.isvsvn, "quoting enclave")


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(one & other for one, other in zip(value, mask, strict=True))


def _by_svn(levels: Sequence[dict[str, Any]], svn: int, what: str) -> TcbStatus:
    for level in levels:
        if svn >= level["tcb"]["isvsvn"]:
            return _level(level)
    raise RefusedError("outdated-tcb", f"the {what} of version {svn} reaches no level")


def _worse(platform: str, part: str) -> str:
    """Returns the status of a platform whose module or enclave has the status `part`."""
    if part == "UpToDate" or platform == "Revoked":
        return platform
    if part != "OutOfDate":
        return part
    configured = {"ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"}
    return "OutOfDateConfigurationNeeded" if platform in configured else "OutOfDate"


def _check_status(status: TcbStatus, expected: Expected) -> None:
    if status.status == "Revoked":
        raise RefusedError("revoked", "Intel revoked this TCB")
    if status.status != "UpToDate" and status.status not in expected.accept_tcb:
        word = "outdated-tcb" if status.status.startswith("OutOfDate") else "tcb-configuration"
        advisories = ", ".join(status.advisories) or "no advisories"
        raise RefusedError(word, f"the TCB is {status.status} (level of {status.date}, {advisories})")


def _check_expected(quote: TdxQuote, expected: Expected) -> None:
    if quote.td_attributes & _DEBUG:
        raise RefusedError("debug", "the attributes permit the host to read the guest's memory")
    if expected.min_tcb or expected.vmpl:
        raise malformed("a TDX quote has no VMPL and no TCB parts of AMD's names")
    check_report_data(quote.report_data, expected)
    check_measurement(quote.mrtd, expected)
    if expected.event_log is not None:
        for index, value in enumerate(ccel.replay(expected.event_log)):
            if value != quote.rtmr[index]:
                raise RefusedError("event-log", f"the event log does not replay into RTMR {index}")


def _verdict(quote: TdxQuote, status: TcbStatus, expected: Expected) -> Verdict:
    optional = {
        "report-data": expected.report_data is not None,
        "measurement": expected.measurement is not None,
        "event-log": expected.event_log is not None,
    }
    fields: dict[str, object] = {
        "tcb_status": status.status,
        "tcb_date": status.date,
        "advisories": list(status.advisories),
        "measurement": quote.mrtd.hex(),
        "report_data": quote.report_data.hex(),
        **{f"rtmr{index}": value.hex() for index, value in enumerate(quote.rtmr)},
    }
    return Verdict(
        "tdx",
        ("chain", "signature", "qe-identity", "revocation", "tcb", "debug",
         *(name for name, done in optional.items() if done)),
        tuple(name for name, done in optional.items() if not done),
        fields,
    )  # fmt: skip
