# SPDX-License-Identifier: Apache-2.0
"""`ringfence attest`: shows and verifies evidence of confidential machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ringfence.cli.output import print_document
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output
from ringfence.errors import ConfigError, Error

if TYPE_CHECKING:
    from ringfence.attest.expected import Verdict

_T = TypeVar("_T")
_EXAMPLE = (
    "ringfence attest verify report.bin --certs all.pem \\\n"
    "    --nonce 8f0c1d2e3f --policy-digest 5ad0c3f19b27e846"
)
_STATUSES = (  # all but UpToDate, which is accepted, and Revoked, which never is
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
_MOST = 1 << 20  # bytes of one file
_CRYPTOGRAPHY = 42  # the first version with `not_valid_before_utc`
_INSTALL = "pip install 'ringfence[attest]', or on Debian 13: apt install python3-cryptography"


def register(commands: Commands) -> None:
    """Adds the command and its subcommands."""
    parser = add_command(
        commands,
        "attest",
        run,
        text="Show or verify the evidence of a confidential machine: an AMD SEV-SNP attestation report\n"
        "(version 2 or later), or an Intel TDX quote (version 4 or 5). Refused evidence has exit\n"
        "codes from 10, one for each reason (docs/reference/attestation.md).",
        examples=f"ringfence attest show report.bin\n{_EXAMPLE}",
    )
    subcommands = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", required=True, parser_class=Parser
    )
    _register_show(subcommands)
    _register_verify(subcommands)


def _register_show(commands: Commands) -> None:
    parser = add_command(
        commands,
        "show",
        _show,
        help="show the fields of a file of evidence, unverified",
        text="Show the fields of evidence. Nothing is verified: any machine can make such a file.",
        examples="ringfence attest show report.bin\nringfence attest show report.bin -o json",
    )
    _add_file(parser)


def _register_verify(commands: Commands) -> None:
    parser = add_command(
        commands,
        "verify",
        _verify,
        help="verify evidence against a pinned root, at a stated time",
        text="Verify the chain to a pinned root key, the signature, and that the evidence carries the\n"
        "expected report data. What was not checked is listed. Exit codes from 10:\n"
        "docs/reference/attestation.md.",
        examples=f"{_EXAMPLE}\n"
        "ringfence attest verify report.bin --certs all.pem \\\n"
        "    --report-data any --at 2025-06-01T00:00:00Z\n"
        "ringfence attest verify report.bin --certs all.pem \\\n"
        "    --report-data any --min-tcb snp=22,tee=0\n"
        "ringfence attest verify quote.bin --collateral collateral.json \\\n"
        "    --report-data any --event-log ccel",
    )
    _add_file(parser)
    _add_options(parser)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the evidence, as the device returned it")
    add_output(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    def add(name: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, **more)

    add(
        "--nonce", "HEX", "the verifier's nonce; with --policy-digest, the report data is computed", type=_hex
    )
    add("--policy-digest", "DIGEST", "the digest of the policy set (`ringfence status`)")
    add("--agent-digest", "HEX", "the digest of the agent, if the evidence binds one", type=_hex, default=b"")
    add("--node-key", "HEX", "the public key of the node, if the evidence binds one", type=_hex, default=b"")
    add("--report-data", "HEX", "the expected 64 bytes of report data; `any` accepts every value")
    add("--measurement", "HEX", "the expected launch measurement", type=_hex)
    add("--certs", "FILE", "SEV-SNP: certificates and revocation lists, PEM or DER (repeatable)", type=Path,
        action="append", default=[])  # fmt: skip
    add("--collateral", "FILE", "TDX: Intel's collateral, JSON (docs/reference/attestation.md)", type=Path)
    add("--event-log", "FILE", "TDX: the CCEL event log, which must replay into the RTMRs", type=Path)
    add("--accept-tcb", "STATUS", "TDX: a TCB status to accept beside UpToDate (repeatable)",
        action="append", default=[], choices=_STATUSES)  # fmt: skip
    add("--at", "TIME", "the time of verification, RFC 3339 (default: now)", type=_time)
    add("--min-tcb", "PARTS", "SEV-SNP: least TCB versions: bootloader, tee, snp, microcode, fmc", type=_tcb)
    add(
        "--vmpl",
        "LEVEL",
        "SEV-SNP: the expected VMPL, 0 to 3 (default: 0)",
        type=int,
        choices=range(4),
        default=0,
    )


def run(options: Any) -> int:
    """Runs the chosen subcommand."""
    raise AssertionError("a subcommand is required")


def _show(options: Any) -> int:
    from ringfence.attest.evidence import fields_of

    _print(fields_of(_read(options.file)), options.output)
    return 0


def _need_cryptography() -> None:
    """Raises Error unless the package is there, in a version that has what the verifier calls."""
    try:
        from cryptography import __version__
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "cryptography":
            raise
        raise Error("verification needs the Python package cryptography", hint=_INSTALL) from None
    if int(__version__.partition(".")[0]) < _CRYPTOGRAPHY:
        raise Error(
            f"verification needs cryptography {_CRYPTOGRAPHY} or newer; {__version__} is installed",
            hint=_INSTALL,
        )


def _verify(options: Any) -> int:
    expected_data = _report_data(options)
    _need_cryptography()
    from ringfence.attest.certificates import Bundle, load
    from ringfence.attest.evidence import verify
    from ringfence.attest.expected import Expected
    from ringfence.attest.refusal import RefusedError

    material = Bundle()
    for path in options.certs:
        material = material + load(_read(path))
    expected = Expected(
        expected_data, options.measurement, options.vmpl, options.min_tcb or {},
        frozenset(options.accept_tcb), options.event_log and _read(options.event_log),
    )  # fmt: skip
    collateral = options.collateral and _read(options.collateral)
    at, data = options.at or datetime.now(UTC), _read(options.file)
    try:
        verdict = verify(data, material, collateral, expected, at)
    except RefusedError as refusal:
        if options.output not in DOCUMENTS:
            raise
        said = {"verdict": "refused", "word": refusal.word, "message": refusal.message}
        print_document(said, options.output)
        return refusal.exit_code
    _print(_accepted(verdict, at), options.output)
    return 0


def _accepted(verdict: Verdict, at: datetime) -> dict[str, object]:
    return {
        "verdict": "accepted",
        "kind": verdict.kind,
        "at": at.isoformat(),
        "checked": list(verdict.checked),
        "not_checked": list(verdict.unchecked),
        **verdict.fields,
    }


def _report_data(options: Any) -> bytes | None:
    """Returns the expected report data; None for `any`. One way of the two must be given."""
    from ringfence.attest.expected import bound_data

    bound = options.nonce is not None and options.policy_digest is not None
    if bound == (options.report_data is not None) or (options.nonce is None) != (
        options.policy_digest is None
    ):
        raise ConfigError(
            "give either --nonce and --policy-digest, or --report-data",
            hint="--report-data any accepts evidence of any time and purpose",
        )
    if bound:
        return bound_data(options.nonce, options.policy_digest, options.agent_digest, options.node_key)
    if options.report_data == "any":
        return None
    try:
        data = bytes.fromhex(options.report_data)
    except ValueError:
        data = b""
    if len(data) != 64:
        raise ConfigError("--report-data: expected 128 hexadecimal digits or `any`")
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > _MOST:
        raise ConfigError(f"{path}: more than {_MOST} bytes")
    return data


def _print(fields: dict[str, object], output: str) -> None:
    if output in DOCUMENTS:
        print_document(fields, output)
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name.replace('_', ' '):{width}}  {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items())
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)


def _hex(text: str) -> bytes:
    return _argument(text, bytes.fromhex, "hexadecimal digits")


def _time(text: str) -> datetime:
    at = _argument(text, datetime.fromisoformat, "a time such as 2026-01-31T12:00:00Z")
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone (2026-01-31T12:00:00Z)")
    return at.astimezone(UTC)


def _tcb(text: str) -> dict[str, int]:
    def parse(text: str) -> dict[str, int]:
        pairs: Iterable[list[str]] = (part.split("=") for part in text.split(","))
        return {name: int(number) for name, number in pairs}

    return _argument(text, parse, "NAME=NUMBER,...")


def _argument(text: str, parse: Callable[[str], _T], what: str) -> _T:
    try:
        return parse(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
