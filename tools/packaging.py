# SPDX-License-Identifier: Apache-2.0
"""What the image and the Debian package have in common: commands, names of architectures."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ARCHITECTURES", "launchers"]

#: by uname -m, which is the word in a wheel's tag too: the name that Debian and OCI use
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: command -> module of its `main`
_COMMANDS = {"ringfence": "ringfence.cli.main", "ringfence-runtime": "ringfence_runtime.cli"}
_HEAD = "#!/usr/bin/python3 -I\nimport sys\n\n"


def launchers(library: str = "") -> Iterator[tuple[str, str]]:
    """Yields each command and its script. `library`: where its packages are, if not in Python's own path."""
    found = f'sys.path.insert(0, "{library}")\n' if library else ""
    for name, module in _COMMANDS.items():
        yield name, f"{_HEAD}{found}from {module} import main\n\nsys.exit(main())\n"
