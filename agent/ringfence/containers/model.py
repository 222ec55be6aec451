# SPDX-License-Identifier: Apache-2.0
"""What is known about one container. Values are frozen: new knowledge makes a new value.

None means "not known (yet)", never "none": `enrichment` says whether more may come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from ringfence.containers.patterns import identify

__all__ = ["Container", "Enrichment", "Facts", "Posture", "SensitiveMount", "State", "Suspicion"]

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


def _no_labels() -> Mapping[str, str]:
    return _NO_LABELS


# What Container.enriched takes from Facts as it is.
_TAKEN = (
    "runtime", "name", "image", "image_id", "image_digest", "labels", "namespace", "pod", "pod_uid", "owner",
    "posture",
)  # fmt: skip


class State(StrEnum):
    """Where in its life a container is."""

    CREATED = "created"  # its cgroup exists; nothing of the workload ran
    RUNNING = "running"
    STOPPED = "stopped"  # its last armed task ended
    REMOVED = "removed"  # its cgroup is gone


class Enrichment(StrEnum):
    """The state of asking the runtime."""

    PENDING = "pending"
    DONE = "done"
    NONE = "none"  # no runtime on this node knows it
    GONE = "gone"  # it ended before anybody could be asked
    FAILED = "failed"
    DROPPED = "dropped"  # the queue was full


@dataclass(frozen=True, slots=True)
class SensitiveMount:
    """A mount that hands the container a part of its host."""

    kind: str  # host-root, docker-socket, proc, sysfs, device, cgroup ...
    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Posture:
    """How a container is held: what the kernel and its configuration say, and a score of how little that is.

    None: not known. `score` counts from 0 (fenced) to 100 (as good as the host); `reasons` are its parts.
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
    """Something in a bundle that looks like an attack on whoever starts it (enrich.inspect)."""

    detector: str
    what: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What enrichment found out. Empty fields were not found."""

    enrichment: Enrichment
    source: str = ""  # who said so: docker, containerd, runc ...
    runtime: str = ""
    name: str = ""
    image: str = ""
    image_id: str = ""
    image_digest: str = ""  # name@sha256:...
    labels: Mapping[str, str] = field(default_factory=_no_labels)
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
    """A cgroup that a runtime made for a workload. The selectors of policies read this."""

    id: str  # 64 hex digits, or the cgroup's name
    cgroup_id: int
    slot: int
    cgroup_path: str = ""
    state: State = State.CREATED
    runtime: str | None = None
    name: str | None = None
    image: str | None = None
    image_id: str | None = None
    image_digest: str | None = None
    labels: Mapping[str, str] = field(default_factory=_no_labels)
    namespace: str | None = None  # of Kubernetes, as the four after it
    pod: str | None = None
    pod_uid: str | None = None
    owner: str | None = None
    qos: str | None = None
    pid: int = 0  # of its first armed task, as the host counts; start_ns makes it an identity
    start_ns: int = 0
    created_ns: int = 0
    adopted: bool = False
    enrolled_by_runtime: bool = False  # its runtime said who it is, before its start
    chosen: tuple[str, ...] = ()  # policies that it asked for: names, and keys of files that came with it
    enrichment: Enrichment = Enrichment.PENDING
    posture: Posture | None = None

    @property
    def privileged(self) -> bool | None:
        """Held by so little that it counts as privileged; None: not known yet."""
        return None if self.posture is None else self.posture.privileged

    @property
    def settled(self) -> bool:
        """No runtime is still to be asked who this is."""
        return self.enrichment is not Enrichment.PENDING

    @property
    def short_id(self) -> str:
        """Twelve digits, as the commands of runtimes print ids; a name stays whole."""
        return self.id[:12] if len(self.id) == 64 else self.id

    def enriched(self, facts: Facts) -> Container:
        """This container with what enrichment found; nothing known is replaced by something unknown.

        Names of a pod are taken only from who agrees with the cgroup's path on which pod it is. Where that
        names none there is none: engines copy annotations of an image, and its author could name any.
        """
        here = self.at(facts.cgroup_path)
        if (here.cgroup_path or here.pod_uid) and facts.pod_uid != here.pod_uid:
            facts = replace(facts, pod="", namespace="", pod_uid="", owner="")
        known = {name: getattr(facts, name) for name in _TAKEN if getattr(facts, name)}
        if facts.pid and not self.pid:
            known["pid"] = facts.pid
        # What its own runtime told for certain is not made uncertain by others who do not know it.
        keeps = self.enrolled_by_runtime and self.settled and facts.enrichment is not Enrichment.DONE
        # One that was asked about anew is not unknown meanwhile.
        keeps = keeps or (self.settled and facts.enrichment is Enrichment.PENDING)
        known["enrichment"] = self.enrichment if keeps else facts.enrichment
        return replace(here, **known)

    def at(self, path: str) -> Container:
        """This container with what its cgroup path says, where it had none yet."""
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
        """A container of which only the kernel's word is known: `at` and `enriched` fill in the rest."""
        return cls(f"cgroup-{cgroup_id}", cgroup_id, slot, **known)
