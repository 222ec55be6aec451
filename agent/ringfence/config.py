# SPDX-License-Identifier: Apache-2.0
"""What the agent is told: a YAML file, RINGFENCE_* variables and flags, in rising order of strength.

Every key is declared once, in KEYS; the file's `http: {listen: X}`, the variable RINGFENCE_HTTP_LISTEN and
the flag `--http-listen` are the same key. All mistakes are reported at once, with the place of each, and an
unknown key is a mistake: a misspelt `mode` must not leave a node unprotected in silence. Nothing here
touches the system beyond reading the one file.
"""

from __future__ import annotations

import difflib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ringfence import config_values as values
from ringfence.config_outputs import IDENTITY_KEYS, OUTPUT_KEYS
from ringfence.config_probes import PROBE_KEYS
from ringfence.config_receivers import Receiver, hosts_of_shared_headers
from ringfence.config_values import Key
from ringfence.errors import ConfigError, Problem

__all__ = [
    "DEFAULT_FILE",
    "DEFAULT_SOCKET",
    "ENROLL_SOCKET",
    "KEYS",
    "Config",
    "Key",
    "Listen",
    "Mode",
    "load",
    "packaged_policies",
]

DEFAULT_FILE = Path("/etc/ringfence/agent.yaml")
DEFAULT_SOCKET = Path("/run/ringfence/agent.sock")
ENROLL_SOCKET = "enroll.sock"  # its name, beside the agent's socket
DEFAULT_POLICIES = Path("/etc/ringfence/policies")
#: the pack that comes with the package: in a wheel, and in a checkout
_PACKAGED = (Path(__file__).parent / "_policies", Path(__file__).parents[2] / "policies")
Mode = Literal["audit", "enforce", "policy"]
Listen = values.Listen


class Config(NamedTuple):
    """A checked configuration. Sizes are bytes, rates are records a second and container."""

    file: Path  # it need not be there
    policies: tuple[Path, ...]
    mode: Mode
    patterns: tuple[values.Pattern, ...]
    known_names: bool  # the cgroup names of the known runtimes are containers, too
    adopt: bool
    max_containers: int
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
    def told_dir(self) -> Path:
        """What runtimes told of their containers (ringfence.daemon.told)."""
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

_BY_PATH = {key.path: key for key in KEYS}
_SECTIONS = {key.path.split(".")[0] for key in KEYS if "." in key.path}


def packaged_policies() -> Path | None:
    """The pack that came with this package; its optional rules are in `optional` below it."""
    return next((path for path in _PACKAGED if path.is_dir()), None)


def load(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Config:
    """The configuration from all three places; raises ConfigError with every problem, one a line.

    `file` None means DEFAULT_FILE, which may be absent; a file that was asked for must be there. `flags`
    maps a key's path to the words given.
    """
    chosen: dict[str, Any] = {key.path: key.default for key in KEYS}
    problems = _from_file(file, chosen)
    problems += _from_environment(environment, chosen)
    for path, words in (flags or {}).items():
        problems += _take_words(_BY_PATH[path], _BY_PATH[path].flag, words, chosen)
    problems += _cross_checks(chosen)
    if chosen["policies"] == (DEFAULT_POLICIES,) and not DEFAULT_POLICIES.exists():
        chosen["policies"] = (packaged_policies() or DEFAULT_POLICIES,)
    if problems:
        raise ConfigError(
            "\n".join(str(problem) for problem in problems),
            hint="`ringfence agent --help` lists the keys; `ringfence agent --check` tries a configuration",
        )
    return Config(file=file or DEFAULT_FILE, **{key.field: chosen[key.path] for key in KEYS})


def _from_file(file: Path | None, chosen: dict[str, Any]) -> list[Problem]:
    try:
        text = (file or DEFAULT_FILE).read_bytes()
    except FileNotFoundError:
        return [] if file is None else [Problem(str(file), 0, 0, "", "no such file")]
    except OSError as error:
        return [Problem(str(file or DEFAULT_FILE), 0, 0, "", f"cannot be read: {error.strerror}")]
    # YAML costs 30 ms to import; without a file nobody pays it here.
    from ringfence.config_file import read

    def take(path: str, value: Any) -> str | None:
        key = _BY_PATH.get(path)
        if key is None:
            section, _, word = path.rpartition(".")
            return f"unknown key{values.suggest(word, _known_in(section))}"
        try:
            chosen[path] = key.parse(value)
        except ValueError as error:
            return str(error)
        return None

    return read(str(file or DEFAULT_FILE), text, take, _SECTIONS)


def _known_in(section: str) -> list[str]:
    if section:
        return [key.path.rpartition(".")[2] for key in KEYS if key.path.rpartition(".")[0] == section]
    return sorted({key.path.split(".")[0] for key in KEYS})


def _from_environment(environment: Mapping[str, str], chosen: dict[str, Any]) -> list[Problem]:
    problems = []
    variables = {key.variable: key for key in KEYS}
    for name, value in sorted(environment.items()):
        if not name.startswith("RINGFENCE_"):
            continue
        if key := variables.get(name):
            words = [word for word in value.split(",") if word] if key.many else [value]
            problems += _take_words(key, name, words, chosen)
        # A cluster sets RINGFENCE_SERVICE_HOST and the like: only a near miss is taken for a mistake.
        elif near := difflib.get_close_matches(name[10:], [v[10:] for v in variables], n=1, cutoff=0.8):
            problems.append(Problem(name, 0, 0, "", f"unknown variable; did you mean 'RINGFENCE_{near[0]}'?"))
    return problems


def _take_words(key: Key, where: str, words: Sequence[str], chosen: dict[str, Any]) -> list[Problem]:
    try:
        chosen[key.path] = key.parse(list(words) if key.many else words[-1])
    except ValueError as error:
        return [Problem(where, 0, 0, "", str(error))]
    return []


def _cross_checks(chosen: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if chosen["activity.rate"] > 0 and chosen["activity.burst"] < chosen["activity.rate"] // 100:
        problems.append(
            Problem("activity.burst", 0, 0, "", "less than 10 ms of activity.rate: nothing would pass")
        )
    if chosen["output"] is not None and chosen["output"] == chosen["socket"]:
        problems.append(Problem("output", 0, 0, "", "is the same path as `socket`"))
    if chosen["alerts.file"] is not None and chosen["alerts.file"] in (chosen["output"], chosen["socket"]):
        problems.append(Problem("alerts.file", 0, 0, "", "is the same path as `output` or `socket`"))
    http = (*chosen["alerts.webhook"], *chosen["alerts.alertmanager"], *chosen["alerts.otlp"])
    if chosen["alerts.headers"] is not None and len(hosts := hosts_of_shared_headers(http)) > 1:
        text = f"would be shown to {', '.join(hosts)}: give each receiver `headers` of its own, or off"
        problems.append(Problem("alerts.headers", 0, 0, "", text))
    problems += _same_addresses(chosen)
    return problems


def _same_addresses(chosen: Mapping[str, Any]) -> list[Problem]:
    problems, seen = [], {chosen["http.listen"]: "http.listen"}
    for key in ("health.listen", "page.listen"):
        address = chosen[key]
        if address is not None and address.port and address in seen:
            problems.append(Problem(key, 0, 0, "", f"is the same address as `{seen[address]}`"))
        seen.setdefault(address, key)
    return problems
