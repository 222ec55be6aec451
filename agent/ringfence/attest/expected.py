# SPDX-License-Identifier: Apache-2.0
"""What a verifier expects of evidence, and the checks that both kinds of evidence share."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ringfence.attest.refusal import RefusedError

__all__ = ["Expected", "Verdict", "bound_data", "check_measurement", "check_report_data"]

_DOMAIN = b"ringfence-attest-v1"


@dataclass(frozen=True)
class Expected:
    """Values that evidence must have. None: any value is accepted, and the verdict says so."""

    report_data: bytes | None
    measurement: bytes | None = None
    vmpl: int = 0
    min_tcb: Mapping[str, int] = field(default_factory=dict)
    accept_tcb: frozenset[str] = frozenset()  # TDX: statuses that are accepted beside UpToDate
    event_log: bytes | None = None  # TDX: the log that must replay into the RTMRs


class Verdict(NamedTuple):
    """Accepted evidence: what was checked, what was not, and the fields that a verifier may use."""

    kind: str
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    fields: dict[str, object]


def bound_data(nonce: bytes, policy_digest: str, agent_digest: bytes = b"", node_key: bytes = b"") -> bytes:
    """Returns the report data that binds these values: SHA-512 over the domain and each value.

    Each value is preceded by its length in four bytes, big-endian, so that no two lists are alike.
    """
    whole = hashlib.sha512()
    for part in (_DOMAIN, nonce, policy_digest.encode("utf-8", "surrogateescape"), agent_digest, node_key):
        whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()


def check_report_data(data: bytes, expected: Expected) -> None:
    """Raises RefusedError unless the evidence carries the expected report data."""
    if expected.report_data is not None and not hmac.compare_digest(data, expected.report_data):
        raise RefusedError("report-data", "the evidence is for another nonce, policy digest or key")


def check_measurement(measurement: bytes, expected: Expected) -> None:
    """Raises RefusedError unless the evidence has the expected launch measurement."""
    if expected.measurement is not None and measurement != expected.measurement:
        raise RefusedError("measurement", f"the launch measurement is {measurement.hex()}")
