# SPDX-License-Identifier: Apache-2.0
"""The facts about one container. Values are frozen: a new fact creates a new value.

None means "not known (yet)", never "none"; `enrichment` says whether more facts may follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from ringfence.containers.naming import shortened
from ringfence.containers.patterns import identify

__all__ = ["Container", "Enrichment", "Facts", "Posture", "SensitiveMount", "State", "Suspicion"]

_CANARY = re.compile(r"ringfence-canary-[0-9]+\.0")
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


def _no_labels() -> Mapping[str, str]:
    return _NO_LABELS


# The fields that Container.enriched copies from Facts.
_COPIED = (
    "runtime", "handler", "name", "image", "image_id", "image_digest", "labels", "cluster_labels",
    "namespace", "pod", "pod_uid", "owner", "posture",
)  # fmt: skip


class State(StrEnum):
    """The lifecycle state of a container."""

    CREATED = "created"  # its cgroup exists, the workload has not started
    RUNNING = "running"
    STOPPED = "stopped"  # its last armed task ended
    REMOVED = "removed"  # its cgroup was removed


class Enrichment(StrEnum):
    """The state of the queries to runtimes."""

    PENDING = "pending"
    DONE = "done"
    NONE = "none"  # no runtime on this node knows the container
    GONE = "gone"  # the container ended before the queries
    FAILED = "failed"
    DROPPED = "dropped"  # the queue was full


@dataclass(frozen=True, slots=True)
class SensitiveMount:
    """A mount that gives the container access to a part of the host."""

    kind: str  # host-root, docker-socket, proc, sysfs, device, cgroup ...
    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Posture:
    """The confinement of a container, from the kernel and its configuration, with a score.

    None: not known. `score` ranges from 0 (confined) to 100 (like the host); `reasons` are its parts.
    """

    capabilities: tuple[str, ...] | None = None  # effective, of its first task
    bounding: tuple[str, ...] | None = None
    seccomp: str | None = None  # disabled, strict, filter
    user_namespace: bool | None = None
    uid_map: tuple[tuple[int, int, int], ...] = ()
    shared_namespaces: tuple[str, ...] | None = None  # with the host
    no_new_privs: bool | None = None
    apparmor: str | None = None
    sensitive_mounts: tuple[SensitiveMount, ...] = ()
    score: int = 0
    reasons: tuple[str, ...] = ()
    privileged: bool = False


class Suspicion(NamedTuple):
    """A part of a bundle that looks like an attack on the runtime that starts it (enrich.inspect)."""

    detector: str
    what: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that enrichment found. Empty fields were not found."""

    enrichment: Enrichment
    source: str = ""  # docker, containerd, runc ...
    runtime: str = ""
    handler: str = ""  # "wasm" if the runtime reported that it executes a module
    name: str = ""
    image: str = ""
    image_id: str = ""
    image_digest: str = ""  # name@sha256:...
    labels: Mapping[str, str] = field(default_factory=_no_labels)
    cluster_labels: Mapping[str, str] = field(default_factory=_no_labels)  # those that no image can set
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    owner: str = ""  # Deployment/web
    pid: int = 0
    cgroup_path: str = ""
    posture: Posture | None = None
    suspicions: tuple[Suspicion, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """A cgroup that a runtime created for a workload. Selectors of policies test these facts."""

    id: str  # 64 hex digits, or the cgroup's name
    cgroup_id: int
    slot: int
    cgroup_path: str = ""
    state: State = State.CREATED
    runtime: str | None = None
    handler: str | None = None  # "wasm": from the enrolment request only, so no image can set it
    name: str | None = None
    image: str | None = None
    image_id: str | None = None
    image_digest: str | None = None
    labels: Mapping[str, str] = field(default_factory=_no_labels)
    cluster_labels: Mapping[str, str] = field(default_factory=_no_labels)  # those that no image can set
    namespace: str | None = None  # this and the next four are facts of Kubernetes
    pod: str | None = None
    pod_uid: str | None = None
    owner: str | None = None
    qos: str | None = None
    pid: int = 0  # of its first armed task, in the host's PID namespace; unique together with start_ns
    start_ns: int = 0
    created_ns: int = 0
    adopted: bool = False
    enrolled_by_runtime: bool = False  # its runtime enrolled it before its start
    chosen: tuple[str, ...] = ()  # requested policies: names, and keys of files in the enrolment request
    enrichment: Enrichment = Enrichment.PENDING
    posture: Posture | None = None

    @property
    def privileged(self) -> bool | None:
        """True if it counts as privileged; None: not known yet."""
        return None if self.posture is None else self.posture.privileged

    @property
    def is_canary(self) -> bool:
        """True for the cgroup by which an agent tests itself (daemon.health.canary): no workload."""
        return _CANARY.fullmatch(self.id) is not None

    @property
    def settled(self) -> bool:
        """True if all runtimes were queried about it."""
        return self.enrichment is not Enrichment.PENDING

    @property
    def short_id(self) -> str:
        """See `naming.shortened`."""
        return shortened(self.id)

    def enriched(self, facts: Facts) -> Container:
        """Returns this container with the found facts; a known fact is never replaced by an unknown one.

        Names of a pod are only accepted if the source agrees with the cgroup's path on the pod's uid. If the
        path has no uid, there is no pod: engines copy annotations of an image, and its author could name any.
        """
        here = self.at(facts.cgroup_path)
        if (here.cgroup_path or here.pod_uid) and facts.pod_uid != here.pod_uid:
            facts = replace(facts, pod="", namespace="", pod_uid="", owner="")
        known = {name: getattr(facts, name) for name in _COPIED if getattr(facts, name)}
        if facts.pid and not self.pid:
            known["pid"] = facts.pid
        # What its runtime reported stays certain if other sources do not know the container.
        keeps = self.enrolled_by_runtime and self.settled and facts.enrichment is not Enrichment.DONE
        # A repeated query does not make a known container unknown in the meantime.
        keeps = keeps or (self.settled and facts.enrichment is Enrichment.PENDING)
        known["enrichment"] = self.enrichment if keeps else facts.enrichment
        return replace(here, **known)

    def at(self, path: str) -> Container:
        """Returns this container with the facts in its cgroup path, if it had no path yet."""
        if not path or self.cgroup_path:
            return self
        identity = identify(path)
        return replace(
            self,
            id=identity.id,
            cgroup_path=path,
            runtime=self.runtime or identity.runtime or None,
            pod_uid=self.pod_uid or identity.pod_uid or None,
            qos=self.qos or identity.qos or None,
        )

    @classmethod
    def unnamed(cls, cgroup_id: int, slot: int, **known: Any) -> Container:
        """Returns a container with facts of the kernel only: `at` and `enriched` add the others."""
        return cls(f"cgroup-{cgroup_id}", cgroup_id, slot, **known)
