# SPDX-License-Identifier: Apache-2.0
"""Configuration: three equivalent sources, and all errors at once, each with its location."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import KEYS, Config, load
from ringfence.config.receivers import Receiver
from ringfence.config.values import Listen, Pattern
from ringfence.errors import ConfigError


def write(directory: Path, text: str) -> Path:
    """A configuration file."""
    path = directory / "agent.yaml"
    path.write_text(text)
    return path


def refused(file: Path | None = None, **sources: dict[str, str] | dict[str, list[str]]) -> list[str]:
    """Returns the lines of the error that this configuration must raise."""
    environment = sources.get("environment", {})
    with pytest.raises(ConfigError) as caught:
        load(file, environment, sources.get("flags", {}))  # type: ignore[arg-type]
    return caught.value.message.splitlines()


def test_every_key_works_in_a_file(tmp_path: Path) -> None:
    """One file sets every key."""
    config = load(
        write(
            tmp_path,
            """
policies: [/etc/a, /etc/b]
mode: enforce
containers: {patterns: ["app-*", "box-{hex64}"], known: no, adopt: no, max: 16}
observe: {file.open: activity, unshare: off}
syscalls: {compat: off}
activity: {rate: 10, burst: 20}
rings: {alerts: 64KiB, activity: 1MiB}
http: {listen: "[::1]:80", gzip: yes}
health: {listen: "[::]:81"}
socket: /tmp/s
state_dir: /tmp/d
pins: off
output: /tmp/out
log: {level: debug}
metrics: {containers: 5, program_stats: yes}
runtime: {roots: {runc: /run/r}}
cri: {socket: off}
kubernetes: {watch: on, api: "https://h:6443", node: n1, token: /t, ca: /c}
alerts:
  webhook: ["http://h/a", "http://h/a", "https://h/b"]
  alertmanager: {url: "http://am:9093", headers: /am, ca: off, certificate: /c, key: /k}
  syslog: [udp://h:514, {url: "tls://h", ca: /s}]
  otlp: []
  file: /tmp/alerts
  file_size: 2MiB
  file_keep: 0
  format: ecs
  severity: high
  headers: /h
  ca: off
  certificate: /me
  labels: {cluster: prod, region: eu-1}
  timeout: 3
  queue_dir: /q
  queue_size: 1GiB
  queue_sync: always
  identity_wait: 0
  rate: 7
  burst: 8
  repeat: 9
redact: {patterns: ["key-[0-9]+"], defaults: no}
page: {listen: on}
audit: {interval: 0}
""",
        ),
        {},
    )
    assert config.policies == (Path("/etc/a"), Path("/etc/b"))
    assert config.mode == "enforce"
    assert config.patterns == (Pattern("app-", hex64=False), Pattern("box-", hex64=True))
    assert (config.adopt, config.max_containers) == (False, 16)
    assert config.observe == {"file.open": "activity", "unshare": "off"}
    assert config.compat == "off"
    assert (config.activity_rate, config.activity_burst) == (10, 20)
    assert (config.alerts_ring, config.activity_ring) == (65536, 1 << 20)
    assert (config.http_listen, config.http_gzip) == (Listen("::1", 80), True)
    assert config.health_listen == Listen("::", 81)
    assert (config.socket, config.output) == (Path("/tmp/s"), Path("/tmp/out"))
    assert config.program_stats is True
    assert config.runtime_roots == {"runc": Path("/run/r")}
    assert (config.cri_socket, config.kubernetes_watch) == (None, "on")
    assert (config.kubernetes_api, config.kubernetes_node) == ("https://h:6443", "n1")
    assert (config.kubernetes_token, config.kubernetes_ca) == (Path("/t"), Path("/c"))
    assert config.alerts_webhook == (Receiver("http://h/a"), Receiver("https://h/b"))
    assert config.alerts_alertmanager == (
        Receiver("http://am:9093", headers=Path("/am"), ca=None, certificate=Path("/c"), key=Path("/k")),
    )
    assert config.alerts_syslog == (Receiver("udp://h:514"), Receiver("tls://h", ca=Path("/s")))
    assert config.alerts_otlp == ()
    assert (config.alerts_file, config.alerts_file_size, config.alerts_file_keep) == (
        Path("/tmp/alerts"), 2 << 20, 0,
    )  # fmt: skip
    assert (config.alerts_format, config.alerts_severity, config.alerts_timeout) == ("ecs", "high", 3)
    assert (config.alerts_headers, config.alerts_ca) == (Path("/h"), None)
    assert config.alerts_certificate == Path("/me")
    assert config.alerts_labels == {"cluster": "prod", "region": "eu-1"}
    assert (config.alerts_queue_dir, config.alerts_queue_size) == (Path("/q"), 1 << 30)
    assert (config.alerts_queue_sync, config.alerts_identity_wait) == ("always", 0)
    assert (config.alerts_rate, config.alerts_burst, config.alerts_repeat) == (7, 8, 9)
    assert [pattern.pattern for pattern in config.redact_patterns] == ["key-[0-9]+"]
    assert config.redact_defaults is False
    assert config.page_listen == Listen("127.0.0.1", 9912)
    assert config.audit_interval == 0


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("alerts.webhook", "ftp://h/"), ("alerts.webhook", "http://user:secret@h/"),
        ("alerts.webhook", "http://h:99999/"), ("alerts.webhook", "http:///x"), ("alerts.otlp", "h:4318"),
        ("alerts.webhook", "http://h/a b"), ("alerts.syslog", "h:514"), ("alerts.syslog", "unix://rel/path"),
        ("alerts.syslog", "tcp://h:x"), ("alerts.queue_size", "1KiB"), ("alerts.queue_size", "0"),
        ("redact.patterns", "("), ("redact.patterns", "a*"), ("cri.socket", "containerd.sock"),
        ("kubernetes.api", "10.0.0.1"),
        ("kubernetes.api", "http://10.0.0.1:8080"), ("kubernetes.api", "http://api.example"),
        ("page.listen", "9912"), ("alerts.format", "cef"),
        ("alerts.identity_wait", "60001"), ("kubernetes.node", "Node_1"), ("kubernetes.node", "a..b"),
        ("kubernetes.node", "x" * 254), ("kubernetes.taint", "a/b/c"), ("kubernetes.taint", "-x"),
    ],
)  # fmt: skip
def test_addresses_sizes_and_expressions_are_checked(key: str, word: str) -> None:
    """Errors that would otherwise show only with the first alert are refused at start."""
    [line] = refused(flags={key: [word]})
    assert line.startswith("--" + key.replace(".", "-").replace("_", "-"))


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:8001", "http://[::1]:8001", "http://localhost", "https://h"]
)
def test_an_api_server_without_tls_is_accepted_only_on_the_loopback(url: str) -> None:
    """As with `kubectl proxy`; elsewhere the token would cross the network unencrypted."""
    assert load(None, {}, {"kubernetes.api": [url]}).kubernetes_api == url


def test_a_node_and_a_taint_must_be_strings(tmp_path: Path) -> None:
    """Other YAML values are errors with a location, not an API path of the wrong node."""
    for text in ("{node: [a, b]}", "{node: {a: b}}", "{taint: [x]}", "{taint: {}}"):
        [line] = refused(write(tmp_path, f"kubernetes: {text}\n"))
        assert line.startswith(f"{tmp_path}/agent.yaml:1:")
    load(
        None, {}, {"kubernetes.node": ["ip-10-0-0-1.eu.example"], "kubernetes.taint": ["a.example/not_Ready"]}
    )


def test_the_node_name_is_configured_or_the_host_name() -> None:
    """Without a name the host name is used as the kubelet registers it; an empty variable is no name."""
    assert load(None, {"RINGFENCE_KUBERNETES_NODE": "node-7"}).node_name == "node-7"
    assert load(None, {"RINGFENCE_KUBERNETES_NODE": ""}).node_name == platform.node().lower()


@pytest.mark.parametrize("name", ["RINGFENCE_HTTP_LISTEN", "RINGFENCE_MODE"])
def test_an_empty_variable_is_an_error_if_the_key_needs_a_value(name: str) -> None:
    """The error is a message, not a traceback."""
    assert refused(environment={name: ""})[0].startswith(f"{name}: ''")


def test_two_outputs_cannot_share_a_path_or_address() -> None:
    """Neither the alert file and the output, nor the status page and the metrics or health address."""
    assert refused(flags={"output": ["/tmp/x"], "alerts.file": ["/tmp/x"]})
    assert refused(flags={"http.listen": ["127.0.0.1:1"], "page.listen": ["127.0.0.1:1"]})
    assert refused(flags={"health.listen": ["127.0.0.1:1"], "page.listen": ["127.0.0.1:1"]})


def test_a_flag_overrides_a_variable_which_overrides_the_file(tmp_path: Path) -> None:
    """Precedence is decided for each key."""
    file = write(tmp_path, "mode: audit\npins: off\nactivity: {rate: 1}\n")
    environment = {"RINGFENCE_MODE": "policy", "RINGFENCE_ACTIVITY_RATE": "2"}
    config = load(file, environment, {"activity.rate": ["3"]})
    assert (config.pins, config.mode, config.activity_rate) == ("off", "policy", 3)


def test_all_errors_are_reported_at_once_with_their_locations(tmp_path: Path) -> None:
    """Unknown keys with a suggestion, wrong values, duplicates: file, line and column for each."""
    file = write(
        tmp_path, "mod: enforce\nhttp:\n  listen: nowhere\n  port: 80\npins: maybe\npins: off\nrings: 7\n"
    )
    lines = refused(file, environment={"RINGFENCE_MODE": "kill"})
    assert lines == [
        f"{file}:1:1: mod: unknown key; did you mean 'mode'?",
        f"{file}:3:11: http.listen: 'nowhere' is not HOST:PORT, [IPv6]:PORT or 'off'",
        f"{file}:4:3: http.port: unknown key; known: listen, gzip",
        f"{file}:5:7: pins: 'maybe' is not 'auto', 'off' or an absolute path",
        f"{file}:6:1: pins: already set in line 5",
        f"{file}:7:8: rings: must be a mapping of keys to values",
        "RINGFENCE_MODE: 'kill' is not one of 'audit', 'enforce', 'policy'",
    ]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("RINGFENCE_MOD", "; did you mean 'RINGFENCE_MODE'?"),
        ("RINGFENCE_MOED", "; did you mean 'RINGFENCE_MODE'?"),
        ("RINGFENCE_POLICY", "; did you mean 'RINGFENCE_POLICIES'?"),
        ("RINGFENCE_XYZZY", ""),
        ("RINGFENCE_", ""),
        ("RINGFENCE_PORTS", None),
        ("RINGFENCE_HTTP_PORTAL", None),
    ],
)
def test_a_variable_that_is_no_key_is_refused(name: str, suggestion: str | None) -> None:
    """RINGFENCE_MOED=enforce would leave a node unprotected, without a word."""
    [line] = refused(environment={name: "enforce"})
    assert line.startswith(f"{name}: unknown variable")
    if suggestion is not None:
        assert line == f"{name}: unknown variable{suggestion}"


def test_variables_of_kubernetes_and_of_the_runtime_are_not_refused() -> None:
    """Service links of a service `ringfence` and of one `ringfence-page`; what the runtime and tests read."""
    names = (
        "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT", "PORT_9911_TCP",
        "PORT_9911_TCP_PROTO", "PORT_9911_TCP_PORT", "PORT_9911_TCP_ADDR", "PAGE_SERVICE_HOST",
        "PAGE_PORT", "PAGE_PORT_9912_TCP_ADDR",
        "ENROLL_SOCKET", "USERNS_DIR", "USERNS_POOL", "FORCE", "VM", "VM_CACHE", "TEST_PREFIX",
    )  # fmt: skip
    assert load(None, {f"RINGFENCE_{name}": "x" for name in names}) == load(None, {})


@pytest.mark.parametrize("pattern", ["*", "{hex64}", "app", "a/b*", "a*b*", "x" * 60 + "*", ""])
def test_a_pattern_cannot_match_every_cgroup(pattern: str) -> None:
    """A bare `*` matches the whole host; a pattern needs a name that fits the kernel's table."""
    assert refused(flags={"containers.patterns": [pattern]})


@pytest.mark.parametrize("size", ["0", "100000", "1GiB", "12KiB", "-1", "4 MB", "9" * 30])
def test_a_ring_size_is_a_power_of_two(size: str) -> None:
    """The kernel accepts no other size."""
    assert refused(flags={"rings.alerts": [size]})


@pytest.mark.parametrize(
    "text",
    [
        "{", "- a\n- b\n", "a: &x [*x]\n", "mode: [enforce]\n", "mode:\n", "? {a: b}\n: c\n", "\x00", "\xff",
        "policies: []\n", "policies: [[a]]\n", "socket: relative/path\n", "observe: {nothing.such: off}\n",
        "x: &a [a,a,a,a,a,a,a,a]\ny: &b [*a,*a,*a,*a,*a,*a,*a]\nz: &c [*b,*b,*b,*b,*b,*b,*b]\n"
        "mode: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
    ],
)  # fmt: skip
def test_broken_files_are_refused_with_a_message(tmp_path: Path, text: str) -> None:
    """Invalid YAML, a wrong structure and exponential aliases raise a ConfigError, nothing else."""
    path = tmp_path / "agent.yaml"
    path.write_text(text, encoding="latin-1")
    assert refused(path)[0].startswith(str(path))


def test_a_file_named_by_the_user_must_exist(tmp_path: Path) -> None:
    """Only the default file may be absent."""
    assert refused(tmp_path / "absent.yaml") == [f"{tmp_path}/absent.yaml: no such file"]
    assert isinstance(load(None, {}), Config)


@given(st.text(max_size=200))
def test_any_text_yields_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No other exception escapes, for arbitrary file contents."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load(path, {})
    except ConfigError:
        pass


def test_every_key_has_one_name_in_each_source() -> None:
    """Fields, flags and variables are unique; every field of Config but `file` has a key."""
    assert {key.field for key in KEYS} == set(Config._fields) - {"file"}
    assert len({key.flag for key in KEYS}) == len({key.variable for key in KEYS}) == len(KEYS)


def test_variables_of_others_are_ignored() -> None:
    """Only what begins with RINGFENCE_ can be a near miss."""
    assert load(None, {"OTHERTOOL_MODE": "kill", "XXXXXXXXX_MOD": "x"}).mode == load(None, {}).mode
