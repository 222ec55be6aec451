# SPDX-License-Identifier: Apache-2.0
"""Pods that attack: containers of the attack program in cgroups as the kubelet's, named by an API server.

Each pod has one container of its own, so each attack is an incident of its own.
"""

from __future__ import annotations

import contextlib
import secrets
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence.proof.cases import Case
from ringfence.proof.fixtures import Fixtures, new_fixtures
from ringfence.proof.image import new_root
from ringfence.proof.program import Attempt
from ringfence.proof.target_container import Kind, TargetContainer, privileged_config
from tests.escape.program import build
from tests.support.agent import Agent
from tests.support.apiserver import FakeApiServer, fake_apiserver
from tests.support.cgroups import PREFIX, remove_everywhere
from tests.support.force import in_guest, need_program
from tests.support.waiting import patience, wait_for

__all__ = ["Pod", "PodName", "Pods", "attacking_pods", "wait_watching"]

IMAGE = "registry.example/{workload}:1"


class PodName(NamedTuple):
    """Where a pod belongs: its workload is the StatefulSet of that name."""

    namespace: str
    workload: str

    @property
    def pod(self) -> str:
        """The pod's name, as a StatefulSet gives it."""
        return f"{self.workload}-0"


class Pod(NamedTuple):
    """A pod that runs, and its one container."""

    name: PodName
    target: TargetContainer

    def attack(self, words: str) -> Attempt:
        """Makes one attempt."""
        return self.target.run(words, seconds=patience(60))


class Pods:
    """Starts pods, and what they attack: see `attacking_pods`."""

    def __init__(self, directory: Path, fixtures: Fixtures, root: Path, api: FakeApiServer) -> None:
        self.directory, self.fixtures, self.root, self.api = directory, fixtures, root, api
        self.parent = f"{PREFIX}pods-{secrets.token_hex(3)}"

    def agent(self, label: str, policies: Path, mode: str) -> Agent:
        """An agent, not started, for the pods of that label; it writes each alert."""
        flags: dict[str, str | Sequence[str]] = {
            "kubernetes-api": self.api.url, "kubernetes-watch": "on", "kubernetes-node": f"node-{label}",
            "cri-socket": "off", "alerts-repeat": "0",
            "host-files-writable": [str(path) for path in self.fixtures.given],
        }  # fmt: skip
        pattern = f"{PREFIX}{label}-*"
        return Agent(self.directory / label, policies=[policies], mode=mode, patterns=[pattern], flags=flags)

    @contextlib.contextmanager
    def start(self, label: str, name: PodName, kind: Kind = "plain") -> Iterator[Pod]:
        """Runs a pod for the time of a `with` block; the agents of that label see it."""
        uid, container = str(uuid.uuid4()), f"{PREFIX}{label}-{secrets.token_hex(4)}"
        owner = [{"kind": "StatefulSet", "name": name.workload, "controller": True}]
        about = {"uid": uid, "name": name.pod, "namespace": name.namespace, "ownerReferences": owner}
        self.api.add({"metadata": about})
        config = privileged_config(self.root, self.fixtures, kind=kind)
        config["linux"]["cgroupsPath"] = f"/{self.parent}/kubepods/pod{uid}/{container}"
        config["annotations"] = {
            "io.kubernetes.cri.container-name": "main",
            "io.kubernetes.cri.image-name": IMAGE.format(workload=name.workload),
            "io.kubernetes.cri.sandbox-name": name.pod,
            "io.kubernetes.cri.sandbox-namespace": name.namespace,
            "io.kubernetes.cri.sandbox-uid": uid,
        }
        directory = self.directory / container
        target = TargetContainer(container, [need_program("runc")], directory, self.fixtures)
        try:
            target.start(config)
            for file in ("token", "mode"):
                target.run(f"chmod 0600 /tmp/{file}", seconds=patience(60))
            yield Pod(name, target)
        finally:
            target.remove()
            self.api.delete(uid)

    def missing(self, case: Case) -> bool:
        """Returns True if the case cannot run on this machine, or has no container of its own."""
        disk = case.needs_disk and self.fixtures.disk is None
        address = case.needs_address and not self.fixtures.address
        return disk or address or case.host or (case.disposable and not in_guest())


@contextlib.contextmanager
def attacking_pods(directory: Path) -> Iterator[Pods]:
    """The attacks' targets, and an API server that knows the pods."""
    build()
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        beside = f"{PREFIX}beside-{secrets.token_hex(3)}"
        fixtures = stack.enter_context(new_fixtures(directory, beside, disposable=in_guest()))
        root = stack.enter_context(new_root(directory))
        pods = Pods(directory, fixtures, root, stack.enter_context(fake_apiserver()))
        stack.callback(remove_everywhere, pods.parent)
        yield pods


def wait_watching(pods: Pods, count: int) -> None:
    """Waits until so many agents watch the pods."""
    wait_for(lambda: pods.api.watches >= count, "the agents to watch the pods")
