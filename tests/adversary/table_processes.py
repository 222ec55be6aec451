# SPDX-License-Identifier: Apache-2.0
"""Attacks on processes of the host and on its namespaces."""

from __future__ import annotations

from tests.adversary.attack import Attack
from tests.adversary.effects import (
    exists,
    in_namespace,
    io_idle,
    limited,
    mode_is,
    own_userns,
    reniced,
    rescheduled,
    secret_shown,
    signalled,
    stopped,
    typed,
    written,
)
from tests.adversary.kinds import CAPS, PRIV

__all__ = ["ATTACKS"]

_SIGNALS = tuple(
    Attack("C4", way, f"signal {way} {{victim}}", f"signal {way} 0", signalled, (PRIV,),
           short=way in ("kill", "owner"))
    for way in ("kill", "group", "thread", "queue", "pidfd", "32bit", "owner")
)  # fmt: skip

_CONTROLS = tuple(
    Attack("C4", f"change of {name}", f"control {way} {{victim}}", f"control {way} 0", effect, (PRIV,),
           short=way == "limit")
    for name, way, effect in (
        ("limits", "limit", limited), ("scheduling", "schedule", rescheduled), ("priority", "nice", reniced),
        ("the priority of its group", "nice_group", reniced), ("I/O priority", "io", io_idle))
)  # fmt: skip

_MEMORY = tuple(
    Attack("B3", name, words, twin, secret_shown, (PRIV,), short=name in ("shared memory", "environment"))
    for name, words, twin in (
        ("shared memory", "read /proc/{victim}/map_files/{shared}", "read /proc/self/status"),
        ("shared memory mapped", "read_map /proc/{victim}/map_files/{shared}", "read_map /bin/adversary"),
        ("executable memory", "read /proc/{victim}/map_files/{code}", "read /proc/self/maps"),
        ("executable memory mapped", "read_map /proc/{victim}/map_files/{code}", "read_map /bin/adversary"),
        ("pipe", "read /proc/{victim}/fd/{pipe}", "read /dev/null"),
        ("memfd by descriptor", "read /proc/{victim}/fd/{memfd}", "read /dev/null"),
        ("environment", "read /proc/{victim}/environ", "read /proc/self/environ"),
        ("environment of its thread", "read /proc/{victim}/task/{victim}/environ", "read /proc/self/environ"),
        ("environment through another procfs", "read /host/proc/{victim}/environ", "read /proc/self/environ"),
        ("memory", "read_at /proc/{victim}/mem {shared}", "read /proc/self/status"),
    )
) + (
    Attack("B3", "writing executable memory", "write /proc/{victim}/map_files/{code} {token}",
           "write {volume}/file {token}", lambda one: one.token in one.victim.memory(), (PRIV,)),
)  # fmt: skip

_NEWNS = 0x20000
_ENTER = tuple(
    Attack("A3", name, words, twin, effect, (PRIV,), short=name in ("mounts", "mounts, then a directory"))
    for name, words, twin, effect in (
        ("mounts", "enter /proc/{service}/ns/mnt", "enter /proc/self/ns/uts",
         in_namespace("mnt", "{service}")),
        ("mounts by pidfd", f"enter_pidfd {{service}} {_NEWNS}", "enter /proc/self/ns/ipc",
         in_namespace("mnt", "{service}")),
        ("mounts by 32-bit call", "enter_32bit /proc/{service}/ns/mnt", "enter /proc/self/ns/uts",
         in_namespace("mnt", "{service}")),
        ("uts of a service", "enter /proc/{service}/ns/uts", "enter /proc/self/ns/uts",
         in_namespace("uts", "{service}")),
        ("mounts, then a directory", "enter_run /proc/{service}/ns/mnt name_path mkdir {target} made",
         "enter_run /proc/self/ns/uts name_path mkdir {volume} made", exists("{target}/made")),
        ("mounts, then a link", "enter_run /proc/{service}/ns/mnt name_path symlink {target} link /etc",
         "enter_run /proc/self/ns/uts name_path symlink {volume} link /etc", exists("{target}/link")),
        ("mounts, then a file", "enter_run /proc/{service}/ns/mnt write {target}/new {token}",
         "enter_run /proc/self/ns/uts write {volume}/new {token}", written("{target}/new")),
        ("mounts, then chroot and a file",
         "enter_run /proc/{service}/ns/mnt write_root {target} new {token}",
         "enter_run /proc/self/ns/uts write_root {volume} new {token}", written("{target}/new")),
        ("mounts, then chroot and a directory",
         "enter_run /proc/{service}/ns/mnt name_root mkdir {target} made",
         "enter_run /proc/self/ns/uts name_root mkdir {volume} made", exists("{target}/made")),
        ("mounts, then a socket", "enter_run /proc/{service}/ns/mnt connect {run}/bus.sock",
         "enter_run /proc/self/ns/uts connect_own", secret_shown),
        ("mounts, then the service's own file", "enter_run /proc/{service}/ns/mnt read {run}/private/own",
         "enter_run /proc/self/ns/uts read /etc/passwd", secret_shown),
    )
)  # fmt: skip

_HOSTS = tuple(
    Attack("A4", f"the host's {kind}", f"enter {prefix}/1/ns/{kind}", "enter /proc/self/ns/uts",
           in_namespace(kind, "1"), kinds, short=kind == "mnt")
    for kind in ("mnt", "uts", "ipc", "cgroup")
    for prefix, kinds in (("/proc", (PRIV,)), ("/hostproc", (CAPS,)))
)  # fmt: skip
_RACES = tuple(
    Attack("A4", f"race for the descriptor of {kind}",
           f"enter_race /proc/1/ns/{kind} /proc/self/ns/{kind} 0 {{milliseconds}} 100000000",
           "enter /proc/self/ns/uts", in_namespace(kind, "1"), (PRIV,), alone=True)
    for kind in ("mnt", "uts")
)  # fmt: skip

_OTHERS = tuple(
    Attack("C10", f"{kind} of another container", f"enter {prefix}/{{other}}/ns/{kind}",
           "enter /proc/self/ns/uts", in_namespace(kind, "{other}"), kinds,
           short=kind == "net" and prefix == "/hostproc")
    for kind in ("net", "mnt", "ipc")
    for prefix, kinds in (("/proc", (PRIV,)), ("/hostproc", (CAPS,)))
)  # fmt: skip

_RULES = (
    Attack("A5", "the generation is overwritten", "rules_off generation 600", "gettime", own_userns,
           (CAPS, PRIV), guest=True, alone=True),
)  # fmt: skip

_CGROUPS = tuple(
    Attack("D1", name, f"{way} {{cgroup}}/{file} {text}", "append {owncgroup}/cgroup.max.depth 9", effect,
           (PRIV,), short=name == "kill")
    for name, way, file, text, effect in (
        ("kill", "append", "cgroup.kill", "1", signalled),
        ("freeze", "append", "cgroup.freeze", "1", stopped),
        ("freeze by openat2", "write_openat2", "cgroup.freeze", "1", stopped),
        ("freeze by a 32-bit call", "write_32bit", "cgroup.freeze", "1", stopped),
    )
)  # fmt: skip
_CGROUP_NAMES = (
    Attack("D1", "mkdir", "name_path mkdir {cgroup} made", "name_path mkdir {owncgroup} made-{token}",
           exists("{outercgroup}/made"), (PRIV,)),
    Attack("D1", "chmod", "name_path chmod {cgroup} cgroup.kill", "name_path chmod {owncgroup} cgroup.procs",
           mode_is("{outercgroup}/cgroup.kill", 0o777), (PRIV,)),
)  # fmt: skip

_TERMINALS = tuple(
    Attack("D2", call, f"{call} {{terminal}} {{token}}", "append /dev/ptmx x", typed, (PRIV,),
           short=call == "append")
    for call in ("append", "write_openat2", "write_32bit")
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (
    *_SIGNALS,
    *_CONTROLS,
    *_MEMORY,
    *_ENTER,
    *_HOSTS,
    *_RACES,
    *_OTHERS,
    *_RULES,
    *_CGROUPS,
    *_CGROUP_NAMES,
    *_TERMINALS,
)
