# SPDX-License-Identifier: Apache-2.0
"""The words with which evidence is refused, and the exit code of each (docs/reference/attestation.md)."""

from __future__ import annotations

from ringfence.errors import Error

__all__ = ["WORDS", "RefusedError", "malformed"]

# word -> exit code; codes from 10 are of this command alone
WORDS = {
    "malformed": 2,
    "signature": 10,
    "unknown-root": 11,
    "chain": 12,
    "expired": 13,
    "not-yet-valid": 14,
    "revoked": 15,
    "outdated-tcb": 16,
    "debug": 17,
    "report-data": 18,
    "measurement": 19,
    "vmpl": 20,
    "tcb-mismatch": 21,
    "chip-id": 22,
    "product": 23,
    "collateral": 24,
    "qe-identity": 25,
    "event-log": 26,
    "tcb-configuration": 27,
}


class RefusedError(Error):
    """Evidence that is not accepted. `word` is one of WORDS and decides the exit code."""

    def __init__(self, word: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{word}: {message}", hint=hint)
        self.word = word
        self.exit_code = WORDS[word]


def malformed(message: str) -> RefusedError:
    """Returns the error for input that cannot be parsed."""
    return RefusedError("malformed", message)
