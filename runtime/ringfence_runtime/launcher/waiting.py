# SPDX-License-Identifier: Apache-2.0
"""Many launches at the same time: generators that yield what they wait for, resumed when it is readable."""

from __future__ import annotations

import select
import time

from ringfence_runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.waiting import Task

__all__ = ["Fd", "Waiting"]


class Fd:
    """A descriptor to wait for. `seconds` is the limit, if it is not 0."""

    __slots__ = ("fd", "seconds")

    def __init__(self, fd: int, seconds: float = 0.0) -> None:
        self.fd = fd
        self.seconds = seconds

    def fileno(self) -> int:
        return self.fd


class Waiting:
    """The generators, by the descriptor that each waits for. After its limit a generator gets a
    TimeoutError.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._tasks: dict[int, Task[None]] = {}
        self._deadlines: dict[int, float] = {}

    def start(self, task: Task[None]) -> None:
        """Runs it to its first wait."""
        self._resume(task, None)

    def turn(self) -> None:
        """Waits until a generator can go on, and resumes it."""
        timeout = None
        if self._deadlines:
            timeout = max(0.0, min(self._deadlines.values()) - time.monotonic()) * 1000
        ready = [fd for fd, _ in self._poll.poll(timeout)]
        now = time.monotonic() if self._deadlines else 0.0
        late = [fd for fd, when in self._deadlines.items() if when <= now and fd not in ready]
        due = [(self._forget(fd), fd in late) for fd in (*ready, *late)]
        # Not earlier: a resumed generator may close its descriptor, and another one get its number.
        for task, expired in due:
            self._resume(task, TimeoutError("timed out") if expired else None)

    def _forget(self, fd: int) -> Task[None]:
        self._poll.unregister(fd)
        self._deadlines.pop(fd, None)
        return self._tasks.pop(fd)

    def _resume(self, task: Task[None], error: TimeoutError | None) -> None:
        try:
            waits = next(task) if error is None else task.throw(error)
        except StopIteration:
            return
        except Exception as failure:
            # A bug in one launch must not end the others.
            log.error(f"launcher: internal error: {type(failure).__name__}: {failure}")
            return
        fd = waits.fileno()
        self._tasks[fd] = task
        self._poll.register(fd, select.POLLIN)
        seconds: float = getattr(waits, "seconds", 0.0)
        if seconds:
            self._deadlines[fd] = time.monotonic() + seconds
