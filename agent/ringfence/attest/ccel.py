# SPDX-License-Identifier: Apache-2.0
"""Replays the event log of a TDX guest (ACPI table CCEL) into its run-time registers.

The format is that of the TCG "PC Client Platform Firmware Profile", section 10 (crypto agile log).
Digests are replayed; whether an event's text fits its digest is not checked.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from ringfence.attest.refusal import malformed

__all__ = ["replay"]

_SHA384 = 0x000C  # TPM_ALG_SHA384
_NO_ACTION = 3  # EV_NO_ACTION: recorded, never extended
_SPEC = b"Spec ID Event03\0"
_SIZES = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
_REGISTERS = 4
_END = (b"\xff" * 4, b"\0" * 4)  # the table's unused rest


def replay(log: bytes) -> tuple[bytes, ...]:
    """Returns RTMR 0 to 3 after all events. Raises RefusedError (malformed)."""
    registers = [bytes(48)] * _REGISTERS
    at = _first(log)
    while at < len(log):
        if log[at : at + 4] in _END and not log[at:].strip(log[at : at + 1]):
            break
        index, kind, digest, at = _event(log, at)
        if kind == _NO_ACTION:
            continue
        if not 1 <= index <= _REGISTERS or not digest:  # 0 is MRTD, which events do not extend
            raise malformed(f"event log: an event of register {index}, without a SHA-384 or unknown")
        registers[index - 1] = hashlib.sha384(registers[index - 1] + digest).digest()
    return tuple(registers)


def _first(log: bytes) -> int:
    """Returns the end of the first event, which has the old format and names the format of the rest."""
    _, kind, size = _unpack("<II20xI", log, 0)
    if kind != _NO_ACTION or log[32:48] != _SPEC:
        raise malformed("event log: no Spec ID event at its start")
    return 32 + int(size)


def _event(log: bytes, at: int) -> tuple[int, int, bytes, int]:
    """Returns the register, the type, the SHA-384 digest (or b"") and the end of an event."""
    index, kind, count = _unpack("<III", log, at)
    at += 12
    if count > len(_SIZES):
        raise malformed(f"event log: {count} digests in one event")
    digest = b""
    for _ in range(count):
        (algorithm,) = _unpack("<H", log, at)
        size = _SIZES.get(algorithm, 0)
        if not size:
            raise malformed(f"event log: digest algorithm {algorithm:#x} is unknown")
        (value,) = _unpack(f"{size}s", log, at + 2)
        digest = value if algorithm == _SHA384 else digest
        at += 2 + size
    (size,) = _unpack("<I", log, at)
    end = at + 4 + size
    if end > len(log):
        raise malformed("event log: truncated")
    return index, kind, digest, end


def _unpack(form: str, log: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, log, at)
    except struct.error:
        raise malformed("event log: truncated") from None
