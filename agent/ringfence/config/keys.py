# SPDX-License-Identifier: Apache-2.0
"""Every key of the configuration, once: its name, parser, default and help."""

from __future__ import annotations

from pathlib import Path

from ringfence.config import values
from ringfence.config.model import DEFAULT_POLICIES, DEFAULT_SOCKET
from ringfence.config.outputs import IDENTITY_KEYS, OUTPUT_KEYS
from ringfence.config.probes import PROBE_KEYS
from ringfence.config.values import Key, Listen

__all__ = ["KEYS"]

KEYS: tuple[Key, ...] = (
    Key("policies", "policies", values.paths, (DEFAULT_POLICIES,),
        "policy files or directories (default: the bundled policies)", "PATH", many=True),
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
        "maximum number of tasks (threads) of one container; who makes more is treated as who reaches for"
        " the agent; 0: what half of the agent's free memory holds", "N"),
    Key("helpers", "helpers", values.paths, (),
        "additional programs that the kernel may run as usermode helpers (kernel.helper)", "PATH",
        many=True),
    Key("observe", "observe", values.observe, {},
        "what to report when no rule matches: EVENT=off|activity|alerts", "EVENT=LEVEL", many=True),
    Key("syscalls.compat", "compat", values.choice("full", "watch", "off"), "watch",
        "32-bit system calls cost every call of the node some 30 ns: watch; full: twice that, and files"
        " that they open are seen, too; off: they are blind", "full|watch|off"),
    Key("syscalls.learn", "learn", values.boolean, False,
        "count every call and capability of containers, for `ringfence run --learn`; it costs each call of"
        " the node some 100 ns", "yes|no"),
    Key("activity.rate", "activity_rate", values.integer(0, 10_000_000), 2000,
        "activity records per second and container; 0: unlimited", "N"),
    Key("activity.burst", "activity_burst", values.integer(1, 10_000_000), 8000,
        "burst of activity records per container", "N"),
    Key("verdicts.rate", "alert_rate", values.integer(0, 10_000_000), 500,
        "verdicts a second and container that are told, beside the first of each rule in a second; all are"
        " carried out and counted; 0: no limit", "N"),
    Key("verdicts.burst", "alert_burst", values.integer(1, 10_000_000), 256,
        "burst of reported verdicts per container", "N"),
    Key("rings.alerts", "alerts_ring", values.ring_size, 1 << 20, "size of the alerts ring buffer", "SIZE"),
    Key("rings.activity", "activity_ring", values.ring_size, 4 << 20,
        "size of the activity ring buffer", "SIZE"),
    Key("http.listen", "http_listen", values.listen, Listen("127.0.0.1", 9911),
        "address that serves /metrics, /healthz and /readyz", "HOST:PORT|off"),
    Key("http.gzip", "http_gzip", values.boolean, False,
        "gzip /metrics for clients that accept it: a tenth of the bytes, for some 10 ms of CPU", "yes|no"),
    Key("health.listen", "health_listen", values.listen, None,
        "additional address that serves only /healthz and /readyz", "HOST:PORT|off"),
    Key("socket", "socket", values.absolute_path, DEFAULT_SOCKET,
        "local socket for status, events, top and tree", "PATH"),
    Key("state_dir", "state_dir", values.absolute_path, Path("/run/ringfence"),
        "directory for runtime state: lock, hand-over files, queue, and a private bpffs", "PATH"),
    Key("pins", "pins", values.pins, "auto",
        "auto: enforcement outlives the agent, pinned in the node's bpffs or one of our own, or in one at"
        " PATH; off: it ends with it", "auto|off|PATH"),
    Key("fail_mode", "fail_mode", values.choice("closed", "open"), "closed",
        "closed: what is pinned is enforced on when the agent is stopped; open: an orderly stop ends it (a"
        " crash never does)", "closed|open"),
    Key("self_defence", "self_defence", values.choice("auto", "deny", "alert", "off"), "auto",
        "what becomes of a container that reaches for the agent itself (its process, programs, maps, pins,"
        " files, sockets, cgroup): deny it, or alert only; auto: deny, in mode audit alert", "WORD"),
    Key("detectors.off", "detectors_off", values.detectors, (),
        "detectors to disable (policies/README.md lists them)", "ID", many=True),
    Key("canary", "canary", values.boolean, True,
        "once a second, run a self-test from hook to alert in a cgroup of its own", "yes|no"),
    Key("output", "output", values.output, None,
        "where alerts are written, as JSON lines", "stdout|PATH"),
    Key("log.level", "log_level", values.choice("debug", "info", "warning", "error"), "info",
        "level of the agent's own log, on standard error", "LEVEL"),
    Key("metrics.containers", "metrics_containers", values.integer(0, 65536), 200,
        "number of containers with their own time series; the rest is aggregated as `other`", "N"),
    Key("metrics.program_stats", "program_stats", values.boolean, False,
        "measure the run time of every BPF program (kernel.bpf_stats; tens of nanoseconds per run)",
        "yes|no"),
    Key("runtime.roots", "runtime_roots", values.roots, {},
        "state directory of a container runtime, if not the default", "RUNTIME=PATH", many=True),
    *IDENTITY_KEYS, *OUTPUT_KEYS, *PROBE_KEYS,
)  # fmt: skip
