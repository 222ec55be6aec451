# SPDX-License-Identifier: Apache-2.0
"""From an image's configuration to the process that a container runs by default. Light."""

from __future__ import annotations

from ringfence_runtime.images.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["DEFAULT_PATH", "ProcessDefaults"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessDefaults:
    """What the image says; every text is the image's, so it is for the workload and for nobody on the host.

    `user` is unresolved (`users.resolve_user` does it, below the mounted root filesystem); `volumes` are
    absolute paths in the container; `labels` and `ports` are information.
    """

    __slots__ = ("cmd", "cwd", "entrypoint", "env", "labels", "ports", "stop_signal", "user", "volumes")

    def __init__(self, data: dict[str, Any]) -> None:
        self.entrypoint: list[str] = data["entrypoint"]
        self.cmd: list[str] = data["cmd"]
        self.env: list[str] = data["env"]
        self.user: str = data["user"]
        self.cwd: str = data["cwd"] or "/"
        self.volumes: list[str] = data["volumes"]
        self.ports: list[str] = data["ports"]
        self.labels: dict[str, str] = data["labels"]
        self.stop_signal: str = data["stopSignal"] or "SIGTERM"

    def args(self, command: Sequence[str] = (), *, entrypoint: Sequence[str] | None = None) -> list[str]:
        """The argument vector, as Docker puts it together: a caller's entrypoint drops the image's cmd."""
        if entrypoint is not None:
            args = [*entrypoint, *command]
        else:
            args = [*self.entrypoint, *(command or self.cmd)]
        if not args:
            raise ImageError("the image names no command", hint="give one after the image's name")
        return args

    def environment(self, extra: Sequence[str] = (), *, home: str = "") -> list[str]:
        """NAME=VALUE, each name once: ours, then the image's over it, then the caller's over both."""
        merged = {"PATH": f"PATH={DEFAULT_PATH}"}
        for item in (*self.env, *extra):
            merged[item.partition("=")[0]] = item
        if home:
            merged.setdefault("HOME", f"HOME={home}")
        return list(merged.values())
