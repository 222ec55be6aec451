# SPDX-License-Identifier: Apache-2.0
"""A runtime in a mount namespace of its own, as on nodes that are containers: its set-up is not
armed.

runc executes itself again (against CVE-2019-5736) after its caller may have moved it into the
container's cgroup. Mounts that are not the host's do not make it a workload then: they belong to
the creator of the cgroup.
"""

from __future__ import annotations

import secrets
import subprocess

import pytest

from tests.support.agent import Agent
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.waiting import patience, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("unshare")]

ATTACK = "unshare -U true"
# In the cgroup that it made: first in the runtime's own mounts, then in a mount namespace of the
# container.
SCRIPT = """
set -e
for path in {paths}; do mkdir "$path"; echo $$ > "$path/cgroup.procs"; done
sh -c '{attack}; echo set-up $?'
unshare -m sh -c '{attack}; echo workload $?'
"""


def test_a_runtimes_own_set_up_in_mounts_of_its_own_is_not_a_workload(agent: Agent) -> None:
    """The same call passes before the container's mounts exist, and is stopped after."""
    cgroup = Cgroup(f"{PREFIX}nested-{secrets.token_hex(3)}")
    script = SCRIPT.format(paths=" ".join(map(str, cgroup.paths.values())), attack=ATTACK)
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=patience(60),
        )
        said = dict(line.split() for line in done.stdout.splitlines())
        assert said["set-up"] == "0", done.stderr
        assert said["workload"] not in ("0", None), done.stderr
        alert = wait_for(
            lambda: next(
                (one for one in agent.records if one.get("rule", {}).get("id") == "userns-create"), None
            ),
            "the alert of the workload",
        )
        assert alert["container"]["id"] == cgroup.name
        assert len([one for one in agent.records if one.get("rule", {}).get("id") == "userns-create"]) == 1
    finally:
        cgroup.remove()
