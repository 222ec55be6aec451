# SPDX-License-Identifier: Apache-2.0
"""The Python init: a fork of the runtime that executes the operations of a launch.

It never returns: it ends in execve, or in _exit after it sent the reason. Its memory is the runtime's, so it
is non-dumpable from its first to its last act.
"""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.hooks import HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence_runtime.launch.operations.base import Operation, World

__all__ = ["run_operations"]


def run_operations(operations: Iterable[Operation], world: World, *, rootless: bool) -> None:
    """Executes the operations. The last one executes the workload.

    `rootless`: only the ids of a dumpable process can be mapped without root, so `AwaitRuntime` makes the
    process non-dumpable.
    """
    try:
        os.setsid()
        if not rootless:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        for operation in operations:
            operation.execute(world)
    except HookError as error:
        world.channel.send(say.HOOK_ERROR, str(error))
    except (Error, OSError) as error:
        world.channel.send(say.ERROR, str(error))
    except BaseException as error:
        world.channel.send(say.ERROR, f"internal error: {type(error).__name__}: {error}")
    finally:
        os._exit(1)
