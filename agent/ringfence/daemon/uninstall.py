# SPDX-License-Identifier: Apache-2.0
"""Remove everything of ours from the node: pins, our own bpffs, socket and lock."""

from __future__ import annotations

import contextlib
import os
import shutil

from ringfence.bpf import pins
from ringfence.config import Config
from ringfence.daemon import handover
from ringfence.daemon.lock import Lock
from ringfence.errors import Error, NotPermittedError
from ringfence.policy import rulebook

__all__ = ["uninstall"]


def uninstall(config: Config) -> list[str]:
    """Do it, and say what was done. Raises AlreadyRunningError while an agent runs."""
    if os.geteuid() != 0:
        raise NotPermittedError("removing pins needs root", hint="use sudo")
    lock = Lock(config.state_dir)
    try:
        try:
            agents = pins.uninstall(pins.candidates("auto" if config.pins == "off" else config.pins))
        except OSError as error:
            raise Error(f"pins could not be removed: {error}") from error
        for path in (config.socket, config.state_dir / handover.FILE):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with contextlib.suppress(FileNotFoundError):
            (config.state_dir / rulebook.FILE).unlink()
    finally:
        lock.close(remove=True)
    shutil.rmtree(config.state_dir / "probes", ignore_errors=True)  # header trees of custom probes
    with contextlib.suppress(OSError):  # only when it is empty
        config.state_dir.rmdir()
    return [
        f"pins of {agents} agents removed" if agents else "nothing was pinned",
        "socket and lock file removed",
    ]
