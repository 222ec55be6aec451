# SPDX-License-Identifier: Apache-2.0
"""Unpacking an image: ours against umoci, the same layout, in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.runtime.images.layouts import Layout, directory, file, layer, symlink
from tools.bench.record import Bar, Measurement, row

SMALL_FILES, LARGE_FILES = 6000, 12
MOST_RATIO = 1.0


def make_layout(path: Path, count: int) -> Layout:
    """Two layers as an image of a language has them: thousands of small files, and a few large ones."""
    text = (b"def function(argument):\n    return argument + 1\n" * 200)[:6000]
    binary = os.urandom(1 << 20) + bytes(1 << 20) + Path(sys.executable).read_bytes()[: 2 << 20]
    entries: list[bytes] = [directory(b"./"), directory(b"lib")]
    for number in range(count):
        if number % 50 == 0:
            entries.append(directory(b"lib/d%d" % (number // 50)))
        entries.append(file(b"lib/d%d/f%d.py" % (number // 50, number), text[: 500 + number % 5500]))
    entries += [symlink(b"lib/s%d" % number, b"d0/f0.py") for number in range(200)]
    large = [file(b"bin%d" % number, binary, mode=0o755) for number in range(LARGE_FILES)]
    layout = Layout(path)
    return layout.add(layout.image(layer(*entries), layer(*large)), "latest")


def timed(argv: list[str], clean: Callable[[], None]) -> float:
    """Seconds of one run; what it made is removed outside the time, and dirty pages are flushed before it."""
    os.sync()
    started = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    took = time.perf_counter() - started
    clean()
    return took


def measure(*, quick: bool) -> Measurement:
    """Whole commands: interpreter start included. Ours with and without the flush that umoci does not do.
    `raw unpack`, since `unpack` also writes a manifest of all files."""
    rounds, count = (3, 1000) if quick else (9, SMALL_FILES)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ringfence-bench-") as base:
        layout = make_layout(Path(base) / "layout", count)
        store, bundle = f"{base}/store", f"{base}/bundle"
        ours = [
            sys.executable,
            "-m",
            "ringfence_runtime.images",
            "--image-root",
            store,
            "import",
            str(layout.path),
        ]
        argvs = {
            "ringfence image import": ours,
            "ringfence image import --no-flush": [*ours, "--no-flush"],
            "umoci raw unpack": ["umoci", "raw", "unpack", "--image", f"{layout.path}:latest", bundle],
        }
        samples: dict[str, list[float]] = {name: [] for name in argvs}
        for number in range(rounds):
            order = [*argvs.items()]
            for name, argv in order[number % 3 :] + order[: number % 3]:
                clean = bundle if name.startswith("umoci") else store
                samples[name].append(timed(argv, lambda clean=clean: shutil.rmtree(clean)))  # type: ignore[misc]
    rows = [row(name, seconds, "s") for name, seconds in samples.items()]
    ratio = rows[1].value / rows[2].value
    return Measurement(
        "unpack",
        f"{count} files of 0.5 to 6 kB, {LARGE_FILES} of 4 MiB, two gzip layers; {rounds} rounds, best",
        rows,
        [Bar("ringfence / umoci, both unflushed", ratio, MOST_RATIO, "x")],
        [f"with the flush: {rows[0].value / rows[2].value:.2f} x of umoci, which leaves it to the kernel"],
    )
