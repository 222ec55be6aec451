# SPDX-License-Identifier: Apache-2.0
"""The request of `ringfence run`: plain values, checked individually; nothing is looked up yet."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.sandbox.values import Device, Limit, Volume

__all__ = ["Fences", "Request", "Resources", "Roots"]


class Roots(NamedTuple):
    """The directories of the state."""

    state: str = "/run/ringfence"
    """`sandboxes/`, `networks/`, and `runtime/`, which `ringfence-runtime` looks at without --root"""
    images: str = "/var/lib/ringfence/images"

    @property
    def modules(self) -> str:
        """The engine for WebAssembly, and the native code of modules."""
        return f"{self.images}/wasm"

    @property
    def runtime(self) -> str:
        """States of the OCI runtime."""
        return f"{self.state}/runtime"


class Resources(NamedTuple):
    """Limits of the cgroup. 0 or empty: none."""

    memory: int = 0
    memory_swap: int = 0
    """memory and swap together; -1: no limit"""
    memory_reservation: int = 0
    cpus: float = 0
    cpu_shares: int = 0
    cpuset: str = ""
    pids: int = 0


class Fences(NamedTuple):
    """The restrictions by the runtime. The defaults are strict."""

    seccomp: str = "default"
    """`default`, `unconfined` or a file with an OCI or docker profile"""
    landlock: bool = True
    no_new_privileges: bool = True
    masks: bool = True
    """masked and read-only paths below /proc and /sys"""
    apparmor: str = ""
    selinux: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    policy: str = ""
    """a policy file, or the name of a policy that the agent has loaded"""
    require_agent: bool = False
    userns: str = ""
    """`auto`: ids of its own; `host`: the host's; empty: the host's, but for the host's root"""
    learned: str = ""
    """a directory that `--learn` wrote: capabilities, seccomp and Landlock come from there"""


class Request(NamedTuple):
    """One `ringfence run`."""

    source: str
    """an image's name, an OCI layout, a directory, or `host`"""
    is_rootfs: bool = False
    """`source` was given by --rootfs: never an image"""
    command: tuple[str, ...] = ()
    roots: Roots = Roots()
    name: str = ""
    detach: bool = False
    keep: bool = False
    """leave the stopped sandbox until `ringfence rm`"""
    tty: bool = False
    interactive: bool = False
    environment: tuple[str, ...] = ()
    entrypoint: str | None = None
    workdir: str = ""
    user: str = ""
    groups: tuple[int, ...] = ()
    hostname: str = ""
    volumes: tuple[Volume, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    read_only: bool = False
    shm_size: int = 64 << 20
    sysctls: tuple[tuple[str, str], ...] = ()
    limits: tuple[Limit, ...] = ()
    stop_signal: str = ""
    stop_timeout: int = 10
    oom_score: int | None = None
    cgroup_parent: str = ""
    resources: Resources = Resources()
    fences: Fences = Fences()
    network: str = ""
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    forwarding: bool = False
    """enable the host's packet forwarding, if it is off"""
