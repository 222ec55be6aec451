# SPDX-License-Identifier: Apache-2.0
"""The table of configuration keys: each with its name, parser, default and help text."""

from __future__ import annotations

from pathlib import Path

from ringfence.config import values
from ringfence.config.outputs import IDENTITY_KEYS, OUTPUT_KEYS
from ringfence.config.probes import PROBE_KEYS
from ringfence.config.values import Key, Listen
from ringfence.places import DEFAULT_POLICIES, DEFAULT_SOCKET

__all__ = ["KEYS"]

KEYS: tuple[Key, ...] = (
    Key("policies_kept", "policies_kept", values.off_or(values.absolute_path), None,
        "file that keeps the last policies that were in force; used at a start with refused policies",
        "off|PATH"),
    Key("policies", "policies", values.paths, (DEFAULT_POLICIES,),
        "policy files or directories; if the default is absent, the bundled ones", "PATH", many=True),
    Key("mode", "mode", values.choice("audit", "enforce", "policy"), "policy",
        "audit: block nothing, report what would be blocked; enforce: enforce every policy; policy: use"
        " each policy's own mode", "MODE"),
    Key("containers.patterns", "patterns", values.patterns, (),
        "additional cgroup names of containers: `name-*`, or `name-{hex64}`", "NAME", many=True),
    Key("containers.known", "known_names", values.boolean, True,
        "recognise the cgroup names of Docker, containerd, CRI-O and Podman; no: only `patterns`", "yes|no"),
    Key("containers.adopt", "adopt", values.boolean, True,
        "enrol containers that are already running when the agent starts", "yes|no"),
    Key("containers.max", "max_containers", values.integer(1, 65536), 4096,
        "maximum number of containers; further ones are counted but not enrolled", "N"),
    Key("containers.tasks", "max_tasks", values.integer(0, 1 << 22), 0,
        "maximum number of tasks (threads) per container; a container that exceeds it is handled as an"
        " attack on the agent; 0: as many as fit in half of the agent's free memory", "N"),
    Key("containers.grace", "runtime_grace", values.integer(1, 30), 3,
        "seconds that a runtime may take between leaving the host's root and executing the workload; then"
        " policies apply to it; more on a node where containers start slowly", "SECONDS"),
    Key("host_files.writable", "writable", values.any_paths, (),
        "additional files and directories of the host that containers may write to (rules with `tree:"
        " host`); `*` is any part of one component", "PATH", many=True),
    Key("helpers", "helpers", values.any_paths, (),
        "additional programs that the kernel may run as usermode helpers (kernel.helper)", "PATH",
        many=True),
    Key("observe", "observe", values.observe, {},
        "what to report when no rule matches: EVENT=off|activity|alerts", "EVENT=LEVEL", many=True),
    Key("syscalls.compat", "compat", values.choice("full", "watch", "off"), "watch",
        "monitoring of 32-bit system calls; watch: all but file opens, adds about 30 ns to every system"
        " call on the node; full: file opens as well, about 60 ns; off: not monitored", "full|watch|off"),
    Key("syscalls.learn", "learn", values.boolean, False,
        "count the system calls and capability checks of containers, for `ringfence run --learn`; adds"
        " about 100 ns to every system call on the node", "yes|no"),
    Key("preemption", "preemption", values.choice("unknown", "none", "voluntary", "full", "lazy"), "unknown",
        "how the kernel preempts itself, if the agent cannot find out by debugfs or the kernel's"
        " configuration; unknown: assume that it does", "MODEL"),
    Key("activity.rate", "activity_rate", values.integer(0, 10_000_000), 2000,
        "maximum activity records per second and container; 0: unlimited", "N"),
    Key("activity.burst", "activity_burst", values.integer(1, 10_000_000), 8000,
        "burst size for `activity.rate`: records that a container may send at once after an idle time",
        "N"),
    Key("verdicts.rate", "alert_rate", values.integer(0, 10_000_000), 500,
        "maximum alerts per second and container, besides the first alert of each rule in that second;"
        " verdicts above the limit are still enforced and counted; 0: unlimited", "N"),
    Key("verdicts.burst", "alert_burst", values.integer(1, 10_000_000), 256,
        "burst size for `verdicts.rate`: alerts that a container may raise at once after an idle time",
        "N"),
    Key("rings.alerts", "alerts_ring", values.ring_size, 1 << 20,
        "size of the ring buffer for alerts, a power of two", "SIZE"),
    Key("rings.activity", "activity_ring", values.ring_size, 4 << 20,
        "size of the ring buffer for activity records, a power of two", "SIZE"),
    Key("http.listen", "http_listen", values.listen, Listen("127.0.0.1", 9911),
        "address that serves /metrics, /healthz and /readyz", "HOST:PORT|off"),
    Key("http.gzip", "http_gzip", values.boolean, False,
        "gzip /metrics for clients that accept it: a tenth of the size, for about 10 ms of CPU time",
        "yes|no"),
    Key("health.listen", "health_listen", values.listen, None,
        "additional address that serves only /healthz and /readyz", "HOST:PORT|off"),
    Key("socket", "socket", values.absolute_path, DEFAULT_SOCKET,
        "local socket for status, events, top and tree", "PATH"),
    Key("state_dir", "state_dir", values.absolute_path, Path("/run/ringfence"),
        "directory for runtime state: lock, takeover files, queue, and a private bpffs", "PATH"),
    Key("pins", "pins", values.pins, "auto",
        "pin BPF programs and maps so that enforcement continues without the agent; auto: in the node's"
        " bpffs, or a private one; PATH: in the bpffs at PATH; off: enforcement ends with the agent",
        "auto|off|PATH"),
    Key("fail_mode", "fail_mode", values.choice("closed", "open"), "closed",
        "what happens to pinned enforcement when the agent is stopped; closed: it continues; open: it ends"
        " (but continues after a crash)", "closed|open"),
    Key("self_defence", "self_defence", values.choice("auto", "deny", "alert", "off"), "auto",
        "action when a container accesses the agent itself (its process, programs, maps, pins, files,"
        " sockets, cgroup); auto: deny, in mode audit alert; off: no check", "auto|deny|alert|off"),
    Key("detectors.off", "detectors_off", values.detectors, (),
        "detectors to disable (policies/README.md lists them)", "ID", many=True),
    Key("canary", "canary", values.boolean, True,
        "self-test once per second: trigger an event in a private cgroup and check that its alert arrives",
        "yes|no"),
    Key("output", "output", values.output, None,
        "file that alerts are written to as JSON lines, or standard output", "stdout|PATH"),
    Key("log.level", "log_level", values.choice("debug", "info", "warning", "error"), "info",
        "level of the agent's own log, on standard error", "LEVEL"),
    Key("metrics.containers", "metrics_containers", values.integer(0, 65536), 200,
        "maximum number of containers with their own time series; the others are summed up as `other`", "N"),
    Key("metrics.program_stats", "program_stats", values.boolean, False,
        "measure the run time of every BPF program (sysctl kernel.bpf_stats_enabled; costs tens of"
        " nanoseconds per run)", "yes|no"),
    Key("runtime.roots", "runtime_roots", values.roots, {},
        "state directory or socket of a container runtime, if not the default", "RUNTIME=PATH", many=True),
    *IDENTITY_KEYS, *OUTPUT_KEYS, *PROBE_KEYS,
)  # fmt: skip
