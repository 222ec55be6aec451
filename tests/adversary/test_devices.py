# SPDX-License-Identifier: Apache-2.0
"""Character devices are refused unless they are listed, under any name and whatever their number is."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.policy import NodeTiers, compile_policies, load_policies
from ringfence.policy.drivers import node_drivers
from ringfence.policy.install import Generations
from tests.kernel.probes import LABEL, Probes, running
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
POLICY = Path(__file__).resolve().parents[2] / "policies/devices.yaml"
#: opens each node, and says the errno
OPEN = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
        print(path, 0)
    except OSError as error:
        print(path, error.errno)
"""


@pytest.fixture(scope="module")
def generations(probes: Probes) -> Generations:
    """The default policy on devices, as a node has it."""
    made = Generations(probes.kernel.map)
    node = replace(NodeTiers.usual(), drivers=node_drivers())
    made.install(compile_policies(load_policies([POLICY]), node, "enforce"))
    return made


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """At all cgroup hooks."""
    with running() as made:
        yield made


@pytest.fixture
def cgroup(generations: Generations) -> Iterator[Cgroup]:
    """A container under that policy."""
    with new_cgroup(LABEL) as made:
        yield made


def opened(cgroup: Cgroup | None, directory: Path, *numbers: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Returns the errno of opening a node of each number, in a container or (None) on the host."""
    paths = {}
    for major, minor in numbers:
        path = directory / f"n-{major}-{minor}"
        path.unlink(missing_ok=True)
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        paths[str(path)] = (major, minor)
    argv = [sys.executable, "-c", OPEN, *paths]
    if cgroup is None:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    else:
        done = cgroup.run(argv, capture_output=True, text=True)
    return {paths[line.split()[0]]: int(line.split()[1]) for line in done.stdout.splitlines()}


def test_devices_that_are_not_listed_are_refused(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Consoles, screens, raw disks, firmware, and numbers that drivers get when they are loaded."""
    numbers = [(4, 1), (4, 64), (7, 1), (13, 63), (10, 1), (10, 127), (254, 0), (250, 3), (511, 1), (4095, 7)]
    numbers += [(number, 0) for word in ("mei", "bsg", "nvme-generic", "uio", "vfio", "hidraw", "ttyS")
                for number in node_drivers().get(f"c driver {word}", ())]  # fmt: skip
    assert opened(cgroup, tmp_path, *numbers) == dict.fromkeys(numbers, errno.EPERM)
    reported = probes.wait(cgroup, K.DEVICE_ACCESS, len(set(numbers)))
    assert {(e.action, e.mechanism) for e in reported} == {(Action.DENY, Mechanism.CGROUP)}


def test_devices_of_every_container_pass(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """And those that runtimes grant: they open, or fail, as they do on the host. Video is reported."""
    numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 2), (136, 9999)]
    numbers += [(10, 200), (10, 229), (10, 232), (10, 238), (81, 0), (116, 0), (195, 0), (226, 128)]
    assert opened(cgroup, tmp_path, *numbers) == opened(None, tmp_path, *numbers)
    reported = probes.wait(cgroup, K.DEVICE_ACCESS)
    assert {(event.major, event.minor, event.action) for event in reported} == {(81, 0, Action.ALERT)}


def test_a_node_may_be_made(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Images carry them, and overlay filesystems mark removed files so. It cannot be opened."""
    path = tmp_path / "made"
    act = f"import os, stat; os.mknod({str(path)!r}, 0o600 | stat.S_IFCHR, os.makedev(4, 2))"
    assert cgroup.run([sys.executable, "-c", act]).returncode == 0
    assert path.is_char_device()
