# SPDX-License-Identifier: Apache-2.0
"""Examines running containers: found by the names of their cgroups, identified by the usual sources."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence.audit import containers as container_checks
from ringfence.audit import node as node_checks
from ringfence.audit.accept import accept
from ringfence.audit.containers import Subject
from ringfence.audit.model import Finding, Unseen
from ringfence.audit.node import Node
from ringfence.config import Config
from ringfence.containers.enrich import Request, Source, default_sources
from ringfence.containers.enrich.worker import enrich
from ringfence.containers.hierarchy import Hierarchy, detect, own_cgroup, walk
from ringfence.containers.host import host_root
from ringfence.containers.kubernetes.cri import Cri, CriError, sockets_of
from ringfence.containers.kubernetes.source import Kubernetes
from ringfence.containers.model import Container, Facts
from ringfence.containers.patterns import identify, matches, patterns_for

__all__ = [
    "Survey",
    "display_name",
    "of_containers",
    "own_identifier",
    "parted",
    "subject_of",
    "survey",
    "this_node",
]


class Survey(NamedTuple):
    """The examined subjects and the findings."""

    node: str
    containers: int
    findings: list[Finding]
    unseen: list[Unseen]


def survey(config: Config, *, node: bool = True, containers: bool = True) -> Survey:
    """Examines this node and the containers with cgroups that match the configured patterns."""
    found, unseen = parted(node_checks.findings(this_node(config, programs=True)) if node else ())
    subjects = list(_subjects(config)) if containers else []
    mac = node_checks.has_mac()
    for subject in subjects:
        if isinstance(subject, Subject):
            found += container_checks.findings(subject, mac=mac)
        else:
            unseen.append(subject)
    count = sum(isinstance(subject, Subject) for subject in subjects)
    found = list(accept(found, config.audit_accept, own_identifier(detect())))
    return Survey(config.node_name, count, found, unseen)


def own_identifier(hierarchy: Hierarchy) -> str:
    """Returns the identifier of the container that this process is in; empty: none is known."""
    own = own_cgroup(hierarchy)
    if own is None or own == hierarchy.mount:
        return ""
    found = identify(f"/{own.relative_to(hierarchy.mount)}").id
    return found[:12] if len(found) == 64 else found


def parted(looked: Iterable[Finding | Unseen]) -> tuple[list[Finding], list[Unseen]]:
    """Separates findings from facts that could not be examined."""
    found: list[Finding] = []
    unseen: list[Unseen] = []
    for one in looked:
        if isinstance(one, Finding):
            found.append(one)
        else:
            unseen.append(one)
    return found, unseen


def of_containers(containers: Sequence[Container]) -> Iterator[Finding | Unseen]:
    """Yields findings about containers that the agent already knows: nothing is looked up."""
    mac = node_checks.has_mac()
    for container in containers:
        if container.posture is not None:
            subject = Subject(display_name(container), container.short_id, container.posture)
            yield from container_checks.findings(subject, mac=mac)
        else:
            yield _not_seen(container.short_id)


def this_node(config: Config, *, programs: bool) -> Node:
    """Returns this node. `programs`: runtimes without a socket may be run to get their version."""
    about, host = os.uname(), host_root()
    asked = programs and host == Path("/")  # programs of a container are not the host's
    runtimes = node_checks.versions_of_runtimes() if asked else {}
    for socket in sockets_of(config.cri_socket):
        with contextlib.suppress(CriError), contextlib.closing(Cri(socket)) as cri:
            name, version = cri.version()
            runtimes[name] = f"{name} {version}"
    not_asked = () if asked else ("runc", "crun")  # these have no socket
    return Node(config.node_name, about.release, about.version, Path("/"), runtimes, host, not_asked)


def display_name(container: Container | Facts) -> str:
    """Returns namespace/pod/name, as far as known."""
    names = [container.namespace, container.pod, container.name]
    return "/".join(name for name in names if name)


def subject_of(identifier: str, pid: int, facts: Facts) -> Subject | None:
    """Returns the subject of an audit; None: the container's posture is unknown."""
    if facts.posture is None:
        return None
    short = identifier[:12] if len(identifier) == 64 else identifier
    return Subject(display_name(facts) or short, short, facts.posture, _is_root(pid))


def _subjects(config: Config) -> Iterator[Subject | Unseen]:
    hierarchy = detect()
    sockets = sockets_of(config.cri_socket)
    sources: list[Source] = [Kubernetes(Cri(sockets[0]), None)] if sockets else []
    sources += default_sources(config.runtime_roots)
    patterns = patterns_for(config.patterns, known=config.known_names)
    for found in walk(hierarchy):
        if matches(found.path, patterns) is None:
            continue
        pid = _first_pid(hierarchy, found.path)
        if not pid:
            continue
        identifier = identify(found.path).id
        request = Request(found.cgroup_id, identifier, found.path, "", pid, 0)
        facts = enrich(request, sources, exists=lambda path: True)
        subject = subject_of(identifier, pid, facts)
        yield subject or _not_seen(identifier[:12])


def _not_seen(identifier: str) -> Unseen:
    return Unseen("privileged", f"the posture of the container {identifier}: all checks of containers")


def _first_pid(hierarchy: Hierarchy, path: str) -> int:
    """Returns a process of that cgroup; 0: it has none."""
    try:
        with (hierarchy.directory(path) / "cgroup.procs").open() as file:
            return int(file.readline().strip() or 0)
    except (OSError, ValueError):
        return 0


def _is_root(pid: int) -> bool | None:
    """Returns True if it runs as user 0 of the host; None: unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("Uid:")), "")
    return line.split()[2] == "0" if len(line.split()) > 2 else None
