# SPDX-License-Identifier: Apache-2.0
"""The checked configuration, and where things are when nobody says."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ringfence.config.receivers import Receiver
from ringfence.config.values import Listen, Pattern

__all__ = ["DEFAULT_FILE", "DEFAULT_POLICIES", "DEFAULT_SOCKET", "ENROLL_SOCKET", "Config", "Mode"]

DEFAULT_FILE = Path("/etc/ringfence/agent.yaml")
DEFAULT_SOCKET = Path("/run/ringfence/agent.sock")
ENROLL_SOCKET = "enroll.sock"  # its name, beside the agent's socket
DEFAULT_POLICIES = Path("/etc/ringfence/policies")
Mode = Literal["audit", "enforce", "policy"]


class Config(NamedTuple):
    """A checked configuration. Sizes are bytes, rates are records a second and container."""

    file: Path  # it need not be there
    policies: tuple[Path, ...]
    mode: Mode
    patterns: tuple[Pattern, ...]
    known_names: bool  # the cgroup names of the known runtimes are containers, too
    adopt: bool
    max_containers: int
    max_tasks: int  # of one container; 0: by the agent's memory limit
    helpers: tuple[Path, ...]  # programs that the kernel may run, beside those that it was told of
    observe: Mapping[str, str]  # event label -> off, activity, alerts
    compat: Literal["full", "watch", "off"]
    learn: bool
    activity_rate: int
    activity_burst: int
    alert_rate: int
    alert_burst: int
    alerts_ring: int
    activity_ring: int
    http_listen: Listen | None
    http_gzip: bool
    health_listen: Listen | None  # None: only where metrics are served
    socket: Path
    state_dir: Path
    pins: str  # auto, off, or where a bpffs is or may be mounted
    fail_mode: Literal["closed", "open"]
    self_defence: Literal["auto", "deny", "alert", "off"]
    canary: bool
    detectors_off: tuple[str, ...]
    output: Path | None  # None: standard output
    log_level: str
    metrics_containers: int
    program_stats: bool
    runtime_roots: Mapping[str, Path]  # runc, crun, containerd, docker, podman -> state directory or socket
    cri_socket: Path | Literal["auto"] | None
    kubernetes_watch: Literal["auto", "on", "off"]
    kubernetes_api: str  # URL; empty: what the pod's environment says
    kubernetes_node: str  # empty: the host's name; see `node_name`
    kubernetes_taint: str  # empty: none
    kubernetes_token: Path
    kubernetes_ca: Path | None  # None: whom the system believes
    alerts_webhook: tuple[Receiver, ...]
    alerts_alertmanager: tuple[Receiver, ...]
    alerts_syslog: tuple[Receiver, ...]
    alerts_otlp: tuple[Receiver, ...]
    alerts_file: Path | None
    alerts_file_size: int
    alerts_file_keep: int
    alerts_format: Literal["native", "ecs", "ocsf"]
    alerts_severity: str  # the least that leaves the node
    alerts_headers: Path | None
    alerts_ca: Path | None
    alerts_certificate: Path | None
    alerts_labels: Mapping[str, str]
    alerts_timeout: int  # seconds
    alerts_queue_dir: Path | None  # None: `queue` below state_dir; see `queue_dir`
    alerts_queue_size: int
    alerts_queue_sync: Literal["always", "second", "never"]
    alerts_identity_wait: int  # ms
    alerts_rate: int  # a minute
    alerts_burst: int
    alerts_repeat: int  # seconds
    redact_patterns: tuple[re.Pattern[str], ...]
    redact_defaults: bool
    page_listen: Listen | None
    audit_interval: int  # seconds; 0: never
    probes_directory: Path | None  # None: no custom probes
    probes_headers: Literal["btf", "installed"]
    probes_memory: int
    probes_timeout: int  # seconds

    @property
    def defence(self) -> Literal["deny", "alert", "off"]:
        """`self_defence`, decided: an agent that only looks on does so here, too."""
        if self.self_defence == "auto":
            return "alert" if self.mode == "audit" else "deny"
        return self.self_defence

    @property
    def enroll_socket(self) -> Path:
        """Where runtimes ask for containers to be enrolled: beside `socket`."""
        return self.socket.with_name(ENROLL_SOCKET)

    @property
    def queue_dir(self) -> Path:
        """Alerts that wait for receivers, a directory each."""
        return self.alerts_queue_dir or self.state_dir / "queue"

    @property
    def enrolments_dir(self) -> Path:
        """Enrolment requests of runtimes (ringfence.daemon.tracking.enrolment_store)."""
        return self.state_dir / "told"

    @property
    def workshop_dir(self) -> Path:
        """Header trees, and custom probes that are being compiled (ringfence.probes.compiler)."""
        return self.state_dir / "probes"

    @property
    def node_name(self) -> str:
        """This node, as its cluster calls it, in all that leaves it and in all that is asked about it.

        Without `kubernetes.node` the host's own name in lower case, as the kubelet registers it.
        """
        return self.kubernetes_node or platform.node().lower()
