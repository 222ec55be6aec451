# SPDX-License-Identifier: Apache-2.0
"""How the running kernel was built: its configuration and its compiler."""

from __future__ import annotations

import gzip
import platform
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

__all__ = ["is_link_optimised", "parse", "read"]

_OPTION = re.compile(r"^CONFIG_(\w+)=(.*)$", re.M)


@cache
def read() -> Mapping[str, str]:
    """Returns the kernel's options without CONFIG_; empty: its configuration was not found."""
    for path in _places():
        try:
            data = path.read_bytes()
            return parse((gzip.decompress(data) if path.suffix == ".gz" else data).decode())
        except (OSError, EOFError, UnicodeDecodeError):
            continue
    return {}


def parse(text: str) -> dict[str, str]:
    """Returns the options of a configuration that are set, without CONFIG_."""
    return dict(_OPTION.findall(text))


def is_link_optimised(build: Mapping[str, str], version: str) -> bool:
    """Returns True if Clang may have inlined functions across files, so that programs there see no call.

    `version`: /proc/version. Without a configuration every kernel of Clang counts.
    """
    return build.get("LTO_CLANG") == "y" if build else "clang version" in version


def _places() -> Iterator[Path]:
    release = platform.release()
    yield Path("/proc/config.gz")
    for root in ("/", "/proc/1/root"):  # the second from a container in the host's pid namespace
        yield Path(root, f"boot/config-{release}")
        yield Path(root, f"usr/lib/modules/{release}/config")
