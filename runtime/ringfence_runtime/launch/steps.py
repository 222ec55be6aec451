# SPDX-License-Identifier: Apache-2.0
"""A launch as a generator: it yields what it waits for, and is resumed when that can be read.

What is yielded is read at once after the yield, so a caller with nothing else to do may resume the generator
without waiting (`complete`): the read itself blocks. The warm launcher, which has other containers to serve,
polls the descriptor first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Waitable(Protocol):
        """Something with a descriptor that becomes readable; where it has `seconds`, those are the most to
        wait.

        Who polls raises TimeoutError at the yield when they are over.
        """

        def fileno(self) -> int: ...

    Steps = Generator[Waitable, None, T]

__all__ = ["complete"]


def complete(steps: Steps[T]) -> T:
    """Run the steps to their end; the result of the generator."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
