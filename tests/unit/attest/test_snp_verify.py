# SPDX-License-Identifier: Apache-2.0
"""The verifier of SEV-SNP reports, on public reports and on those of a fake AMD."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ringfence.attest import snp_verify
from ringfence.attest.certificates import Bundle, key_digest, load
from ringfence.attest.expected import Expected, Verdict, bound_data
from ringfence.attest.refusal import RefusedError
from ringfence.attest.snp_report import SIZE, parse
from ringfence.attest.snp_verify import verify
from tests.unit.attest.fake_amd import AT, FakeAmd
from tests.unit.attest.flips import accepted

_DATA = Path(__file__).parents[2] / "data/attest"
_TIME = datetime(2025, 6, 1, tzinfo=UTC)
_ANY = Expected(None)
# report, leaf, chain, VMPL
_VALID = [
    ("snp-test-report.bin", "snp-test-vcek.der", "ask_ark_milan.pem", 0),
    ("snp-vlek.bin", "snp-vlek.der", "ask_ark_milan_vlek.pem", 1),
    ("snp-v3-genoa.bin", "snp-v3-genoa-vcek.pem", "ask_ark_genoa.pem", 0),
]


def _bytes(name: str) -> bytes:
    return (_DATA / name).read_bytes()


def _bundle(*names: str) -> Bundle:
    whole = Bundle()
    for name in names:
        whole = whole + load(_bytes(name))
    return whole


def _word(data: bytes, material: Bundle, expected: Expected = _ANY, at: datetime = _TIME) -> str:
    with pytest.raises(RefusedError) as caught:
        verify(data, material, expected, at)
    return caught.value.word


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAmd:
    """A fake AMD whose root key is pinned for this test."""
    amd = FakeAmd()
    monkeypatch.setattr(snp_verify, "AMD_ROOTS", {key_digest(amd.ark): "Milan"})
    return amd


@pytest.mark.parametrize(("report", "leaf", "chain", "vmpl"), _VALID)
def test_a_public_report_verifies_at_its_time(report: str, leaf: str, chain: str, vmpl: int) -> None:
    """With the report data that it carries; the verdict names the product of the chain."""
    data = _bytes(report)
    expected = Expected(parse(data).report_data, parse(data).measurement, vmpl)
    verdict = verify(data, _bundle(leaf, chain), expected, _TIME)
    assert verdict.fields["product"] == ("Genoa" if "genoa" in chain else "Milan")
    assert {"chain", "signature", "report-data", "measurement"} <= set(verdict.checked)


@pytest.mark.parametrize(
    ("at", "word"),
    [(datetime(2026, 6, 1, tzinfo=UTC), "expired"), (datetime(2001, 1, 1, tzinfo=UTC), "not-yet-valid")],
)
def test_a_report_does_not_verify_outside_the_time_of_its_leaf(at: datetime, word: str) -> None:
    """The public VLEK ended in December 2025; a clock that is early has a word of its own."""
    data = _bytes("snp-vlek.bin")
    assert _word(data, _bundle("snp-vlek.der", "ask_ark_milan_vlek.pem"), Expected(None, vmpl=1), at) == word


@pytest.mark.parametrize(
    ("report", "certificates", "word"),
    [("snp-v2-milan.bin", ["snp-v2-milan-vcek.der", "ask_ark_milan.pem"], "debug"),
     ("snp-test-report.bin", ["snp-vcek-invalid-new.der", "ask_ark_milan.pem"], "signature"),
     ("snp-test-report.bin", ["snp-vcek-invalid-legacy.der", "ask_ark_milan.pem"], "signature"),
     ("snp-test-report.bin", ["snp-v2-milan-vcek.der", "ask_ark_milan.pem"], "signature"),
     ("snp-test-report.bin", ["snp-test-vcek.der", "ask_ark_genoa.pem"], "chain"),
     ("snp-test-report.bin", ["snp-test-vcek.der", "ask_ark_milan_vlek.pem"], "chain"),
     ("snp-test-report.bin", ["snp-test-vcek.der"], "chain"),
     ("snp-test-report.bin", ["ask_ark_milan.pem"], "chain"),
     ("snp-vlek.bin", ["snp-test-vcek.der", "ask_ark_milan.pem"], "chain"),
     ("snp-vlek.bin", ["snp-vlek.der", "ask_ark_milan_vlek.pem"], "vmpl")],
)  # fmt: skip
def test_an_invalid_or_mixed_set_is_refused_with_its_word(
    report: str, certificates: list[str], word: str
) -> None:
    """The public Milan report has the debug bit; the invalid VCEKs are published as such."""
    assert _word(_bytes(report), _bundle(*certificates)) == word


@pytest.mark.parametrize(
    ("expected", "word"),
    [(Expected(bytes(64)), "report-data"), (Expected(None, bytes(48)), "measurement"),
     (Expected(None, vmpl=2), "vmpl"), (Expected(None, min_tcb={"microcode": 116}), "outdated-tcb"),
     (Expected(None, min_tcb={"fmc": 1}), "malformed")],
)  # fmt: skip
def test_a_report_with_another_value_than_expected_is_refused(expected: Expected, word: str) -> None:
    """The report has microcode 115."""
    material = _bundle("snp-test-vcek.der", "ask_ark_milan.pem")
    assert _word(_bytes("snp-test-report.bin"), material, expected) == word


def test_the_report_data_binds_each_value(fake: FakeAmd) -> None:
    """Another nonce, policy digest, agent digest or key is refused, and so is a shifted boundary."""
    values: tuple[Any, ...] = (b"nonce", "digest", b"agent", b"key")
    data = fake.report(report_data=bound_data(*values))
    assert isinstance(verify(data, fake.bundle, Expected(bound_data(*values)), AT), Verdict)
    for other in [(b"nonc", "edigest", b"agent", b"key"), (b"nonce", "digest", b"agentk", b"ey"),
                  (b"other", *values[1:]), (b"nonce", "other", *values[2:]), values[:3]]:  # fmt: skip
        assert _word(data, fake.bundle, Expected(bound_data(*other)), AT) == "report-data"


def test_a_root_of_another_key_is_unknown() -> None:
    """The fake AMD has AMD's names, but not its keys."""
    amd = FakeAmd()
    assert _word(amd.report(), amd.bundle, _ANY, AT) == "unknown-root"


@pytest.mark.parametrize(
    ("report", "word"),
    [({"policy": 0xB0000}, "debug"), ({"vmpl": 3}, "vmpl"), ({"cpu": (0x19, 0x11, 1)}, "product"),
     ({"cpu": (0x1A, 2, 1)}, "product"), ({"tcb": "04000000000016d6"}, "tcb-mismatch"),
     ({"key": 7}, "signature")],
)  # fmt: skip
def test_a_signed_report_that_does_not_fit_is_refused(
    fake: FakeAmd, report: dict[str, Any], word: str
) -> None:
    """A signature alone is not enough."""
    verify(fake.report(), fake.bundle, _ANY, AT)
    assert _word(fake.report(**report), fake.bundle, _ANY, AT) == word


def test_a_leaf_of_another_chip_is_refused(fake: FakeAmd) -> None:
    """The hardware id of the VCEK must be the report's chip id."""
    other = FakeAmd(chip=bytes(64), ark_key=fake.ark_key, ask_key=fake.ask_key, leaf_key=fake.leaf_key)
    assert _word(fake.report(), other.bundle, _ANY, AT) == "chip-id"


def test_turin_has_its_own_order_of_tcb_and_a_short_chip_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """FMC, bootloader, TEE, SNP at 0 to 3, microcode at 7; eight bytes of hardware id."""
    tcb = {"3.9": 1, "3.1": 2, "3.2": 3, "3.3": 4, "3.8": 213}
    amd = FakeAmd(product="Turin", chip=b"\x04\x08" + bytes(range(8)), tcb=tcb)
    monkeypatch.setattr(snp_verify, "AMD_ROOTS", {key_digest(amd.ark): "Turin"})
    monkeypatch.setattr("tests.unit.attest.fake_amd.CHIP", bytes(range(8)) + bytes(56))
    data = amd.report(cpu=(0x1A, 2, 1), tcb="01020304000000d5")
    fields = verify(data, amd.bundle, Expected(None, min_tcb={"fmc": 1}), AT).fields
    assert fields["reported_tcb"] == {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 213}


def test_revocation_lists_are_checked_where_given(fake: FakeAmd) -> None:
    """The ASK has the serial 7. A list that ended, or of another signer, is no list."""
    data = fake.report()
    clean = fake.bundle + Bundle(crls=(fake.crl(8),))
    assert "revocation" in verify(data, clean, _ANY, AT).checked
    assert "revocation" in verify(data, fake.bundle, _ANY, AT).unchecked
    assert _word(data, fake.bundle + Bundle(crls=(fake.crl(7),)), _ANY, AT) == "revoked"
    old = fake.crl(8, end=datetime(2025, 2, 1, tzinfo=UTC))
    assert _word(data, fake.bundle + Bundle(crls=(old,)), _ANY, AT) == "expired"
    assert _word(data, fake.bundle + Bundle(crls=(FakeAmd().crl(8),)), _ANY, AT) == "signature"


@pytest.mark.parametrize(("report", "leaf", "chain", "vmpl"), _VALID)
def test_every_flipped_bit_of_a_report_is_refused(report: str, leaf: str, chain: str, vmpl: int) -> None:
    """All 9472 bits of each file: signed bytes, signature, reserved bytes after it."""
    material, expected = _bundle(leaf, chain), Expected(None, vmpl=vmpl)
    assert accepted(_bytes(report), lambda data: verify(data, material, expected, _TIME)) == []


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(("report", "leaf", "chain", "vmpl"), _VALID)
def test_every_flipped_bit_of_a_certificate_is_refused(
    report: str, leaf: str, chain: str, vmpl: int, index: int
) -> None:
    """Leaf, intermediate and root, in DER."""
    data, whole = _bytes(report), _bundle(leaf, chain).certificates
    rest = Bundle(tuple(one for number, one in enumerate(whole) if number != index))

    def changed(certificate: bytes) -> None:
        verify(data, rest + load(certificate), Expected(None, vmpl=vmpl), _TIME)

    original = whole[index].public_bytes(Encoding.DER)
    changed(original)
    assert accepted(original, changed) == []


def test_a_certificate_of_an_unknown_version_is_malformed() -> None:
    """The library raises an exception of its own for it."""
    original = _bytes("snp-test-vcek.der")
    assert original.count(b"\xa0\x03\x02\x01\x02") == 1  # the version: [0] INTEGER 2
    with pytest.raises(RefusedError, match="malformed"):
        load(original.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"))


@given(st.binary(max_size=64) | st.binary(min_size=SIZE, max_size=SIZE), st.binary(max_size=400))
def test_any_bytes_are_refused_and_never_a_traceback(data: bytes, certificate: bytes) -> None:
    """Neither as a report nor as a certificate, with the start of one or as PEM."""
    material = _bundle("snp-test-vcek.der", "ask_ark_milan.pem")
    with suppress(RefusedError):
        verify(data, material, _ANY, _TIME)
    pem = b"-----BEGIN CERTIFICATE-----\n" + certificate + b"\n-----END CERTIFICATE-----"
    for text in (certificate, b"\x30" + certificate, pem, _bytes("snp-test-vcek.der")[:300] + certificate):
        with suppress(RefusedError):
            load(text)


def test_a_verification_takes_less_than_100_ms() -> None:
    """The bar of the documentation; the best of five, since the machine is shared."""
    data, times = _bytes("snp-test-report.bin"), []
    for _ in range(5):
        start = time.perf_counter()
        verify(data, _bundle("snp-test-vcek.der", "ask_ark_milan.pem"), _ANY, _TIME)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
