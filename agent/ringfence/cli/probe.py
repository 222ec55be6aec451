# SPDX-License-Identifier: Apache-2.0
"""`ringfence probe`: reports what this kernel can enforce for each event and rule, and how to get more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.cli import probe_custom
from ringfence.cli.output import colour, print_document, room, table
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output

_COLOURS = {
    "deny": "green",
    "kill": "yellow",
    "see": "cyan",
    "blind": "red",
    "refused": "red",
    "unknown": "dim",
}
_UNKNOWN = {"here": "unknown", "by": "", "why": "needs root to find out"}
_WORDS = {"deny": "deny", "kill": "kill", "alert": "see", "none": "blind"}


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "probe",
        run,
        text="Show the effective action of each event and rule on this kernel (deny, kill, see or blind),\n"
        "and what to change to get a stronger one. Loads no policy and attaches nothing. Exit code 3\n"
        "if the agent cannot run on this kernel, 4 if root is needed to find out. The subcommands\n"
        "create, check and run custom probes, your own bcc programs (docs/reference/custom-probes.md).",
        examples=(
            "ringfence probe\nringfence probe --policies policies/\nringfence probe -o json | jq .missing\n"
            "ringfence probe new slow-sync"
        ),
    )
    parser.add_argument(
        "--policies",
        action="append",
        type=Path,
        metavar="PATH",
        help="policies to evaluate (default: the agent's)",
    )
    add_output(parser)
    probe_custom.register(
        parser.add_subparsers(title="subcommands", metavar="COMMAND", required=False, parser_class=Parser)
    )


def run(options: Any) -> int:
    """Inspects the kernel and prints the report."""
    from ringfence.bpf.capabilities import NodeCapabilities
    from ringfence.bpf.preemption import Preemption
    from ringfence.config import load
    from ringfence.daemon.policies.manager import probe_words
    from ringfence.policy import NodeTiers, load_policies

    config = load()
    node = NodeCapabilities.detect(Preemption(config.preemption))
    tiers = NodeTiers.of(node)
    policies = load_policies(options.policies or config.policies, probe_words(config))
    report: dict[str, Any] = {
        "node": _node(node),
        "missing": [{"what": lack.what, "hint": lack.hint} for lack in node.lacks],
        "capabilities": _capabilities(),
        "events": [_event(kind, tiers) for kind in sorted(tiers.mechanisms.keys() | tiers.why.keys())],
        "rules": [_rule(rule, tiers) for policy in policies.policies for rule in policy.rules],
        "skips": tiers.skips,
        "more": _more(node),
    }
    if not node.permitted:  # what could not be tried is not what this kernel lacks
        report |= {part: [row | _UNKNOWN for row in report[part]] for part in ("events", "rules")}
    if options.output in DOCUMENTS:
        print_document(report, options.output)
    else:
        print("\n".join(_text(report, room(options))))
    return 0 if not node.lacks else 3 if node.permitted else 4


def _node(node: Any) -> dict[str, Any]:
    from ringfence.containers.hierarchy import detect
    from ringfence.errors import KernelError

    try:
        hierarchy = detect()
        cgroups = f"{hierarchy.kind} {hierarchy.controller}".strip()
    except KernelError as error:
        cgroups = error.message
    return {
        "kernel": node.kernel,
        "machine": node.machine,
        "libbpf": ".".join(map(str, node.libbpf)),
        "cgroups": cgroups,
        "btf": node.btf,
        "ring_buffer": node.ring_buffer,
        "lsm": list(node.lsm),
        "lsm_hooks": sorted(node.lsm_hooks),
        "hook_mechanism": node.hook_mechanism.label if node.lsm_hooks else "",
        "preemption": str(node.preemption),
        "bpffs": node.bpffs,
        "32-bit programs": node.compat,
        "entries of 32-bit calls": sorted(node.compat_entries),
        "cgroup_programs": sorted(node.cgroup),
        "traced_calls": len(node.syscalls),
    }


def _capabilities() -> list[dict[str, str]]:
    """Returns the capabilities(7) that the agent needs, and whether this process has them."""
    from ringfence.bpf import privileges

    missing = privileges.lacking(privileges.held())
    return [
        {
            "capability": f"CAP_{one.name}",
            "held": "no" if one in missing else "yes",
            "why": one.why,
            "without": one.without,
        }
        for one in privileges.NEEDED
    ]


def _event(kind: Any, tiers: Any) -> dict[str, str]:
    """Returns the strongest effective action of a rule on this event."""
    from ringfence.abi import Action

    outcome = tiers.outcome(kind, Action.DENY)
    return {
        "event": kind.label,
        "here": _WORDS[outcome.action.label],
        "by": _by(kind, outcome, tiers),
        "why": outcome.why or tiers.limits(kind),
    }


def _by(kind: Any, outcome: Any, tiers: Any) -> str:
    """Returns the mechanism; if hooks decide, with these."""
    by = outcome.mechanism.label if outcome.action else ""
    hooks = tiers.hooks.get(kind)
    return f"{tiers.hook_mechanism.label}:{','.join(hooks)}" if hooks else by


def _rule(rule: Any, tiers: Any) -> dict[str, str]:
    """Returns a rule's effective action: that of its weakest event, which an attacker would choose."""
    outcomes = {kind: tiers.outcome_of(rule, kind) for kind in rule.events}
    blind = sorted(kind.label for kind, outcome in outcomes.items() if not outcome.action)
    seen = [outcome for outcome in outcomes.values() if outcome.action] or list(outcomes.values())
    weakest = min(seen, key=lambda outcome: outcome.action)
    why = weakest.why if len(blind) in (0, len(outcomes)) else f"blind on {', '.join(blind)}"
    refused = any(tiers.lacks_for(rule.require, outcome) for outcome in outcomes.values())
    return {
        "rule": rule.id,
        "asks": rule.action.label,
        "here": "refused" if refused else _WORDS[weakest.action.label],
        "by": weakest.mechanism.label if weakest.action else "",
        "why": why,
        "place": f"{rule.place.file}:{rule.place.line}",
    }


def _more(node: Any) -> list[str]:
    """Returns what to change on this node for stronger actions or less cost."""
    advice = []
    if not node.lsm_hooks:
        advice.append(f"deny instead of kill: {node.lsm_lack}; needs CONFIG_BPF_LSM and lsm=...,bpf at boot")
        if node.hook_lack:
            advice.append(f"deny without BPF-LSM: {node.hook_lack}")
    elif not any(hook.startswith("path_") for hook in node.lsm_hooks):
        advice.append("names of files: this kernel has no hooks for them (CONFIG_SECURITY_PATH)")
    if node.permitted and "connect_unix" not in node.cgroup:
        advice.append("unix.connect: Linux 6.7 or newer")
    if not node.bpffs:
        advice.append(
            "no bpffs is mounted; the agent will mount a private one for pins (mount -t bpf bpf /sys/fs/bpf)"
        )
    if node.compat and not node.compat_entries and not node.lsm_hooks:
        advice.append(
            "less cost for every call of the node (64 ns each, measured): if nothing here needs 32-bit "
            "programs, boot with ia32_emulation=0 (from Linux 6.7 on)"
        )
    return advice


def _text(report: Mapping[str, Any], limit: int) -> list[str]:
    node = report["node"]
    lines = [
        f"Linux {node['kernel']} ({node['machine']}), libbpf {node['libbpf']}, cgroup {node['cgroups']}, "
        f"LSM {','.join(node['lsm']) or 'unknown (securityfs is not mounted)'}, {_hooks(node)}",
        "",
    ]
    if report["skips"]:
        lines += [colour(f"warning: {report['skips']}", "yellow"), ""]
    lines += [colour(f"missing: {lack['what']}", "red") + f" ({lack['hint']})" for lack in report["missing"]]
    needs = report["capabilities"]
    lines.append("required capabilities: " + ", ".join(one["capability"] for one in needs))
    lines += [
        colour(f"  {one['capability']} is missing ({one['why']}): {one['without']}", "red")
        for one in needs
        if one["held"] == "no"
    ]
    lines += [
        "",
        *_rows(
            ("EVENT", "EFFECTIVE", "MECHANISM", "LIMITATION"),
            report["events"],
            ("event", "here", "by", "why"),
            1,
            limit,
        ),
    ]
    keys = ("rule", "asks", "here", "by", "why")
    heads = ("RULE", "ACTION", "EFFECTIVE", "MECHANISM", "LIMITATION")
    lines += ["", *_rows(heads, report["rules"], keys, 2, limit)]
    if report["more"]:
        lines += ["", "what to change on this node:", *(f"  {advice}" for advice in report["more"])]
    return lines


def _hooks(node: Mapping[str, Any]) -> str:
    by = {"lsm": " by BPF-LSM", "hook": f" by fmod_ret (hook), preemption {node['preemption']}"}
    return f"{len(node['lsm_hooks']) or 'no'} LSM hooks that can deny{by.get(node['hook_mechanism'], '')}"


def _rows(
    heads: tuple[str, ...], rows: list[Mapping[str, str]], keys: tuple[str, ...], here: int, limit: int
) -> list[str]:
    colours = {(n, here): _COLOURS[row["here"]] for n, row in enumerate(rows)}
    return table(heads, [[row[key] for key in keys] for row in rows], colours, limit)
