# SPDX-License-Identifier: Apache-2.0
"""`ringfence doctor`: whether this node can run the agent, what it stops here, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.cli.output import colour, print_document, visible
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, add_socket
from ringfence.errors import Error

__all__ = ["Finding", "examine", "register", "summary"]

_COLOURS = {"ok": "green", "note": "yellow", "error": "red"}


class Finding(NamedTuple):
    """One line. `change`: what to do about it; empty for `ok`."""

    level: str  # ok, note, error
    subject: str
    text: str
    change: str = ""
    code: int = 0  # the exit code that it asks for


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "doctor",
        run,
        text="Check whether the agent can run on this node, how it stops attacks here, and whether it does\n"
        "run; then list what to change. Nothing is loaded or changed. `ringfence probe` has the\n"
        "details. Exit code 0: it can run; 2: invalid configuration; 3: the kernel lacks something;\n"
        "4: root is needed to find out.",
        examples="ringfence doctor\nsudo ringfence doctor --config agent.yaml\nringfence doctor -o json",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's configuration file")
    add_output(parser)
    add_socket(parser)


def run(options: Any) -> int:
    """Prints the findings and the changes."""
    found = list(examine(options.config, options.socket))
    code = next((one.code for one in found if one.code), 0)
    if options.output in DOCUMENTS:
        print_document([one._asdict() for one in found], options.output)
        return code
    print("\n".join(summary(found)))
    return code


def summary(found: list[Finding]) -> list[str]:
    """Returns the lines of the report: the findings, then the numbered changes."""
    wide = max(len(one.subject) for one in found)
    lines = [
        f"{colour(f'{one.level:<5}', _COLOURS[one.level])} {one.subject:<{wide}}  {visible(one.text)}"
        for one in found
    ]
    changes = [one.change for one in found if one.change]
    if changes:
        lines += ["", colour("to change:", "bold")]
        lines += [f"  {number}. {visible(change)}" for number, change in enumerate(changes, 1)]
    return lines


def examine(file: Path | None, socket: Path | None) -> Iterator[Finding]:
    """Yields the findings, the most fundamental first."""
    from ringfence.bpf.capabilities import NodeCapabilities
    from ringfence.bpf.preemption import Preemption
    from ringfence.config import load

    config, problem = None, ""
    try:
        config = load(file)
    except Error as error:
        problem = error.message
    node = NodeCapabilities.detect(Preemption(config.preemption) if config else Preemption.UNKNOWN)
    yield from _kernel(node)
    yield from _rights(node)
    if config is None:
        lines = problem.splitlines()
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        yield Finding(
            "error", "config", f"{lines[0]}{more}", "mend the configuration: ringfence agent --check", 2
        )
        return
    from_file = str(config.file) if config.file.exists() else f"no {config.file}: defaults"
    yield Finding("ok", "config", f"{from_file}, mode {config.mode}")
    yield from _policies(config, node)
    yield from _runtimes(config)
    yield from _agent(socket or config.socket)


def _kernel(node: Any) -> Iterator[Finding]:
    from ringfence.containers.hierarchy import detect
    from ringfence.errors import KernelError

    about = f"Linux {node.kernel} ({node.machine}), libbpf {'.'.join(map(str, node.libbpf))}"
    lacks = node.lacks if node.permitted else ()  # else it was not permitted to look
    for lack in lacks:
        yield Finding("error", "kernel", f"{about}: {lack.what}", lack.hint, 3)
    if not lacks:
        yield Finding("ok", "kernel", about)
    try:
        hierarchy = detect()
    except KernelError as error:
        yield Finding("error", "cgroups", error.message, error.hint, 3)
    else:
        yield Finding("ok", "cgroups", f"{hierarchy.kind} {hierarchy.controller}".strip())


def _rights(node: Any) -> Iterator[Finding]:
    from ringfence.bpf import privileges

    if not node.permitted:
        text = "not permitted to use BPF: what this kernel can stop is unknown"
        yield Finding("error", "rights", text, "run `ringfence doctor` as root: use sudo", 4)
        return
    missing = privileges.lacking(privileges.held())
    if missing:
        names = ", ".join(f"CAP_{one.name}" for one in missing)
        yield Finding(
            "note", "rights", f"without {names}", f"give the agent {names} (ringfence probe says why)"
        )
    else:
        yield Finding("ok", "rights", "all capabilities that the agent needs")
    yield from _stopping(node)


def _stopping(node: Any) -> Iterator[Finding]:
    """How calls are stopped: denied, or only killed."""
    if node.lsm_hooks:
        by = {"lsm": "BPF-LSM", "hook": "fmod_ret at the functions that call the LSM hooks"}
        how = by[node.hook_mechanism.label]
        yield Finding("ok", "stopping", f"attacks are denied before their effect, by {how}")
        return
    why = "; ".join(filter(None, (node.lsm_lack, node.hook_lack)))
    yield Finding(
        "note", "stopping", f"processes are killed, their calls not denied: {why}",
        "to deny calls: a kernel with CONFIG_BPF_LSM, booted with lsm=...,bpf",
    )  # fmt: skip


def _policies(config: Any, node: Any) -> Iterator[Finding]:
    from ringfence.daemon.policies.manager import probe_words
    from ringfence.policy import NodeTiers, compile_policies, load_policies

    try:
        policies = load_policies(config.policies, probe_words(config))
        compiled = compile_policies(
            policies, NodeTiers.of(node) if node.permitted else NodeTiers.usual(), config.mode
        )
    except Error as error:
        first = (error.message.splitlines() or [""])[0]
        yield Finding("error", "policies", first, "mend the policies: ringfence policy check", 2)
        return
    weaker = len({one.rule.id for one in compiled.shortfalls})
    text = f"{len(policies.policies)} policies with {policies.rules} rules"
    if node.permitted and weaker:
        text += f", {weaker} with a weaker effect here than they ask for (ringfence probe)"
    yield Finding("note" if node.permitted and weaker else "ok", "policies", text)


def _runtimes(config: Any) -> Iterator[Finding]:
    from ringfence.containers.enrich.docker import socket_path
    from ringfence.containers.kubernetes.cri import sockets_of

    found = [str(path) for path in (*sockets_of(config.cri_socket), socket_path()) if _exists(path)]
    if found:
        yield Finding("ok", "runtimes", f"names of containers from {', '.join(found)}")
    else:
        yield Finding("ok", "runtimes", "no socket of a runtime: names from files, where there are any")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _agent(socket: Path) -> Iterator[Finding]:
    from ringfence import __version__
    from ringfence.cli.client import request
    from ringfence.errors import AgentUnreachableError

    try:
        status = request(socket, "status")
    except AgentUnreachableError:
        start = "start the agent: systemctl enable --now ringfence-agent, or `ringfence agent`"
        yield Finding("note", "agent", f"none responds at {socket}", start)
        return
    except Error as error:
        yield Finding("note", "agent", error.message, error.hint)
        return
    about = f"version {status['version']}, pid {status['pid']}, mode {status['mode']}"
    if status["problems"]:
        yield Finding("note", "agent", f"{about}: {'; '.join(status['problems'])}", "see `ringfence status`")
    elif status["version"] != __version__:
        yield Finding("note", "agent", f"{about}; this command is {__version__}", "restart the agent")
    else:
        yield Finding("ok", "agent", f"{about}, ready")
