# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.dashboards`: Grafana dashboards, defined by their queries; a test compares the files.

Rates use $__rate_interval, sums over the shown time $__range. The variable `job` is the scrape's; the
others select namespace, pod and container. tools/grafana.py converts them to Grafana's JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.grafana import Dashboard, Panel, Variable, render

__all__ = ["DASHBOARDS", "DIRECTORY", "Dashboard", "Panel", "render"]

DIRECTORY = Path(__file__).resolve().parents[1] / "charts/ringfence/dashboards"
_J = 'job="$job"'
_C = 'job="$job", container=~"$container"'
_CHOSEN = 'job="$job", namespace=~"$namespace", pod=~"$pod", container=~"$container"'
_N = 'job="$job", namespace=~"$namespace"'
_STOPPED, _SEEN = 'outcome=~"denied|killed"', 'outcome=~"seen|would-deny|would-kill|kill-failed"'
_BAD_FROM_ONE = ((None, "green"), (1.0, "red"))
_GOOD_FROM_ONE = ((None, "red"), (1.0, "green"))
_FULL = ((None, "green"), (0.5, "orange"), (0.9, "red"))
_TO_NAMESPACE = (
    "Containers of this namespace",
    "ringfence-container",
    "var-namespace=${__field.labels.namespace}",
)
_TO_CONTAINER = (
    "This container",
    "ringfence-container",
    "var-namespace=${__data.fields.namespace}&var-pod=${__data.fields.pod}"
    "&var-container=${__data.fields.container}",
)


def _rate(metric: str, labels: str = _J, window: str = "$__rate_interval") -> str:
    return f"rate({metric}{{{labels}}}[{window}])"


def _activity(by: str, classes: str) -> str:
    chosen = f'{_C}, class=~"{classes}"'
    return f"sum by ({by}) ({_rate('ringfence_container_activity_total', chosen)})"


_NAMES = "max by (container, name, namespace, pod, image) (ringfence_container_info{%s})"
_VERDICTS = 'ringfence_container_activity_total{job="$job", class=~"alert|deny|kill"}'
FLEET = Dashboard(
    "ringfence-fleet", "Ringfence: fleet",
    (
        ("Now", (
            Panel("Agents that answer", "stat", ((f"sum(up{{{_J}}})", ""),), width=3, steps=_GOOD_FROM_ONE),
            Panel("Agents that do not answer", "stat", ((f"count(up{{{_J}}} == 0) or vector(0)", ""),), width=3,
                  steps=_BAD_FROM_ONE),
            Panel("Nodes that enforce", "stat",
                  ((f'count(sum by (instance) (ringfence_rules{{{_J}, action=~"deny|kill"}}) > 0) or vector(0)', ""),),
                  text="Nodes with at least one rule that denies or kills.", width=3, steps=_GOOD_FROM_ONE),
            Panel("Containers", "stat", ((f'sum(ringfence_containers{{{_J}, state="running"}})', ""),), width=3),
            Panel("Attempts stopped", "stat",
                  ((f"sum(increase(ringfence_alerts_total{{{_J}, {_STOPPED}}}[$__range]))", ""),), width=4,
                  steps=((None, "green"), (1.0, "orange")), text="In the time shown."),
            Panel("Attempts not stopped", "stat",
                  ((f"sum(increase(ringfence_alerts_total{{{_J}, {_SEEN}}}[$__range]))", ""),), steps=_BAD_FROM_ONE,
                  text="Only seen: mode audit, rules that alert, or no mechanism on the node to stop it.", width=4),
            Panel("Canary, longest silence", "stat", ((f"max(ringfence_canary_seconds{{{_J}}})", ""),), "s", width=4,
                  steps=((None, "green"), (3.0, "orange"), (5.0, "red"))),
        )),
        ("Attempts", (
            Panel("By ATT&CK technique", "timeseries",
                  ((f"sum by (technique) ({_rate('ringfence_attempts_total', _N)})", "{{technique}}"),), "ops"),
            Panel("By node", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_alerts_total')})", "{{node}}"),), "ops"),
            Panel("By namespace", "timeseries",
                  ((f"sum by (namespace) ({_rate('ringfence_attempts_total', _N)})", "{{namespace}}"),), "ops",
                  links=(_TO_NAMESPACE,), text="Attempts without a namespace have no name here."),
            Panel("By outcome", "timeseries",
                  ((f"sum by (outcome) ({_rate('ringfence_alerts_total')})", "{{outcome}}"),), "ops"),
            Panel("Rules, most frequent first", "table",
                  ((f"topk(20, sum by (rule, severity, outcome) (increase(ringfence_alerts_total{{{_J}}}[$__range])) > 0)",
                    ""),), columns=(("Value", "times"),)),
            Panel("Containers, most verdicts first", "table",
                  ((f"topk(20, sum by (container) (increase({_VERDICTS}[$__range])) > 0) "
                    f"* on (container) group_left (name, namespace, pod, image) {_NAMES % _N}", ""),),
                  columns=(("Value", "verdicts"),), links=(_TO_CONTAINER,),
                  text="Running containers with their own series; click on one for its dashboard."),
        )),
        ("Enforcement", (
            Panel("Rules by effective action and mechanism", "timeseries",
                  ((f"sum by (action, mechanism) (ringfence_rules{{{_J}}})", "{{action}} by {{mechanism}}"),)),
            Panel("Mode of each node", "table", ((f"max by (node, instance, mode) (ringfence_mode{{{_J}}}) == 1", ""),),
                  hidden=("Value",)),
            Panel("Policies of each node", "table",
                  ((f"max by (node, instance) (ringfence_policies{{{_J}}})", ""),
                   (f"min by (node, instance) (ringfence_policy_up_to_date{{{_J}}})", "")),
                  columns=(("Value #A", "policies"), ("Value #B", "up to date"))),
        )),
        ("Blind spots", (
            Panel("Hooks not attached", "timeseries",
                  ((f'sum by (node) (ringfence_hooks{{{_J}, state="skipped"}})', "{{node}}"),)),
            Panel("Records lost", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "ops"),
            Panel("Records without a known container", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_events_unattributed_total')}) or 0 * sum by (node) (up{{{_J}}})",
                    "{{node}}"),), "ops"),
            Panel("Audit findings", "timeseries",
                  ((f"sum by (severity) (ringfence_audit_findings{{{_J}}})", "{{severity}}"),), width=12,
                  text="Configuration of containers and nodes; `ringfence audit` on a node shows each with a fix."),
            Panel("Time since the last audit", "timeseries",
                  ((f"time() - max by (node) (ringfence_audit_timestamp_seconds{{{_J}}})", "{{node}}"),), "s", width=12),
        )),
    ),
    (Variable("namespace", f"label_values(ringfence_attempts_total{{{_J}}}, namespace)"),),
)  # fmt: skip

_STALLS = f'{_C}, kind="some"'
_CALLS = "namespace|mount|trace|kernel|credential|file|memory|socket|keyring|process"
_INFO = "ringfence_container_info"
CONTAINER = Dashboard(
    "ringfence-container", "Ringfence: container",
    (
        ("Identity", (
            Panel("Name, image, pod", "table",
                  ((f"max by (container, name, image, runtime, namespace, pod, node) ({_INFO}{{{_CHOSEN}}})", ""),),
                  width=16, hidden=("Value",)),
            Panel("Armed tasks", "timeseries",
                  ((f"sum by (container) (ringfence_container_armed_tasks{{{_C}}})", "{{container}}"),),
                  text="Processes and threads that run workload code."),
        )),
        ("Activity", (
            Panel("Processes and files", "timeseries",
                  ((_activity("class", "fork|exec|exit|open"), "{{class}}"),), "ops"),
            Panel("System calls by class", "timeseries", ((_activity("class", _CALLS), "{{class}}"),), "ops"),
            Panel("Network: calls, not bytes", "timeseries", ((_activity("class", "connect|bind|sendmsg"), "{{class}}"),),
                  "ops", text="connect, bind and sendmsg with an address. Bytes are not counted: the probes decide on "
                  "sockets and do not inspect packets."),
        )),
        ("Verdicts", (
            Panel("Alerts, kills, denials", "timeseries",
                  ((_activity("container, class", "alert|kill|deny"), "{{container}} {{class}}"),), "ops", width=24),
        )),
        ("Stalls", (
            Panel("Pressure", "timeseries",
                  ((f"sum by (container, resource) ({_rate('ringfence_container_pressure_seconds_total', _STALLS)})",
                    "{{container}} {{resource}}"),), "percentunit", width=12,
                  text="Share of time in which at least one task waited for CPU, memory or I/O (PSI)."),
            Panel("Throttled by its CPU limit", "timeseries",
                  ((f"sum by (container) ({_rate('ringfence_container_throttled_seconds_total', _C)})", "{{container}}"),),
                  "percentunit", width=12, text="Share of time; more than 100 % means several CPUs throttled at once."),
        )),
    ),
    (
        Variable("namespace", f"label_values({_INFO}{{{_J}}}, namespace)"),
        Variable("pod", f'label_values({_INFO}{{{_J}, namespace=~"$namespace"}}, pod)'),
        # The list shows names; its values are the start of the id, which the other series have.
        Variable("container", f'query_result({_INFO}{{{_J}, namespace=~"$namespace", pod=~"$pod"}})',
                 '/container="(?<value>[^"]+)"(?:.*[,{]name="(?<text>[^"]+)")?/', listed=True),
    ),
)  # fmt: skip

_LATENCY = f"sum by (le) ({_rate('ringfence_alert_latency_seconds_bucket')})"
HEALTH = Dashboard(
    "ringfence-agents", "Ringfence: agents",
    (
        ("Events", (
            Panel("Received", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_events_total')})", "{{node}}"),), "ops"),
            Panel("Lost, by reason", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "ops"),
            Panel("Emitted, not yet received", "timeseries",
                  ((f"sum by (node) (ringfence_events_emitted_total{{{_J}}}) - sum by (node) "
                    f"(ringfence_events_total{{{_J}}})", "{{node}}"),)),
            Panel("Call to alert", "timeseries",
                  tuple((f"histogram_quantile({q}, {_LATENCY})", f"p{int(q * 100)}") for q in (0.5, 0.99)), "s"),
            Panel("Waiting in the rings", "timeseries",
                  ((f"ringfence_ring_pending_bytes{{{_J}}} / on (instance, ring) group_left () "
                    f"ringfence_ring_size_bytes{{{_J}}}", "{{node}} {{ring}}"),), "percentunit", steps=_FULL),
            Panel("Activity rate halvings", "timeseries",
                  ((f"max by (node) (ringfence_activity_halvings{{{_J}}})", "{{node}}"),),
                  text="How often activity.rate is currently halved, because the ring filled faster than it was read."),
        )),
        ("Delivery of alerts", (
            Panel("Lines written and lost", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_output_lines_total')})", "{{node}} written"),
                   (f"sum by (reason) ({_rate('ringfence_output_lines_dropped_total')})", "lost: {{reason}}")), "ops"),
            Panel("Receivers that accept alerts", "timeseries",
                  ((f"min by (node, receiver) (ringfence_receiver_up{{{_J}}})", "{{node}} {{receiver}}"),),
                  text="0: attempts fail, and alerts wait on the node's disk."),
            Panel("Queues of receivers", "timeseries",
                  ((f"max by (node, receiver) (ringfence_receiver_queue_bytes{{{_J}}} / "
                    f"ringfence_receiver_queue_max_bytes{{{_J}}})", "{{node}} {{receiver}}"),), "percentunit", steps=_FULL),
            Panel("Sent", "timeseries",
                  ((f"sum by (receiver) ({_rate('ringfence_receiver_sent_total')})", "{{receiver}}"),), "ops"),
            Panel("Failed attempts", "timeseries",
                  ((f"sum by (receiver, reason) ({_rate('ringfence_receiver_retries_total')})",
                    "{{receiver}} {{reason}}"),), "ops"),
            Panel("Lost alerts", "timeseries",
                  ((f"sum by (receiver, reason) ({_rate('ringfence_receiver_lost_total')})",
                    "{{receiver}} {{reason}}"),), "ops"),
        )),
        ("Cost", (
            Panel("Memory", "timeseries",
                  ((f"max by (node, instance) (process_resident_memory_bytes{{{_J}}})", "{{node}}"),), "bytes"),
            Panel("CPU", "timeseries",
                  ((f"max by (node, instance) ({_rate('process_cpu_seconds_total')})", "{{node}}"),), "percentunit",
                  text="Of one CPU."),
            Panel("Time in BPF programs", "timeseries",
                  ((f"sum by (program) ({_rate('ringfence_program_run_seconds_total')})", "{{program}}"),),
                  "percentunit", text="Measured only with `metrics.program_stats` or kernel.bpf_stats_enabled."),
        )),
        ("State", (
            Panel("Ready", "timeseries", ((f"min by (node, instance) (ringfence_ready{{{_J}}})", "{{node}}"),)),
            Panel("Start-up time", "timeseries", ((f"max by (node, instance) (ringfence_startup_seconds{{{_J}}})", "{{node}}"),),
                  "s"),
            Panel("Kernel tables", "timeseries",
                  ((f"max by (node, map) (ringfence_map_entries{{{_J}}} / ringfence_map_max_entries{{{_J}}})",
                    "{{node}} {{map}}"),), "percentunit", steps=_FULL),
            Panel("Agent tables", "timeseries",
                  ((f'max by (node, of) (ringfence_capacity_used{{{_J}, of!="ended_processes"}}'
                    f" / (ringfence_capacity_limit{{{_J}}} > 0))", "{{node}} {{of}}"),), "percentunit", steps=_FULL),
            Panel("Pinned", "timeseries", ((f"min by (node, instance) (ringfence_pinned{{{_J}}})", "{{node}}"),),
                  text="0: enforcement ends with the agent."),
            Panel("Skipped program runs", "timeseries",
                  ((f"sum by (program) ({_rate('ringfence_program_misses_total')})", "{{program}}"),), "ops",
                  text="The same program was already running on that CPU. Each may be an unseen event."),
            Panel("Canary: seconds of silence", "timeseries",
                  ((f"max by (node, instance) (ringfence_canary_seconds{{{_J}}})", "{{node}}"),), "s"),
            Panel("Internal errors", "timeseries",
                  ((f"sum by (node, where) ({_rate('ringfence_handler_errors_total')})", "{{node}} {{where}}"),
                   (f"sum by (node, thread) ({_rate('ringfence_thread_failures_total')})", "{{node}} thread {{thread}}")),
                  "ops"),
            Panel("Versions", "table", ((f"count by (version) (ringfence_build_info{{{_J}}})", ""),),
                  columns=(("Value", "agents"),)),
        )),
    ),
)  # fmt: skip
DASHBOARDS = (FLEET, CONTAINER, HEALTH)


def main() -> int:
    """Writes the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (DIRECTORY / f"{dashboard.uid}.json").write_text(render(dashboard))
    return 0


if __name__ == "__main__":
    sys.exit(main())
