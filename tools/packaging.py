# SPDX-License-Identifier: Apache-2.0
"""What the image, the Debian package and a release have in common."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ARCHITECTURES", "launchers", "machine_of", "pip_platform", "source_date"]

ROOT = Path(__file__).resolve().parents[1]
#: by uname -m, which is the word in a wheel's tag too: the name that Debian and OCI use
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: command -> module of its `main`
_COMMANDS = {"ringfence": "ringfence.cli.main", "ringfence-runtime": "ringfence_runtime.cli"}
_HEAD = "#!/usr/bin/python3 -I\nimport sys\n\n"
#: a package that is there by half, as dpkg leaves it if it is interrupted or forced
_PACKAGED = """\
sys.path.insert(0, "{library}")
try:
    from {module} import main

    sys.exit(main())
except ImportError as error:
    print("{name}: error: the package is not whole:", error, file=sys.stderr)
    print("hint: apt-get install --fix-broken, or install the package again", file=sys.stderr)
    sys.exit(1)
"""


def launchers(library: str = "") -> Iterator[tuple[str, str]]:
    """Yields each command and its script. `library`: where its packages are, if not in Python's own path."""
    for name, module in _COMMANDS.items():
        plain = f"from {module} import main\n\nsys.exit(main())\n"
        packaged = _PACKAGED.format(library=library, module=module, name=name)
        yield name, _HEAD + (packaged if library else plain)


def machine_of(wheel: Path) -> str:
    """Returns the machine (uname -m) in the tag of a wheel."""
    return wheel.stem.rpartition("-linux_")[2]


def pip_platform(machine: str) -> list[str]:
    """Returns the options with which pip takes packages of a machine that is not this one."""
    if machine == platform.machine():
        return []
    tags = (f"linux_{machine}", *(f"manylinux{version}_{machine}" for version in ("2014", "_2_28")))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--python-version", version, "--implementation", "cp"]
    return options + [word for tag in tags for word in ("--platform", tag)]


def source_date() -> int:
    """Returns the date of every file: SOURCE_DATE_EPOCH, else that of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
