# SPDX-License-Identifier: Apache-2.0
"""Policies as values: the contents of checked files, with the location of each rule. No YAML, no kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol

from ringfence.abi import Action, EventKind
from ringfence.policy.operand import Conjunction, Networks, Predicate, Values
from ringfence.policy.probe_rules import ProbeRule

__all__ = [
    "Condition",
    "ContainerFacts",
    "Match",
    "Mode",
    "Place",
    "Policy",
    "PolicySet",
    "Requirement",
    "Rule",
    "ScopedException",
    "Selector",
    "Traits",
]

#: what a runtime reports for an image without a name
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")

Mode = Literal["audit", "enforce"]


class Requirement(StrEnum):
    """What a rule requires of a node (`require`); a node without it refuses the set."""

    NOTHING = ""
    DENY = "deny"  # the call fails, always
    DENY_OR_BACKSTOP = "deny-or-backstop"  # or its caller is killed, if the kernel skips what denies


@dataclass(frozen=True, slots=True)
class Place:
    """A location in a file. Lines and columns count from 1."""

    file: str
    line: int
    column: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a match block: at least one of its alternatives must hold.

    `written` is the value as in the file, `words` are its single words.
    """

    operand: str
    written: str
    alternatives: tuple[Conjunction, ...]
    words: tuple[str, ...] = field(default=(), compare=False)
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)


#: one match block, for one event: every condition must hold
Match = tuple[Condition, ...]


class ScopedException(NamedTuple):
    """An exception that holds for some containers only, once everything is known about them: before, names
    may come from an image's author. Without conditions it excepts all that the rule matches there.
    """

    scope: Traits
    match: Mapping[EventKind, Match]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `match` and each of `exceptions` have a block for every event of the rule."""

    id: str
    title: str
    severity: str
    attack: tuple[str, ...]
    events: tuple[EventKind, ...]
    match: Mapping[EventKind, Match]
    exceptions: tuple[Mapping[EventKind, Match], ...]  # for all containers
    action: Action
    require: Requirement
    otherwise: Action  # the action if `deny` is not available: KILL, or as written ALERT, NONE (skip)
    references: tuple[str, ...]
    place: Place
    scoped: tuple[ScopedException, ...] = ()

    @property
    def blocks(self) -> tuple[Mapping[EventKind, Match], ...]:
        """What it matches, and all of its exceptions."""
        return (self.match, *self.exceptions, *(one.match for one in self.scoped))


class ContainerFacts(Protocol):
    """The facts that a selector tests. None: not known (yet)."""

    @property
    def name(self) -> str | None: ...
    @property
    def image(self) -> str | None: ...
    @property
    def image_digest(self) -> str | None:
        """As NAME@sha256:..."""

    @property
    def runtime(self) -> str | None: ...
    @property
    def handler(self) -> str | None:
        """As the runtime that started it reported it to the agent. No source that an image can set."""

    @property
    def namespace(self) -> str | None: ...
    @property
    def pod(self) -> str | None: ...
    @property
    def owner(self) -> str | None:
        """The workload of the pod: KIND/NAME."""

    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def cluster_labels(self) -> Mapping[str, str]:
        """Those of `labels` that the cluster has set, and that no image can set."""

    @property
    def privileged(self) -> bool | None: ...
    @property
    def chosen(self) -> tuple[str, ...]:
        """Policies that the container requested: names, and keys of files in its enrolment request."""

    @property
    def settled(self) -> bool:
        """Returns True if all sources were queried: no further fact will become known."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Globs on facts of a container: every given key must match, by at least one of its globs."""

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    privileged: bool | None = None
    handler: str | None = None

    def matches(self, container: ContainerFacts, *, exempting: bool = False) -> bool:
        """Returns True if every tested fact is known about the container and matches.

        `exempting`: only the labels that the cluster has set count, as an image may have any others.
        """
        images = (*_image_names(container.image), *filter(None, [container.image_digest]))
        if self.images and not any(_any_glob(self.images, name) for name in images):
            return False
        tests = (
            (self.names, container.name),
            (self.runtimes, container.runtime),
            (self.namespaces, container.namespace),
            (self.pods, container.pod),
            (self.workloads, container.owner),
        )
        if not all(_any_glob(globs, value) for globs, value in tests if globs):
            return False
        if self.handler is not None and container.handler != self.handler:
            return False
        labels = container.cluster_labels if exempting else container.labels
        if not all(_any_glob((glob,), labels.get(key)) for key, glob in self.labels):
            return False
        return self.privileged is None or container.privileged is self.privileged


def _image_names(image: str | None) -> tuple[str, ...]:
    """Returns an image's name as requested, and its full name: `nginx` is docker.io/library/nginx:latest.

    Which of them a runtime reports depends on how the container was created.
    Source: distribution/reference, normalize.go
    """
    if not image or _IMAGE_ID.fullmatch(image):
        return (image,) if image else ()
    registry, slash, rest = image.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = "docker.io", image if slash else f"library/{image}"
    named = "@" in rest or ":" in rest.rpartition("/")[2]
    return (image, f"{registry}/{rest}" if named else f"{registry}/{rest}:latest")


def _any_glob(globs: tuple[str, ...], value: str | None) -> bool:
    return value is not None and any(fnmatchcase(value, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects containers. `only` None means all of them (spelled out in the file); `but` are excluded.

    `at_birth`: it also applies to a container about which nothing is known yet, in its first milliseconds.
    """

    only: Traits | None
    but: Traits | None
    at_birth: bool

    def covers(self, container: ContainerFacts) -> bool:
        """Returns True if the container is selected, as far as its facts are known."""
        if self.excludes(container):
            return False
        return self.only is None or self.only.matches(container)

    def excludes(self, container: ContainerFacts) -> bool:
        """Returns True if the container is excluded, as far as its facts are known."""
        return self.but is not None and self.but.matches(container, exempting=True)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy document."""

    name: str
    description: str
    labels: tuple[tuple[str, str], ...]
    selector: Selector
    mode: Mode
    rules: tuple[Rule, ...]
    place: Place
    bound: str = ""  # key of the file in an enrolment request: only for containers that requested it
    probe_rules: tuple[ProbeRule, ...] = ()  # on events of custom probes, decided in user space

    def holds_for(self, container: ContainerFacts) -> bool:
        """Returns True if this policy is in force for a container.

        A policy that a container requests is added to its other policies, and replaces none of them.
        """
        if self.bound:
            return self.bound in container.chosen
        if self.name in container.chosen or self.selector.covers(container):
            return True
        # Until all facts are known, what applied at birth keeps applying: the names in a bundle may come from
        # an image's author and must not exempt a container.
        return not container.settled and self.selector.at_birth


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Every policy of a node, in the order of the files.

    `digest` identifies the content of the files: it is the same on every node with the same policies.
    """

    policies: tuple[Policy, ...]
    digest: str = ""

    @property
    def names_node(self) -> bool:
        """Returns True if a rule tests the node's own addresses, which can change."""
        return any(isinstance(p, Networks) and p.node for p in self._predicates())

    @property
    def names_drivers(self) -> bool:
        """Returns True if a rule names device drivers, of which the numbers can change."""
        return any(isinstance(p, Values) and p.drivers for p in self._predicates())

    def _predicates(self) -> Iterator[Predicate]:
        for policy in self.policies:
            for rule in policy.rules:
                for block in rule.blocks:
                    for match in block.values():
                        for condition in match:
                            for alternative in condition.alternatives:
                                yield from alternative

    @property
    def rules(self) -> int:
        """The number of rules."""
        return sum(len(policy.rules) + len(policy.probe_rules) for policy in self.policies)
