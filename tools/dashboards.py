# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.dashboards`: Grafana dashboards, defined by their queries; a test compares the files.

Rates use $__rate_interval, sums over the shown time $__range. The variable `job` is the scrape's; the
others select node, namespace, pod and container. Graphs with a line per node show the 15 largest: a fleet
has hundreds. Counts include series that began in the time shown, which increase() leaves out at 1.
tools/grafana.py converts them to Grafana's JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.grafana import Cell, Dashboard, Panel, Variable, render

__all__ = ["DASHBOARDS", "DIRECTORY", "Dashboard", "Panel", "render"]

DIRECTORY = Path(__file__).resolve().parents[1] / "charts/ringfence/dashboards"
_J = 'job="$job", node=~"$node"'
_C = 'job="$job", container=~"$container"'
_CHOSEN = 'job="$job", namespace=~"$namespace", pod=~"$pod", container=~"$container"'
_N = 'job="$job", namespace=~"$namespace"'
_A = 'job="$job", node=~"$node", namespace=~"$namespace"'
_STOPPED, _SEEN = 'kind="rule", outcome=~"denied|killed"', 'kind="rule", outcome=~"seen|kill-failed"'
_WOULD = 'kind="rule", outcome=~"would-deny|would-kill"'
_MOST = 15  # lines of a graph
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


def _counted(labels: str, window: str = "$__range", metric: str = "ringfence_container_alerts_total") -> str:
    """The increase in a window; all of a series that began in it, also if it has ended since."""
    series = f"{metric}{{{labels}}}"
    return f"((last_over_time({series}[{window}]) unless {series} offset {window}) or increase({series}[{window}]))"


def _top(expression: str, most: int = _MOST) -> str:
    return f"topk({most}, {expression})"


def _activity(by: str, classes: str) -> str:
    chosen = f'{_C}, class=~"{classes}"'
    return f"sum by ({by}) ({_rate('ringfence_container_activity_total', chosen)})"


_NAMES = "max by (container, name, namespace, pod, image) (ringfence_container_info{%s})"
_VERDICTS = 'ringfence_container_activity_total{job="$job", class=~"alert|deny|kill"}'
_NODE = Variable("node", 'label_values(ringfence_node_info{job="$job"}, node)')
_UP_WORDS = (("0", "no", "red"), ("1", "yes", "green"))
_HEARTBEAT = f"ringfence_heartbeat_timestamp_seconds{{{_J}}}"
_INCIDENT = "node, namespace, pod, container, rule, title, severity, outcome"
FLEET = Dashboard(
    "ringfence-fleet", "Ringfence: fleet",
    (
        ("Now", (
            Panel("Agents that answer", "stat", ((f"sum(up{{{_J}}})", ""),), "none", width=3, steps=_GOOD_FROM_ONE,
                  text="Agents whose last scrape succeeded. Compare with the next panel: all should answer."),
            Panel("Agents that do not answer", "stat", ((f"count(up{{{_J}}} == 0) or vector(0)", ""),), "none", width=3,
                  steps=_BAD_FROM_ONE, text="Targets whose last scrape failed. A node whose target has vanished is in "
                  "the table of heartbeats below."),
            Panel("Nodes that enforce", "stat",
                  ((f'count(sum by (instance) (ringfence_rules{{{_J}, action=~"deny|kill"}}) > 0) or vector(0)', ""),),
                  "none", text="Nodes with at least one rule that denies or kills.", width=3, steps=_GOOD_FROM_ONE),
            Panel("Containers", "stat", ((f'sum(ringfence_containers{{{_J}, state="running"}})', ""),), "none", width=3,
                  text="Running containers that the agents know."),
            Panel("Stopped", "stat", ((f"sum({_counted(f'{_A}, {_STOPPED}')}) or vector(0)", ""),), "none", width=3,
                  steps=((None, "green"), (1.0, "orange")), text="Attempts that were denied or killed in the time shown."),
            Panel("Not stopped", "stat", ((f"sum({_counted(f'{_A}, {_SEEN}')}) or vector(0)", ""),), "none",
                  steps=_BAD_FROM_ONE, width=3, text="Attempts in the time shown that may have taken effect: rules that "
                  "only alert, nodes without a mechanism to stop it, kills that failed."),
            Panel("Would have been stopped", "stat", ((f"sum({_counted(f'{_A}, {_WOULD}')}) or vector(0)", ""),), "none",
                  width=3, steps=((None, "green"), (1.0, "orange")), text="By policies in mode audit, in the time shown."),
            Panel("Canary, longest silence", "stat", ((f"max(ringfence_canary_seconds{{{_J}}})", ""),), "s", width=3,
                  steps=((None, "green"), (3.0, "orange"), (5.0, "red")), text="Each agent makes one harmless event a "
                  "second. More than five seconds of silence: alerts probably do not arrive either."),
        )),
        ("Attempts", (
            Panel("By ATT&CK technique", "timeseries",
                  ((_top(f"sum by (technique) ({_rate('ringfence_attempts_total', _N)})"), "{{technique}}"),), "cps",
                  text="Verdicts per second, the 15 most frequent techniques."),
            Panel("By node", "timeseries", ((_top(f"sum by (node) ({_rate('ringfence_alerts_total')})"), "{{node}}"),), "cps",
                  text="Verdicts per second, the 15 most affected nodes."),
            Panel("By namespace", "timeseries",
                  ((_top(f"sum by (namespace) ({_rate('ringfence_attempts_total', _N)})"), "{{namespace}}"),), "cps",
                  links=(_TO_NAMESPACE,), text="The 15 most affected. Attempts without a namespace have no name here."),
            Panel("By outcome", "timeseries",
                  ((f"sum by (outcome) ({_rate('ringfence_alerts_total')})", "{{outcome}}"),), "cps",
                  text="How calls ended. `seen` and `kill-failed` may have taken effect; would-* is mode audit."),
            Panel("What was tried, and where", "table",
                  ((_top(f"sum by ({_INCIDENT}) ({_counted(_A)}) > 0", 50), ""),), width=24,
                  columns=(("Value", "times"),), cells=(Cell("times"), Cell("outcome", words=(
                      ("denied", "denied", "green"), ("killed", "killed", "yellow"), ("seen", "seen", "red"),
                      ("kill-failed", "kill failed", "red"), ("would-deny", "would deny", "orange"),
                      ("would-kill", "would kill", "orange"))), Cell("severity", words=(
                          ("critical", "critical", "red"), ("high", "high", "orange"), ("medium", "medium", "yellow")))),
                  text="Alerts in the time shown by container and rule, the 50 most frequent."),
            Panel("Would have been blocked in seven days", "table",
                  ((_top(f"sum by (rule, title, namespace) ({_counted(f'{_A}, {_WOULD}', '7d')}) > 0", 50), ""),), width=12,
                  columns=(("Value", "times"),), cells=(Cell("times", steps=((None, "yellow"), (100.0, "orange"))),),
                  may_be_empty=True, text="By rule and namespace, whatever time is shown. Before mode enforce, each row "
                  "needs an exception or an explanation. Empty: mode enforce would block nothing that has happened."),
            Panel("Containers, most verdicts first", "table",
                  ((f"topk(20, sum by (container) (increase({_VERDICTS}[$__range])) > 0) "
                    f"* on (container) group_left (name, namespace, pod, image) {_NAMES % _N}", ""),),
                  columns=(("Value", "verdicts"),), links=(_TO_CONTAINER,), width=12, cells=(Cell("verdicts"),),
                  text="Running containers with their own series; click on one for its dashboard."),
        )),
        ("Enforcement", (
            Panel("Rules by effective action and mechanism", "timeseries",
                  ((f"sum by (action, mechanism) (ringfence_rules{{{_J}}})", "{{action}} by {{mechanism}}"),), "none",
                  text="Over all nodes. A rule that falls to a weaker mechanism moves to another line."),
            Panel("Nodes by policy digest", "timeseries",
                  ((f"count by (policy_digest, mode) (ringfence_node_info{{{_J}}})", "{{policy_digest}} {{mode}}"),), "none",
                  text="Nodes with the same policy files have the same digest. More than one line for longer than a "
                  "roll-out: some nodes have other policies."),
            Panel("Last heartbeat of each node", "table",
                  ((_top(f"time() - max by (node) (max_over_time({_HEARTBEAT}[24h]))", 50), ""),),
                  columns=(("Value", "age"),), cells=(Cell("age", "s", ((None, "green"), (90.0, "red"))),),
                  text="Nodes that had an agent within 24 hours, the oldest heartbeat first. Red: no agent now."),
            Panel("Nodes", "table",
                  ((f"max by (node, version, kernel, tier, mode, policy_digest) (ringfence_node_info{{{_J}}})", ""),
                   (f"min by (node) (ringfence_policy_up_to_date{{{_J}}})", ""),
                   (f"min by (node) (ringfence_ready{{{_J}}})", "")), width=24, hidden=("Value #A",),
                  columns=(("Value #B", "policies up to date"), ("Value #C", "ready")),
                  cells=(Cell("policies up to date", words=_UP_WORDS), Cell("ready", words=_UP_WORDS)),
                  text="Kernel, tier (the strongest mechanism), mode and policies of each node with an agent."),
        )),
        ("Blind spots", (
            Panel("Hooks not attached", "timeseries",
                  ((_top(f'sum by (node) (ringfence_hooks{{{_J}, state="skipped"}})'), "{{node}}"),), "none",
                  text="Places that the kernel refused or another product holds; their events are not seen."),
            Panel("Records lost", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "cps",
                  text="Records that did not leave the kernel. Denials and kills do not depend on them."),
            Panel("Records without a known container", "timeseries",
                  ((_top(f"sum by (node) ({_rate('ringfence_events_unattributed_total')}) or 0 * sum by (node) (up{{{_J}}})"),
                    "{{node}}"),), "cps", text="Should be 0. Such records are reported without names."),
            Panel("Alerts held back", "timeseries",
                  ((_top(f"sum by (rule) ({_rate('ringfence_alerts_suppressed_total')})"), "{{rule}}"),), "cps",
                  text="Counted, but not written: repetitions, and those above alerts.rate."),
            Panel("Agent resources modified", "timeseries",
                  ((f"sum by (what) ({_rate('ringfence_tampered_total')})", "{{what}}"),), "cps",
                  text="Found modified, and restored if possible. Anything above 0 is an attack or a mistake on the host."),
            Panel("Audit findings", "timeseries",
                  ((f"sum by (severity) (ringfence_audit_findings{{{_J}}})", "{{severity}}"),), "none",
                  text="Configuration of containers and nodes, without accepted findings; `ringfence audit` on a node "
                  "shows each with a fix."),
        )),
    ),
    (_NODE,
     Variable("namespace", 'label_values(ringfence_attempts_total{job="$job"}, namespace)')),
)  # fmt: skip

_STALLS = f'{_C}, kind="some"'
_CALLS = "namespace|mount|trace|kernel|credential|file|memory|socket|keyring|process"
_INFO = "ringfence_container_info"
CONTAINER = Dashboard(
    "ringfence-container", "Ringfence: container",
    (
        ("Identity", (
            Panel("Name, image, pod", "table",
                  ((_top(f"max by (container, name, image, runtime, namespace, pod, node) ({_INFO}{{{_CHOSEN}}})", 50), ""),),
                  width=16, hidden=("Value",), text="The chosen containers, 50 at most; the agent knows names from the "
                  "runtime and the API server."),
            Panel("Armed tasks", "timeseries",
                  ((_top(f"sum by (container) (ringfence_container_armed_tasks{{{_C}}})"), "{{container}}"),),
                  text="Processes and threads that run workload code, of the 15 chosen containers with most."),
        )),
        ("Activity", (
            Panel("Processes and files", "timeseries",
                  ((_activity("class", "fork|exec|exit|open"), "{{class}}"),), "cps",
                  text="Forks, executions, exits and opened files per second of the chosen containers."),
            Panel("System calls by class", "timeseries", ((_activity("class", _CALLS), "{{class}}"),), "cps",
                  text="Calls that the probes hook, per second; a new class on an old service is worth a look."),
            Panel("Network: calls, not bytes", "timeseries", ((_activity("class", "connect|bind|sendmsg"), "{{class}}"),),
                  "cps", text="connect, bind and sendmsg with an address. Bytes are not counted: the probes decide on "
                  "sockets and do not inspect packets."),
        )),
        ("Verdicts", (
            Panel("Alerts, kills, denials", "timeseries",
                  ((_top(_activity("container, class", "alert|kill|deny")), "{{container}} {{class}}"),), "cps",
                  width=24, text="Verdicts per second of the chosen containers, the 15 most frequent."),
        )),
        ("Stalls", (
            Panel("Pressure", "timeseries",
                  ((_top(f"sum by (container, resource) ({_rate('ringfence_container_pressure_seconds_total', _STALLS)})"),
                    "{{container}} {{resource}}"),), "percentunit", width=12,
                  text="Share of time in which at least one task waited for CPU, memory or I/O (PSI); the 15 largest."),
            Panel("Throttled by its CPU limit", "timeseries",
                  ((_top(f"sum by (container) ({_rate('ringfence_container_throttled_seconds_total', _C)})"),
                    "{{container}}"),), "percentunit", width=12,
                  text="Share of time, the 15 largest; more than 100 % means several CPUs throttled at once."),
        )),
    ),
    (
        Variable("namespace", f'label_values({_INFO}{{job="$job"}}, namespace)'),
        Variable("pod", f'label_values({_INFO}{{{_N}}}, pod)'),
        # The list shows names; its values are the start of the id, which the other series have.
        Variable("container", f'query_result({_INFO}{{{_N}, pod=~"$pod"}})',
                 '/container="(?<value>[^"]+)"(?:.*[,{]name="(?<text>[^"]+)")?/', listed=True),
    ),
)  # fmt: skip

_LATENCY = f"sum by (le) ({_rate('ringfence_alert_latency_seconds_bucket')})"
HEALTH = Dashboard(
    "ringfence-agents", "Ringfence: agents",
    (
        ("Events", (
            Panel("Received", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_events_total')})", "{{node}}"),), "cps",
                  text="Records per second that the agents read, the 15 busiest nodes."),
            Panel("Lost, by reason", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "cps",
                  text="ring_full: rings too small or the agent too slow; rate_limit: a noisy container."),
            Panel("Emitted, not yet received", "timeseries",
                  ((f"sum by (node) (ringfence_events_emitted_total{{{_J}}}) - sum by (node) "
                    f"(ringfence_events_total{{{_J}}})", "{{node}}"),),
                  text="Records that wait in the rings, or were lost with an earlier agent; the 15 largest."),
            Panel("Call to alert", "timeseries",
                  tuple((f"histogram_quantile({q}, {_LATENCY})", f"p{int(q * 100)}") for q in (0.5, 0.99)), "s",
                  text="Time from the call in the kernel until its alert is handed to the output, over all nodes."),
            Panel("Waiting in the rings", "timeseries",
                  ((f"ringfence_ring_pending_bytes{{{_J}}} / on (instance, ring) group_left () "
                    f"ringfence_ring_size_bytes{{{_J}}}", "{{node}} {{ring}}"),), "percentunit", steps=_FULL,
                  text="Share of a ring that is unread, the 15 fullest. A full ring loses records."),
            Panel("Activity rate halvings", "timeseries",
                  ((f"max by (node) (ringfence_activity_halvings{{{_J}}})", "{{node}}"),),
                  text="How often activity.rate is currently halved, because the ring filled faster than it was read."),
        )),
        ("Delivery of alerts", (
            Panel("Lines written and lost", "timeseries",
                  ((f"sum by (node) ({_rate('ringfence_output_lines_total')})", "{{node}} written"),
                   (f"sum by (reason) ({_rate('ringfence_output_lines_dropped_total')})", "lost: {{reason}}")), "cps",
                  text="Lines per second on the output; lost lines did not reach their reader."),
            Panel("Receivers that accept alerts", "state-timeline",
                  ((f"min by (node, receiver) (ringfence_receiver_up{{{_J}}})", "{{node}} {{receiver}}"),), words=_UP_WORDS,
                  text="No: attempts fail, and alerts wait on the node's disk. The 15 worst."),
            Panel("Queues of receivers", "timeseries",
                  ((f"max by (node, receiver) (ringfence_receiver_queue_bytes{{{_J}}} / "
                    f"ringfence_receiver_queue_max_bytes{{{_J}}})", "{{node}} {{receiver}}"),), "percentunit", steps=_FULL,
                  text="Share of a queue that is used, the 15 fullest. A full queue drops its oldest alerts."),
            Panel("Sent", "timeseries",
                  ((f"sum by (receiver) ({_rate('ringfence_receiver_sent_total')})", "{{receiver}}"),), "cps",
                  text="Alerts per second that a receiver accepted."),
            Panel("Failed attempts", "timeseries",
                  ((f"sum by (receiver, reason) ({_rate('ringfence_receiver_retries_total')}) > 0",
                    "{{receiver}} {{reason}}"),), "cps", may_be_empty=True,
                  text="Attempts that failed and are repeated; only reasons that occurred."),
            Panel("Lost alerts", "timeseries",
                  ((f"sum by (receiver, reason) ({_rate('ringfence_receiver_lost_total')}) > 0",
                    "{{receiver}} {{reason}}"),), "cps", may_be_empty=True,
                  text="Alerts that a receiver will never get; only reasons that occurred."),
        )),
        ("Cost", (
            Panel("Memory", "timeseries",
                  ((f"max by (node, instance) (process_resident_memory_bytes{{{_J}}})", "{{node}}"),), "bytes",
                  text="Resident memory of the agents, the 15 largest."),
            Panel("CPU", "timeseries",
                  ((f"max by (node, instance) ({_rate('process_cpu_seconds_total')})", "{{node}}"),), "percentunit",
                  text="Of one CPU."),
            Panel("Time in BPF programs", "timeseries",
                  ((f"sum by (program) ({_rate('ringfence_program_run_seconds_total')})", "{{program}}"),),
                  "percentunit", text="Measured only with `metrics.program_stats` or kernel.bpf_stats_enabled."),
        )),
        ("State", (
            Panel("Ready", "state-timeline", ((f"min by (node) (ringfence_ready{{{_J}}})", "{{node}}"),), words=_UP_WORDS,
                  text="Programs attached and policies in the kernel. The 15 nodes that are least ready."),
            Panel("Start-up time", "timeseries", ((f"max by (node, instance) (ringfence_startup_seconds{{{_J}}})", "{{node}}"),),
                  "s",
                  text="From the start of the process until ready, the 15 slowest."),
            Panel("Kernel tables", "timeseries",
                  ((f"max by (node, map) (ringfence_map_entries{{{_J}}} / ringfence_map_max_entries{{{_J}}})",
                    "{{node}} {{map}}"),), "percentunit", steps=_FULL,
                  text="Used share of the kernel's tables, the 15 fullest. When full, new containers are not tracked."),
            Panel("Agent tables", "timeseries",
                  ((f'max by (node, of) (ringfence_capacity_used{{{_J}, of!="ended_processes"}}'
                    f" / (ringfence_capacity_limit{{{_J}}} > 0))", "{{node}} {{of}}"),), "percentunit", steps=_FULL,
                  text="Used share of bounded tables of the agent, the 15 fullest."),
            Panel("Pinned", "state-timeline", ((f"min by (node) (ringfence_pinned{{{_J}}})", "{{node}}"),), words=_UP_WORDS,
                  text="No: enforcement ends with the agent. The 15 nodes that are least pinned."),
            Panel("Skipped program runs", "timeseries",
                  ((f"sum by (program) ({_rate('ringfence_program_misses_total')})", "{{program}}"),), "cps",
                  text="The same program was already running on that CPU. Each may be an unseen event."),
            Panel("Canary: seconds of silence", "timeseries",
                  ((f"max by (node, instance) (ringfence_canary_seconds{{{_J}}})", "{{node}}"),), "s",
                  text="The 15 longest. More than five seconds: alerts probably do not arrive either."),
            Panel("Internal errors", "timeseries",
                  ((f"sum by (node, where) ({_rate('ringfence_handler_errors_total')}) > 0", "{{node}} {{where}}"),
                   (f"sum by (node, thread) ({_rate('ringfence_thread_failures_total')}) > 0",
                    "{{node}} thread {{thread}}")), "cps", may_be_empty=True,
                  text="Bugs that an agent survived, and threads that were restarted. Please report them."),
            Panel("Versions", "table", ((f"count by (version) (ringfence_build_info{{{_J}}})", ""),),
                  columns=(("Value", "agents"),), cells=(Cell("agents"),),
                  text="Agents by version; two during a roll-out."),
        )),
    ),
    (_NODE,),
)  # fmt: skip


def _bounded(dashboard: Dashboard) -> Dashboard:
    """Returns the dashboard with a limit on every panel that would have a line per node."""
    rows = tuple((title, tuple(map(_limited, row))) for title, row in dashboard.rows)
    return dashboard._replace(rows=rows)


def _limited(panel: Panel) -> Panel:
    if panel.kind not in ("timeseries", "state-timeline"):
        return panel
    first = "topk" if panel.kind == "timeseries" else "bottomk"
    queries = tuple(
        (f"{first}({_MOST}, {expression})", legend)
        if "{{node}}" in legend and not expression.startswith("topk")
        else (expression, legend)
        for expression, legend in panel.queries
    )
    return panel._replace(queries=queries)


DASHBOARDS = tuple(map(_bounded, (FLEET, CONTAINER, HEALTH)))


def main() -> int:
    """Writes the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (DIRECTORY / f"{dashboard.uid}.json").write_text(render(dashboard))
    return 0


if __name__ == "__main__":
    sys.exit(main())
