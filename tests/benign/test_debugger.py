# SPDX-License-Identifier: Apache-2.0
"""Debuggers under the pack: they open memory for writing, as exploits of copy on write do.

If BPF-LSM denies it, they do their work by ptrace(2); without BPF-LSM it is only reported.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.benign.machine import host_root, new_bundle
from tests.benign.running import need, run_to_end, stopped
from tests.support import force
from tests.support.agent import running_agent
from tests.support.policies import PACK

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

RULE = "memory-file"
SCRIPT = """
cat > /srv/x.c <<'EOF'
#include <stdio.h>
int main(void)
{
	volatile int n = 1;
	printf("n is %d\\n", n);
	return n == 42 ? 0 : 1;
}
EOF
gcc -g -O0 -o /srv/x /srv/x.c
gdb -nx -batch -ex 'break 5' -ex run -ex 'set var n = 42' -ex 'break 6' -ex continue -ex 'print n' \\
    -ex continue /srv/x
strace -o /srv/trace -e inject=write:retval=9 /srv/x > /dev/null || test $? = 1
grep -q 'write.*INJECTED' /srv/trace
"""


def test_a_debugger_does_its_work(tmp_path: Path) -> None:
    """It sets break points, changes variables and continues; no other rule matches."""
    force.need_root()
    need(("gdb", "gcc", "strace"))
    by_hook = bool(NodeCapabilities.detect().lsm_hooks)
    with (
        running_agent(tmp_path / "agent", policies=[PACK], mode="enforce") as agent,
        host_root(tmp_path / "root") as root,
    ):
        bundle = new_bundle(tmp_path / "bundle", root, SCRIPT, ("CAP_SYS_PTRACE",))
        done = run_to_end(agent, bundle, "gdb", 120)
        assert "n is 42" in done.said, done.said
        assert "$1 = 42" in done.said, done.said
        assert done.status == 0, done.said
        outcomes = {(rule, outcome) for rule, outcome, _ in done.reported}
        assert outcomes == {(RULE, "denied" if by_hook else "seen")}
        assert set(stopped(agent)) == ({RULE} if by_hook else set())
