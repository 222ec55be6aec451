# SPDX-License-Identifier: Apache-2.0
"""The first steps of a start, in parallel: the kernel verifies the programs while Python imports
the rest of the agent. Each takes a quarter of a second. So this module imports little; `run` is
the daemon's entry point.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from dataclasses import asdict

from ringfence.abi import GUARD_ALERT, GUARD_DENY, GUARD_OFF
from ringfence.bpf.attach import never_attached
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.kernel import Kernel, KernelSettings
from ringfence.bpf.lsm import HOOKS, decided_by
from ringfence.bpf.preemption import Preemption
from ringfence.config import Config
from ringfence.containers.hierarchy import (
    Hierarchy,
    HostNamespaces,
    cgroup_id,
    detect,
    host_namespaces,
    own_cgroup,
)
from ringfence.daemon.parts import Node
from ringfence.daemon.startup.handover import NOTHING, admit, earlier_pins
from ringfence.daemon.startup.lock import Lock
from ringfence.daemon.startup.resource_limits import ResourceLimits, raise_priority

_GUARD = {"deny": GUARD_DENY, "alert": GUARD_ALERT, "off": GUARD_OFF}

__all__ = ["Boot", "kernel_settings", "run"]


def run(config: Config) -> int:
    """Be the agent until a signal stops it; returns the exit code."""
    early: list[int] = []
    signal.signal(
        signal.SIGHUP, lambda number, _frame: early.append(number)
    )  # its default would end this process
    with contextlib.ExitStack() as stack:
        boot = Boot(config, stack)
        from ringfence.daemon.agent import Agent

        agent = Agent(boot.node, stack, boot.kernel)
        agent.start()
        agent.run(hang_up=bool(early))
        agent.stop()
    if agent.restarts:
        # The same process: its supervisor sees no end. Its pins decide until it is ready again.
        os.execv(sys.executable, sys.orig_argv)
    return 0


class Boot:
    """The lock, the capabilities of the node, and the programs, which a thread loads from
    construction on.
    """

    def __init__(self, config: Config, stack: contextlib.ExitStack) -> None:
        lock = Lock(config.state_dir)
        stack.callback(lock.close)
        # Before any thread exists: each may hold the interpreter's lock, so all need the priority.
        raise_priority()
        handover = _pass_pins(config)  # before any call for which pinned programs would kill this process
        lock.sign()
        capabilities = NodeCapabilities.detect(Preemption(config.preemption))
        capabilities.require()
        hierarchy: Hierarchy = detect()
        host = host_namespaces()
        own = own_cgroup(hierarchy)
        limits = ResourceLimits(f"/{own.relative_to(hierarchy.mount)}" if own is not None else "")
        self.node = Node(config, hierarchy, capabilities, limits, handover, host.notes)
        self._settings = kernel_settings(config, hierarchy, host, capabilities, limits)
        self._kernel: Kernel | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="load", daemon=True)
        stack.callback(self._close)
        self._thread.start()

    def kernel(self) -> Kernel:
        """The loaded programs and maps; waits for them. Raises what the load raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._kernel is not None
        return self._kernel

    def _load(self) -> None:
        try:
            self._kernel = Kernel.load(self._settings)
        except BaseException as error:  # raised by `kernel`
            self._error = error

    def _close(self) -> None:
        self._thread.join()
        if self._kernel is not None:
            self._kernel.close()


def _pass_pins(config: Config) -> str:
    """In a pod, pass the pins of an earlier agent. Policies are checked first: a mistake in them
    must not use up a ticket or remove a pin.
    """
    earlier = earlier_pins(config)
    if not earlier:
        return NOTHING
    from ringfence.daemon.policies.manager import load
    from ringfence.policy import NodeTiers

    load(config, NodeTiers.usual().with_hooks(decided_by(HOOKS)))
    return admit(earlier, config.state_dir)


def kernel_settings(
    config: Config, hierarchy: Hierarchy, host: HostNamespaces, node: NodeCapabilities, limits: ResourceLimits
) -> KernelSettings:
    """Sizes and constants of the probes."""
    namespaces = {name: inum for name, inum in asdict(host).items() if name != "notes"}
    return KernelSettings(
        hierarchy=hierarchy.code,
        late=config.adopt,
        task_share=config.max_tasks or limits.task_share,
        root_cgroup=cgroup_id(hierarchy.mount),
        namespaces=namespaces,
        slots=config.max_containers,
        alerts_bytes=config.alerts_ring,
        activity_bytes=config.activity_ring,
        activity_rate=config.activity_rate,
        activity_burst=config.activity_burst,
        alert_rate=config.alert_rate,
        alert_burst=config.alert_burst,
        lsm_hooks=node.lsm_hooks,
        hook_mechanism=node.hook_mechanism,
        preemptible=node.preemption.may_skip,
        backstop=node.backstop,
        entries_skippable=node.preemption.may_skip,
        entry_backstop=node.entry_backstop,
        narrow_entries=bool(node.compat_entries),
        left_out=never_attached(config.compat, node.compat, node.compat_entries),
        tracing=node.tracing,
        learn=config.learn,
        guard=_GUARD[config.defence],
        refuse_unbound=config.mode != "audit",
        grace_ms=config.runtime_grace * 1000,
    )
