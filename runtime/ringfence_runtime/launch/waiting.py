# SPDX-License-Identifier: Apache-2.0
"""A launch as a generator: it yields what it waits for, and the caller resumes it when that is readable.

The generator reads what it yielded directly after the yield. A caller with nothing else to do therefore
resumes it at once (`complete`), and the read blocks. The warm launcher serves several containers at the
same time: it polls the descriptors first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Waitable(Protocol):
        """An object with a descriptor that becomes readable. Its `seconds`, if it has them, are a limit.

        A caller that polls raises TimeoutError at the yield after that time.
        """

        def fileno(self) -> int: ...

    Task = Generator[Waitable, None, T]

__all__ = ["complete"]


def complete(task: Task[T]) -> T:
    """Runs the generator to its end and returns its result."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            result: T = end.value
            return result
