# SPDX-License-Identifier: Apache-2.0
"""Bugs of the agent must neither end it nor go unnoticed: counted errors, and threads that are
restarted.

Failures are counted by place (`ringfence_handler_errors_total{where}`) and by thread
(`ringfence_thread_failures_total{thread}`). The first ones of each are logged with their
traceback.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable

from ringfence import log

__all__ = [
    "ACCEPT_PAUSE",
    "BACK_OFF",
    "ErrorCounter",
    "SupervisedThread",
    "cannot_accept",
    "handler_errors",
    "thread_failures",
]

#: seconds until a thread that failed is restarted: first, doubled each time, at most
BACK_OFF = (0.1, 30.0)
#: seconds for which a listener is left alone after `cannot_accept`
ACCEPT_PAUSE = 0.2
_LOGGED = 3  # failures of one place that are logged with their traceback
_WELL = 60.0  # seconds without a failure after which the pauses begin small again

#: failures that were survived, by place: written by any thread, read by a scrape
handler_errors: Counter[str] = Counter()
thread_failures: Counter[str] = Counter()


class ErrorCounter:
    """Counts the errors of one place of the agent. `where` becomes a label, so it is a fixed word."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._log = log.get_logger("faults")
        handler_errors[where] += 0

    def __call__(self, work: Callable[[], object]) -> bool:
        """Run `work`. Returns False if it raised, which is counted."""
        try:
            work()
        except Exception as error:
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Count a failure that the caller caught."""
        handler_errors[self._where] += 1
        if handler_errors[self._where] <= _LOGGED:
            self._log.error("a bug of the agent; it goes on", where=self._where, exc_info=error)


def cannot_accept(error: OSError) -> bool:
    """Returns True if accept(2) failed because descriptors or memory ran out. The listener stays
    readable then, so waiting for it alone would be a busy loop.
    """
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SupervisedThread:
    """A daemon thread that is restarted, after a pause, if its work raises; it ends when the work
    returns. With `once` a failure ends it, and is counted as well.

    `work` must check a flag of its own to end; `stop` only cuts the pauses short. `on_failure` is
    called in the thread, before the pause, to undo what an unfinished round left.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        on_failure: Callable[[], object] = lambda: None,
        back_off: tuple[float, float] = BACK_OFF,
        once: bool = False,
    ) -> None:
        self.name = name
        self._work, self._on_failure, self._once = work, on_failure, once
        self._first, self._most = back_off
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._log = log.get_logger("faults")
        thread_failures[name] += 0

    def start(self) -> None:
        """Start the thread; call it once."""
        self._thread.start()

    def stop(self) -> None:
        """Do not restart after a failure."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end. A thread that was never started counts as ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """True if it runs, or will be restarted."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = self._first
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:
                self._failed(error)
            else:
                return
            if self._once:
                return
            if time.monotonic() - began >= _WELL:
                pause = self._first
            self._stopping.wait(pause)
            pause = min(2 * pause, self._most)

    def _failed(self, error: Exception) -> None:
        thread_failures[self.name] += 1
        if thread_failures[self.name] <= _LOGGED:
            self._log.error("a thread failed and is restarted", thread=self.name, exc_info=error)
        try:
            self._on_failure()
        except Exception as second:
            self._log.error(
                "the cleanup after a failed thread failed, too", thread=self.name, exc_info=second
            )
