# SPDX-License-Identifier: Apache-2.0
"""Files beside a custom probe that are none: looking at them holds up and costs nothing."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

from ringfence.daemon.probes import manager as probes
from ringfence.probes.read import read_file
from tests.unit.probes.documents import write


def test_a_fifo_in_place_of_a_header_does_not_block(tmp_path: Path) -> None:
    """A process that opens a FIFO for reading waits for a writer: no probe would be loaded any more."""
    definition = read_file(write(tmp_path))
    os.mkfifo(tmp_path / "common.h")
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(probes._fingerprint(definition)), daemon=True)
    thread.start()
    thread.join(5)
    assert found


def test_a_header_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    """A link to an image of a disk, say; the probe is compiled, and clang says what it thinks of
    it.
    """
    definition = read_file(write(tmp_path))
    before = probes._fingerprint(definition)
    (tmp_path / "common.h").touch()
    os.truncate(tmp_path / "common.h", 1 << 30)
    tracemalloc.start()
    try:
        assert probes._fingerprint(definition) != before
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
