# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.image`: the command line of the image builder."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from tools.image.layout import archive, write_layout
from tools.image.rootfs import ImageError, assemble, python_packages
from tools.packaging import ARCHITECTURES, machine_of

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Builds the root filesystem, and unless `--rootfs-only` the layout and its archive."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.image", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build/image")
    parser.add_argument("--wheel", type=Path, help="default: the newest of dist/ (make wheel)")
    parser.add_argument("--reference", default="ringfence:dev", help="name of the image")
    parser.add_argument("--with-bcc", action="store_true", help="for custom probes: bcc, LLVM, bpftool")
    parser.add_argument("--rootfs-only", action="store_true", help="what the Dockerfile needs")
    options = parser.parse_args()
    try:
        print(json.dumps(build(options), indent=1))
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


def build(options: argparse.Namespace) -> dict[str, object]:
    """What was made, with its sizes in bytes."""
    output: Path = options.output.resolve()
    wheel = options.wheel or max(
        (ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime, default=None
    )
    if wheel is None:
        raise ImageError("no wheel in dist/: make wheel")
    output.mkdir(parents=True, exist_ok=True)
    for name in ("rootfs", "layout"):
        shutil.rmtree(output / name, ignore_errors=True)
    packages = assemble(output / "rootfs", wheel.resolve(), output / "packages", bcc=options.with_bcc)
    size = sum(path.lstat().st_size for path in (output / "rootfs").rglob("*") if not path.is_dir())
    report: dict[str, object] = {
        "reference": options.reference,
        "unpacked": size,
        "packages": packages,
        "python": python_packages(output / "rootfs"),
    }
    if not options.rootfs_only:
        version = wheel.name.split("-")[1]
        labels = {
            "org.opencontainers.image.title": "ringfence",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
        }
        architecture = ARCHITECTURES[machine_of(wheel)]
        report |= write_layout(output / "rootfs", output / "layout", options.reference, labels, architecture)
        archive(output / "layout", output / "image.tar")
    (output / "report.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    sys.exit(main())
