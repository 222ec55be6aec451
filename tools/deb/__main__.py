# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.deb`: builds dist/ringfence_VERSION_ARCHITECTURE.deb from the newest wheel of dist/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.deb.build import BuildError, build

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Prints the path of the package."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.deb", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="default: the newest of dist/ (make wheel)")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: dist/")
    options = parser.parse_args()
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    wheel = options.wheel or (wheels[-1] if wheels else None)
    try:
        if wheel is None:
            raise BuildError("no wheel in dist/: make wheel")
        print(build(wheel.resolve(), options.output.resolve()))
    except BuildError as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
