# SPDX-License-Identifier: Apache-2.0
"""Writing in a prepared root filesystem against writing in a directory of the host, on one filesystem."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ringfence_runtime.images import ImageStore, Options, Platform, import_image, open_rootfs, prepare_rootfs
from tests.runtime.images.layouts import Layout, directory, file, layer
from tools.bench.record import Bar, Measurement, Row, row

LEAST_PERCENT = 97.0
MIB = 1 << 20
SMALL = 4096
BLOCK = os.urandom(MIB)
Write = Callable[[int], None]


@contextlib.contextmanager
def places() -> Iterator[tuple[int, int]]:
    """Descriptors of a directory of the host and of one in a container, both on /var/tmp's filesystem."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ringfence-bench-") as base:
        layout = Layout(Path(base) / "layout")
        layout.add(
            layout.image(layer(directory(b"./"), directory(b"data"), file(b"data/x")), architecture="amd64")
        )
        store = ImageStore(f"{base}/store")
        import_image(store, str(layout.path), Options(name="bench", platform=Platform("linux", "amd64")))
        root = open_rootfs(prepare_rootfs(store, "bench", "bench"))
        os.mkdir(f"{base}/data")
        host = os.open(f"{base}/data", os.O_RDONLY | os.O_DIRECTORY)
        inside = os.open("data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
        try:
            yield host, inside
        finally:
            for fd in (inside, host, root):
                os.close(fd)


def rewrite(size: int, block: int, *, sync: bool = False) -> Write:
    """Write a file of `size` again, in place: the page cache's speed, without the allocator's moods."""

    def run(place: int) -> None:
        fd = os.open("rewritten", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=place)
        data = memoryview(BLOCK)[:block]
        for _ in range(size // block):
            os.write(fd, data)
        if sync:
            os.fsync(fd)
        os.close(fd)

    return run


def fresh(size: int) -> Write:
    """Write a new file and remove it."""

    def run(place: int) -> None:
        fd = os.open("fresh", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
        for _ in range(size // MIB):
            os.write(fd, BLOCK)
        os.close(fd)
        os.unlink("fresh", dir_fd=place)

    return run


def small_files(count: int) -> Write:
    """Make files of 1 KiB and remove them."""

    def run(place: int) -> None:
        for number in range(count):
            fd = os.open(f"small{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
            os.write(fd, BLOCK[:1024])
            os.close(fd)
        for number in range(count):
            os.unlink(f"small{number}", dir_fd=place)

    return run


def compare(run: Write, host: int, inside: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds on the host and in the container, in turns, the first of a round changing."""
    times: dict[int, list[float]] = {host: [], inside: []}
    for place in (host, inside):
        run(place)
    for number in range(rounds):
        for place in (host, inside) if number % 2 else (inside, host):
            started = time.perf_counter()
            run(place)
            times[place].append(time.perf_counter() - started)
    return times[host], times[inside]


def measure(*, quick: bool) -> Measurement:
    """The minimum of each place decides; the median of the pairs' ratios is noted beside it."""
    rounds, size = (7, 32 * MIB) if quick else (41, 64 * MIB)
    cases: list[tuple[str, Write, float, str, bool]] = [
        ("rewrite, 1 MiB blocks", rewrite(size, MIB), size / MIB, "MiB/s", True),
        ("rewrite, 4 KiB blocks", rewrite(size // 4, SMALL), size / 4 / MIB, "MiB/s", False),
        ("rewrite, 64 KiB blocks", rewrite(size, 64 << 10), size / MIB, "MiB/s", True),
        ("new file, 1 MiB blocks", fresh(size), size / MIB, "MiB/s", True),
        ("rewrite, 1 MiB blocks, fsync", rewrite(size // 4, MIB, sync=True), size / 4 / MIB, "MiB/s", False),
        ("1 KiB files made and removed", small_files(200), 200, "1/s", False),
    ]
    rows: list[Row] = []
    bars: list[Bar] = []
    notes: list[str] = []
    with places() as (host, inside):
        for name, run, amount, unit, bar in cases:
            times = compare(run, host, inside, rounds)
            for place, seconds in zip(("host", "container"), times, strict=True):
                speeds = [amount / one for one in seconds]
                rows.append(row(f"{name}: {place}", speeds, unit, best=False)._replace(value=max(speeds)))
            percent = 100 * min(times[0]) / min(times[1])
            pairs = statistics.median(one / two for one, two in zip(*times, strict=True))
            notes.append(f"{name}: {percent:.1f} % of the host's best, median of pairs {100 * pairs:.1f} %")
            if " 4 KiB" in name:
                extra = (min(times[1]) - min(times[0])) / (size / 4 / SMALL) * 1e9
                notes.append(f"{name}: overlayfs adds {extra:.0f} ns to a write(2), under any runtime")
            if bar:
                bars.append(Bar(f"{name}, of the host's", percent, LEAST_PERCENT, "%", least=True))
    notes.append("no bar: 4 KiB into the page cache (no disk is as fast), fsync, small files (journal)")
    method = f"{rounds} rounds in turns, buffered, best of each; upper directory and host's on one filesystem"
    return Measurement("overlay", method, rows, bars, notes)
