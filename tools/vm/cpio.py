# SPDX-License-Identifier: Apache-2.0
"""Archives in the `newc` form, which the kernel unpacks as an initrd (its buffer-format.rst)."""

from __future__ import annotations

__all__ = ["Archive"]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


class Archive:
    """Entries are added in order; several archives may follow each other in one initrd."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, name: str, mode: int, data: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        """Add one entry; `mode` is st_mode, `device` the numbers of a device node."""
        number = len(self._parts) + 1
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._parts.append(_padded(header + path) + _padded(data))

    def finish(self) -> bytes:
        """The archive with its end mark."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)
