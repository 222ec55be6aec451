# SPDX-License-Identifier: Apache-2.0
"""The checked configuration."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ringfence.config.accepted import Acceptance
from ringfence.config.receivers import Receiver
from ringfence.config.values import Listen, Pattern
from ringfence_linux.enroll import SOCKET_NAME

__all__ = ["Config", "Mode"]

Mode = Literal["audit", "enforce", "policy"]


class Config(NamedTuple):
    """A checked configuration. Sizes are in bytes, rates in records per second and container."""

    file: Path  # may be absent
    policies: tuple[Path, ...]
    mode: Mode
    patterns: tuple[Pattern, ...]
    known_names: bool  # cgroups named as the known runtimes name them are containers, too
    adopt: bool
    max_containers: int
    max_tasks: int  # per container; 0: derived from the agent's memory limit
    runtime_grace: int  # seconds: see probes/include/unarmed.h
    writable: tuple[Path, ...]  # of the host's files, besides those that containers are commonly given
    helpers: tuple[Path, ...]  # usermode helpers to allow, besides those found configured on the node
    observe: Mapping[str, str]  # event label -> off, activity, alerts
    compat: Literal["full", "watch", "off"]
    learn: bool
    preemption: Literal["unknown", "none", "voluntary", "full", "lazy"]  # if the kernel does not show it
    activity_rate: int
    activity_burst: int
    alert_rate: int
    alert_burst: int
    alerts_ring: int
    activity_ring: int
    http_listen: Listen | None
    http_gzip: bool
    health_listen: Listen | None  # None: only on http_listen
    socket: Path
    policies_kept: Path | None
    state_dir: Path
    pins: str  # auto, off, or the path of a bpffs (mounted there if absent)
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
    kubernetes_api: str  # URL; empty: from the pod's environment
    kubernetes_node: str  # empty: the host's name; see `node_name`
    kubernetes_taint: str  # empty: no taint
    kubernetes_token: Path
    kubernetes_ca: Path | None  # None: the system's CA store
    alerts_webhook: tuple[Receiver, ...]
    alerts_alertmanager: tuple[Receiver, ...]
    alerts_slack: tuple[Receiver, ...]
    alerts_teams: tuple[Receiver, ...]
    alerts_syslog: tuple[Receiver, ...]
    alerts_otlp: tuple[Receiver, ...]
    alerts_file: Path | None
    alerts_file_size: int
    alerts_file_keep: int
    alerts_format: Literal["native", "ecs", "ocsf"]
    alerts_severity: str  # minimum severity that is sent to receivers
    alerts_headers: Path | None
    alerts_ca: Path | None
    alerts_certificate: Path | None
    alerts_labels: Mapping[str, str]
    alerts_timeout: int  # seconds
    alerts_syslog_enterprise: int  # 0: none
    alerts_queue_dir: Path | None  # None: `queue` below state_dir; see `queue_dir`
    alerts_queue_size: int
    alerts_queue_sync: Literal["always", "second", "never"]
    alerts_identity_wait: int  # ms
    alerts_rate: int  # per minute
    alerts_burst: int
    alerts_repeat: int  # seconds
    redact_patterns: tuple[re.Pattern[str], ...]
    redact_defaults: bool
    page_listen: Listen | None
    audit_interval: int  # seconds; 0: never
    audit_accept: tuple[Acceptance, ...]
    probes_directory: Path | None  # None: no custom probes
    probes_headers: Literal["btf", "installed"]
    probes_memory: int
    probes_timeout: int  # seconds

    @property
    def defence(self) -> Literal["deny", "alert", "off"]:
        """The effective value of `self_defence`: `auto` means alert in mode audit, else deny."""
        if self.self_defence == "auto":
            return "alert" if self.mode == "audit" else "deny"
        return self.self_defence

    @property
    def enroll_socket(self) -> Path:
        """The socket for enrolment requests of runtimes: in the same directory as `socket`."""
        return self.socket.with_name(SOCKET_NAME)

    @property
    def queue_dir(self) -> Path:
        """The directory of queued alerts, with one subdirectory per receiver."""
        return self.alerts_queue_dir or self.state_dir / "queue"

    @property
    def enrolments_dir(self) -> Path:
        """Stored enrolment requests (ringfence.daemon.tracking.enrolment_store).

        The name on disk is part of the takeover between versions and stays as it is.
        """
        return self.state_dir / "told"

    @property
    def workshop_dir(self) -> Path:
        """Header trees and custom probes during compilation (ringfence.probes.compiler)."""
        return self.state_dir / "probes"

    @property
    def node_name(self) -> str:
        """The node's name in the cluster, in all output and in requests to the API server.

        Without `kubernetes.node` it is the host name in lower case, as the kubelet registers it.
        """
        return self.kubernetes_node or platform.node().lower()
