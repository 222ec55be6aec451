# SPDX-License-Identifier: Apache-2.0
"""Runtimes with state on disk: runc, crun, containerd's task bundles.

A state directory below /run/user belongs to an unprivileged user, who can write anything there: it is only
trusted for cgroups below that user's slice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringfence.containers.enrich import safejson
from ringfence.containers.enrich.inspect import inspect_bundle
from ringfence.containers.enrich.oci import facts_of_config
from ringfence.containers.enrich.request import Request
from ringfence.containers.model import Facts

__all__ = ["ContainerdBundles", "CrunState", "RuncState", "safe_name"]

RUNC_ROOTS = (
    Path("/run/runc"), Path("/run/containerd/runc/k8s.io"), Path("/run/containerd/runc/default"),
    Path("/run/containerd/runc/moby"), Path("/run/docker/runtime-runc/moby"),
)  # fmt: skip
CRUN_ROOTS = (Path("/run/crun"),)
CONTAINERD_TASKS = (Path("/run/containerd/io.containerd.runtime.v2.task"),)
USERS = Path("/run/user")
_NAME = re.compile(r"[\w+.-]{1,255}", re.ASCII)


def safe_name(identifier: str) -> bool:
    """Returns True if the id is a plain directory name (runc's check of ids)."""
    return bool(_NAME.fullmatch(identifier)) and identifier not in (".", "..")


def _user_roots(users: Path, name: str, cgroup_path: str) -> Iterator[Path]:
    """Yields the state directory of the user who owns the cgroup's slice."""
    if found := re.search(r"/user-(\d+)\.slice/", cgroup_path):
        yield users / found[1] / name


def _config_beside(bundle: str) -> Any:
    """Reads config.json of a bundle; None if there is none."""
    if not bundle.startswith("/"):
        return None
    try:
        return safejson.read(Path(bundle, "config.json"))
    except FileNotFoundError:
        return None


def _facts(config: Any, bundle: str, *, source: str, runtime: str = "") -> Facts:
    """Returns the facts in a bundle, with its suspicious parts."""
    facts = facts_of_config(config, source=source, runtime=runtime)
    return replace(facts, suspicions=inspect_bundle(config, bundle))


class RuncState:
    """runc's state.json: <root>/<id>/state.json, with a label `bundle=<path>`."""

    name = "runc"

    def __init__(self, roots: Iterable[Path] = (), users: Path = USERS) -> None:
        self._roots = (*roots, *RUNC_ROOTS)
        self._users = users

    def find(self, request: Request) -> Facts | None:
        if not safe_name(request.id):
            return None
        for root in (*self._roots, *_user_roots(self._users, "runc", request.cgroup_path)):
            try:
                state = safejson.read(root / request.id / "state.json", follow=False)
            except FileNotFoundError:
                continue
            return self._facts(request, state)
        return None

    def _facts(self, request: Request, state: Any) -> Facts | None:
        recorded = safejson.text(state, "config", "cgroups", "path")
        if recorded and request.cgroup_path and not _same_cgroup(recorded, request.cgroup_path):
            return None  # another container with the same id
        labels = [label for label in safejson.children(state, "config", "labels") if isinstance(label, str)]
        bundle = next((label[7:] for label in labels if label.startswith("bundle=")), "")
        facts = _facts(_config_beside(bundle) or _as_config(state), bundle, source=self.name)
        pid = safejson.integer(state, "init_process_pid") or 0
        return replace(facts, pid=pid)


class CrunState:
    """crun's status: <root>/<id>/status with a copy of config.json."""

    name = "crun"

    def __init__(self, roots: Iterable[Path] = (), users: Path = USERS) -> None:
        self._roots = (*roots, *CRUN_ROOTS)
        self._users = users

    def find(self, request: Request) -> Facts | None:
        if not safe_name(request.id):
            return None
        for root in (*self._roots, *_user_roots(self._users, "crun", request.cgroup_path)):
            try:
                status = safejson.read(root / request.id / "status", follow=False)
            except FileNotFoundError:
                continue
            recorded = safejson.text(status, "cgroup-path")
            if recorded and request.cgroup_path and not _same_cgroup(recorded, request.cgroup_path):
                return None
            bundle = safejson.text(status, "bundle")
            config = _config_beside(str(root / request.id)) or _config_beside(bundle)
            facts = _facts(config, bundle, source=self.name)
            return replace(facts, pid=safejson.integer(status, "pid") or 0)
        return None


class ContainerdBundles:
    """containerd's task bundles: <root>/<namespace>/<id>/config.json and init.pid; no gRPC."""

    name = "containerd"

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        self._roots = (*roots, *CONTAINERD_TASKS)

    def find(self, request: Request) -> Facts | None:
        if not safe_name(request.id):
            return None
        for root in self._roots:
            for namespace in _directories(root):
                bundle = root / namespace / request.id
                try:
                    config = safejson.read(bundle / "config.json")
                except FileNotFoundError:
                    continue
                runtime = "docker" if namespace == "moby" else "containerd"
                facts = _facts(config, str(bundle), source=self.name, runtime=runtime)
                return replace(facts, pid=_pid(bundle))
        return None


def _directories(root: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if not name.startswith("."))[:64]
    except OSError:
        return []


def _pid(bundle: Path) -> int:
    try:
        content = safejson.read_text(bundle / "init.pid", size_max=32).strip()
    except (FileNotFoundError, safejson.Unusable):
        return 0
    return int(content) if content.isascii() and content.isdigit() else 0


def _same_cgroup(recorded: str, path: str) -> bool:
    """Returns True if `path` is the recorded cgroup. Its recorded path may be relative to another root."""
    return path.endswith("/" + recorded.strip("/")) or recorded.rpartition("/")[2] == path.rpartition("/")[2]


def _as_config(state: Any) -> Any:
    """Converts runc's state.json to the form of config.json, for a bundle that was removed."""
    config = state.get("config") if isinstance(state, dict) else None
    held = config.get("capabilities") if isinstance(config, dict) else None
    names = {"NEWNET": "network", "NEWNS": "mount"}
    return {
        "process": {
            "capabilities": {key.lower(): safejson.children(held, key) for key in ("Effective", "Bounding")},
            "noNewPrivileges": bool(config.get("no_new_privileges")) if isinstance(config, dict) else False,
            "apparmorProfile": safejson.text(config, "apparmor_profile"),
        },
        "mounts": [
            {
                "source": safejson.text(mount, "source"),
                "destination": safejson.text(mount, "destination"),
                "type": safejson.text(mount, "device"),
                # MS_RDONLY is bit 0
                "options": ["ro"] if (safejson.integer(mount, "flags") or 0) & 1 else [],
            }
            for mount in safejson.children(config, "mounts")
        ],
        "linux": {
            "seccomp": config.get("seccomp") if isinstance(config, dict) else None,
            "namespaces": [
                {"type": names.get(kind, kind.removeprefix("NEW").lower())}
                for entry in safejson.children(config, "namespaces")
                if (kind := safejson.text(entry, "type"))
            ],
        },
    }
