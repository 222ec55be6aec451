# SPDX-License-Identifier: Apache-2.0
"""Removes what agents left on this node: pins, a bpffs that one of them mounted, sockets and
state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ringfence.bpf import pins
from ringfence.config import Config
from ringfence.daemon.startup import handover
from ringfence.daemon.startup.lock import Lock
from ringfence.errors import Error, NotPermittedError
from ringfence.policy import rulebook

__all__ = ["uninstall"]


def uninstall(config: Config) -> list[str]:
    """Remove everything. Returns one line for each step that was done.

    Raises AlreadyRunningError while an agent runs, Error if something cannot be removed. A queue
    of alerts in a directory that the operator chose stays.
    """
    if os.geteuid() != 0:
        raise NotPermittedError("removing pins needs root", hint="use sudo")
    lock = Lock(config.state_dir)
    lock.sign()
    try:
        try:
            agents = pins.uninstall(pins.candidates("auto" if config.pins == "off" else config.pins))
        except OSError as error:
            raise Error(f"pins could not be removed: {error}") from error
        _remove_state(config)
    finally:
        lock.close(remove=True)
    with contextlib.suppress(OSError):  # only when it is empty
        config.state_dir.rmdir()
    done = [
        f"pins of {agents} agents removed" if agents else "nothing was pinned",
        "sockets and state removed",
    ]
    if config.alerts_queue_dir and config.alerts_queue_dir.exists():
        done.append(f"{config.alerts_queue_dir} was kept: alerts may wait in it")
    return done


def _remove_state(config: Config) -> None:
    try:
        for path in _files(config):
            path.unlink(missing_ok=True)
        for path in (config.enrolments_dir, config.workshop_dir, config.state_dir / "queue"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
    except OSError as error:
        raise Error(f"state could not be removed: {error}") from error


def _files(config: Config) -> Iterator[Path]:
    yield from (config.socket, config.enroll_socket)
    for name in (handover.FILE, rulebook.FILE):
        yield config.state_dir / name
        yield config.state_dir / f"{name}.new"  # of an agent that ended while it wrote
