# SPDX-License-Identifier: Apache-2.0
"""Finds signs of attacks on runtimes, hooks and engines in a container's bundle.

Such escapes happen on the host before the container executes an instruction, so no rule on its calls can
match them. config.json is read, and a few names of the root filesystem, without following links.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.containers.enrich import safejson
from ringfence.containers.model import Suspicion

__all__ = ["inspect_bundle", "inspect_config", "inspect_root"]

# Where a runtime mounts, binds or creates nodes: a link there redirects its writes.
_LINKS = ("dev", "proc", "sys", "dev/null", "dev/console", "dev/pts", "dev/ptmx", "dev/shm", "dev/mqueue")
# The sysctls of a container's IPC, network and UTS namespaces.
_OWN_SYSCTL = re.compile(r"(net|fs/mqueue)/.+|kernel/(shm\w*|msg\w*|sem|hostname|domainname)")
_LOADER = ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SHELL = re.compile(r"\$\(|`")
_WRITTEN_BY_ENGINES = ("io.kubernetes.", "kubectl.kubernetes.io/")  # whole manifests, with commands in them
_CLIMBS = re.compile(r"(^|/)\.\.(/|$)")


def inspect_bundle(config: Any, bundle: str) -> tuple[Suspicion, ...]:
    """Returns all suspicions. A relative root is resolved against the directory `bundle`."""
    found = list(inspect_config(config))
    root = safejson.text(config, "root", "path")
    if root:
        found += inspect_root(Path(bundle, root))
    return tuple(dict.fromkeys(found))


def inspect_root(root: Path) -> Iterator[Suspicion]:
    """Yields links in an image where a runtime expects directories and devices."""
    for name in _LINKS:
        try:
            # A link in a parent directory was already found: the list is in that order.
            if stat.S_ISLNK(os.lstat(root / name).st_mode):
                yield Suspicion("image-link", f"/{name} -> {os.readlink(root / name)}"[:256])
                if name in ("dev", "proc", "sys"):
                    return
        except OSError:
            continue


def inspect_config(config: Any) -> Iterator[Suspicion]:
    """Yields illegitimate settings in config.json."""
    linux = config.get("linux") if isinstance(config, dict) else None
    yield from _sysctls(linux)
    yield from _loader(config)
    yield from _texts(config)


def _sysctls(linux: Any) -> Iterator[Suspicion]:
    sysctls = linux.get("sysctl") if isinstance(linux, dict) else None
    for name, value in list(sysctls.items())[:256] if isinstance(sysctls, dict) else ():
        path = str(name).replace(".", "/") if "/" not in str(name) else str(name)
        # CVE-2022-0811: `+` in a value added a second sysctl, past the allowlist.
        if not _OWN_SYSCTL.fullmatch(path) or re.search(r"\+\w+[./]", str(value)):
            yield Suspicion("spec-sysctl", f"{name}={value}"[:256])


def _loader(config: Any) -> Iterator[Suspicion]:
    """CVE-2025-23266: a host hook that inherits the image's loader variables executes the image's code."""
    hooks = any(safejson.children(config, "hooks", kind) for kind in _HOOKS)
    for entry in safejson.children(config, "process", "env"):
        name, _, value = str(entry).partition("=")
        if name in _LOADER and (value.startswith("/proc/") or (hooks and name != "LD_LIBRARY_PATH")):
            yield Suspicion("spec-loader", str(entry)[:256])


def _texts(config: Any) -> Iterator[Suspicion]:
    """CVE-2022-23648 and similar ones: text of an image's author is used as a path or a command."""
    for mount in safejson.children(config, "mounts"):
        for key in ("source", "destination"):
            text = safejson.text(mount, key)
            if _CLIMBS.search(text) or _CONTROL.search(text):
                yield Suspicion("spec-text", f"mount {key}: {text}"[:256])
    for key, value in safejson.labels(config, "annotations").items():
        command = _SHELL.search(value) and not key.startswith(_WRITTEN_BY_ENGINES)
        if command or _CONTROL.search(key + value):
            yield Suspicion("spec-text", f"annotation {key}: {value}"[:256])
