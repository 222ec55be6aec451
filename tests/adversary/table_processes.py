# SPDX-License-Identifier: Apache-2.0
"""Attacks on processes of the host and on its namespaces."""

from __future__ import annotations

from tests.adversary.attack import Attack
from tests.adversary.effects import in_namespace, secret_shown, signalled
from tests.adversary.kinds import PRIV

__all__ = ["ATTACKS"]

_SIGNALS = tuple(
    Attack("C4", way, f"signal {way} {{victim}}", f"signal {way} 0", signalled, (PRIV,), short=way == "kill")
    for way in ("kill", "group", "thread", "queue", "pidfd", "32bit", "owner")
)

_MEMORY = (
    Attack("B3", "shared memory", "read /proc/{victim}/map_files/{shared}", "read /proc/self/status",
           secret_shown, (PRIV,), short=True),
    Attack("B3", "shared memory mapped", "read_map /proc/{victim}/map_files/{shared}",
           "read_map /bin/adversary", secret_shown, (PRIV,)),
    Attack("B3", "executable memory", "read /proc/{victim}/map_files/{code}", "read /proc/self/maps",
           secret_shown, (PRIV,)),
    Attack("B3", "pipe", "read /proc/{victim}/fd/{pipe}", "read /dev/null", secret_shown, (PRIV,)),
    Attack("B3", "environment", "read /proc/{victim}/environ", "read /proc/self/environ",
           secret_shown, (PRIV,), short=True),
    Attack("B3", "environment of its thread", "read /proc/{victim}/task/{victim}/environ",
           "read /proc/self/environ", secret_shown, (PRIV,)),
)  # fmt: skip

_NEWNS = 0x20000
_SERVICE = (
    Attack("A3", "mounts of a service", "enter /proc/{service}/ns/mnt", "enter /proc/self/ns/uts",
           in_namespace("mnt", "{service}"), (PRIV,), short=True),
    Attack("A3", "mounts of a service by pidfd", f"enter_pidfd {{service}} {_NEWNS}",
           "enter /proc/self/ns/ipc", in_namespace("mnt", "{service}"), (PRIV,)),
    Attack("A3", "mounts of a service by 32-bit call", "enter_32bit /proc/{service}/ns/mnt",
           "enter /proc/self/ns/uts", in_namespace("mnt", "{service}"), (PRIV,)),
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (*_SIGNALS, *_MEMORY, *_SERVICE)
