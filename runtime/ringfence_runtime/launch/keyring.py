# SPDX-License-Identifier: Apache-2.0
"""The session keyring of a container: the keys of the runtime's caller are out of its reach (keyrings(7))."""

from __future__ import annotations

import errno

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error

__all__ = ["NO_KEYRINGS", "USER_SEARCH", "join_keyring"]

#: KEY_USR_SEARCH of linux/key.h: without it the workload could not use a key that it adds
USER_SEARCH = 0x00080000
#: an outer seccomp filter or a kernel without keyrings: the workload cannot reach any key then
NO_KEYRINGS = (errno.ENOSYS, errno.EPERM)


def join_keyring(name: str) -> None:
    """Enters the keyring of the container, which its first process creates."""
    try:
        key = syscalls.keyctl_join_session(f"_ses.{name}")
        syscalls.keyctl_setperm(key, syscalls.keyctl_describe_perm(key) | USER_SEARCH)
    except OSError as error:
        if error.errno == errno.EDQUOT:
            raise Error(
                "the container's session keyring cannot be created: the quota of keys is used up",
                hint="see kernel.keys.maxkeys; --no-new-keyring shares the caller's keys with the container",
            ) from None
        if error.errno not in NO_KEYRINGS:
            raise
