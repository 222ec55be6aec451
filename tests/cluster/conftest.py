# SPDX-License-Identifier: Apache-2.0
"""The cluster with the release in it, once for all
tests: they run in order, like an operator's days.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.build import prepared
from tests.cluster.node import Cluster, running_cluster
from tests.cluster.release import NAMESPACE, SHOP, VALUES, Release, World, attacker
from tests.cluster.settings import PAUSE
from tests.image.build import image
from tests.support.force import VARIABLE, elsewhere, missing, need_program, need_root
from tests.support.waiting import wait_for
from tools.image.layout import archive, write_layout


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Installed in mode audit, on a node with the start-up taint, while a pod waited for it."""
    if "cluster" not in os.environ.get(VARIABLE, "").split(","):
        elsewhere("`make test-cluster` runs it")
    need_root()
    for program in ("containerd", "ctr", "runc", "openssl", "curl", "nsenter", "unshare", "ip"):
        need_program(program)
    programs = prepared()
    if programs is None:
        missing("cluster", "no Kubernetes in the cache: `make cluster-fetch`")
    with running_cluster(programs) as cluster:
        cluster.load(image().archive)
        _pause(cluster)
        for name in (NAMESPACE, SHOP):
            cluster.kubectl("create", "namespace", name)
        account = ("get", "serviceaccount", "default", "--namespace", SHOP)
        wait_for(lambda: cluster.kubectl(*account, check=False), "the controllers", every=0.5)
        cluster.apply(attacker("web", {"tier": "front"}))
        wait_for(lambda: _pods(cluster), "the pod", every=0.5)
        pending = str(_pods(cluster)[0]["status"]["phase"])
        release = Release(cluster)
        release.install(VALUES)
        yield World(cluster, release, pending)


def _pods(cluster: Cluster) -> list[dict[str, dict[str, str]]]:
    return list(cluster.get("pods", "--namespace", SHOP)["items"])


def _pause(cluster: Cluster) -> None:
    """An image whose entry point sleeps; it is at the path where our image builder has it."""
    root = cluster.directory / "pause"
    (root / "usr/bin").mkdir(parents=True)
    busybox = need_program("busybox")
    shutil.copy2(busybox, root / "sh")
    (root / "usr/bin/ringfence").write_text("#!/sh\nexec sleep 1000000\n")
    (root / "usr/bin/ringfence").chmod(0o755)
    write_layout(root, cluster.directory / "pause-layout", PAUSE, {})
    archive(cluster.directory / "pause-layout", cluster.directory / "pause.tar")
    cluster.load(cluster.directory / "pause.tar")
