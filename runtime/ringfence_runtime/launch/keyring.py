# SPDX-License-Identifier: Apache-2.0
"""The session keyring of a container: the keys of whoever starts it are out of its reach (keyrings(7))."""

from __future__ import annotations

import errno

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error

__all__ = ["join_keyring"]

_USER_SEARCH = 0x00080000  # KEY_USR_SEARCH of linux/key.h


def join_keyring(name: str) -> None:
    """Enter the container's keyring, which its first process makes.

    Where keyctl is refused, by an outer seccomp filter or a kernel without keyrings, the workload cannot
    reach any key either.
    """
    try:
        key = syscalls.keyctl_join_session(f"_ses.{name}")
        # Without the right to search it as a user, the workload could not use a key that it puts there.
        syscalls.keyctl_setperm(key, syscalls.keyctl_describe_perm(key) | _USER_SEARCH)
    except OSError as error:
        if error.errno == errno.EDQUOT:
            raise Error(
                "no session keyring of its own can be made: the quota of keys is used up",
                hint="see kernel.keys.maxkeys; --no-new-keyring shares the caller's keys with the container",
            ) from None
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
