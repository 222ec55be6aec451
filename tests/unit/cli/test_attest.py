# SPDX-License-Identifier: Apache-2.0
"""`ringfence attest`: words, exit codes and both outputs, on public evidence."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ringfence.attest.refusal import WORDS
from ringfence.cli.main import main

_ROOT = Path(__file__).parents[3]
_DATA = _ROOT / "tests/data/attest"
_REPORT = str(_DATA / "snp-test-report.bin")
_VERIFY = [
    "attest", "verify", _REPORT, "--certs", str(_DATA / "snp-test-vcek.der"), "--certs",
    str(_DATA / "ask_ark_milan.pem"),
]  # fmt: skip
_THEN = ["--at", "2025-06-01T00:00:00Z"]
_ANY = ["--report-data", "any"]


def test_accepted_evidence_lists_what_was_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """`any` report data is not a check."""
    assert main([*_VERIFY, *_THEN, *_ANY, "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "accepted"
    assert "report-data" in report["not_checked"]


@pytest.mark.parametrize(
    ("options", "word"),
    [([*_THEN, "--nonce", "00", "--policy-digest", "x"], "report-data"),
     (["--at", "2035-06-01T00:00:00+02:00", *_ANY], "expired"),
     ([*_THEN, *_ANY, "--min-tcb", "snp=9,tee=0"], "outdated-tcb")],
)  # fmt: skip
def test_refused_evidence_has_a_word_and_its_exit_code(
    options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In text on standard error, in JSON on standard output."""
    assert main([*_VERIFY, *options]) == WORDS[word]
    assert capsys.readouterr().err.startswith(f"ringfence: error: {word}: ")
    assert main([*_VERIFY, *options, "-o", "json"]) == WORDS[word]
    assert json.loads(capsys.readouterr().out)["word"] == word


@pytest.mark.parametrize(
    "options",
    [[], ["--nonce", "00"], ["--nonce", "00", *_ANY], ["--report-data", "00"], ["--report-data", "xy"]],
)
def test_an_unclear_expectation_is_a_usage_error(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Evidence is never accepted without an expectation: `any` must be spelled out."""
    assert main([*_VERIFY, *_THEN, *options]) == 2
    assert "report-data" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--at", "yesterday"], ["--at", "2025-06-01"], ["--min-tcb", "snp"], ["--nonce", "zz"]]
)
def test_a_malformed_option_is_a_usage_error(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A time without a zone is no time."""
    with pytest.raises(SystemExit) as caught:
        main([*_VERIFY, *options])
    assert caught.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_a_quote_is_verified_with_its_collateral(capsys: pytest.CaptureFixture[str]) -> None:
    """Accepted with it, refused without it and with another guest's event log."""
    verify = [
        "attest",
        "verify",
        str(_DATA / "tdx-v4.bin"),
        *_ANY,
        "--at",
        "2025-06-20T00:00:00Z",
        "-o",
        "json",
    ]
    collateral = ["--collateral", str(_DATA / "tdx-v4-collateral.json")]
    assert main([*verify, *collateral]) == 0
    assert json.loads(capsys.readouterr().out)["tcb_status"] == "UpToDate"
    assert main(verify) == WORDS["collateral"]
    assert main([*verify, *collateral, "--event-log", str(_DATA / "ccel.bin")]) == WORDS["event-log"]


def test_show_says_that_nothing_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """The fields are those of the file."""
    assert main(["attest", "show", _REPORT, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verified"], shown["version"], shown["signing_key"]) == ("no", 2, "VCEK")


@pytest.mark.parametrize("name", ["README.md", "missing"])
def test_a_file_that_is_no_evidence_is_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 2."""
    assert main(["attest", "show", str(_DATA / name)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_large_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole file is never read."""
    large = tmp_path / "large"
    large.write_bytes(b"")
    with large.open("r+b") as file:
        file.truncate(1 << 40)
    assert main(["attest", "show", str(large)]) == 2
    assert "more than" in capsys.readouterr().err


def test_without_cryptography_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library is optional."""
    for name in [name for name in sys.modules if name.startswith("ringfence.attest.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main([*_VERIFY, *_THEN, *_ANY]) == 1
    assert "ringfence[attest]" in capsys.readouterr().err


def test_verification_refuses_an_old_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of Debian 12 lacks what the verifier calls."""
    monkeypatch.setattr("cryptography.__version__", "38.0.4")
    assert main([*_VERIFY, *_THEN, *_ANY]) == 1
    assert "42 or newer; 38.0.4 is installed" in capsys.readouterr().err


def test_the_documentation_has_each_word_with_its_exit_code() -> None:
    """docs/reference/attestation.md, the table of words."""
    page = (_ROOT / "docs/reference/attestation.md").read_text()
    table = {word: int(code) for word, code in re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", page, re.M)}
    assert table == WORDS
