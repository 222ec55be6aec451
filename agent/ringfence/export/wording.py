# SPDX-License-Identifier: Apache-2.0
"""An alert in sentences: what was tried, how it ended, where to look, what to do.

The words are made from the fields of the record, whose observed text is escaped already. Nothing is looked
up, and nothing is claimed that the record does not say.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.export.pages import page_of

__all__ = ["RUNBOOKS", "ended", "next_steps", "runbook", "tried"]

Record = Mapping[str, Any]
#: where the runbooks of these sources are published
RUNBOOKS = "docs/runbooks/"

#: event -> what was tried, with fields of `details`. A word with a field that is not known is left out;
#: `{field|a~text}` has a text instead. `~` is a blank inside of a word.
_TRIED = {
    "mount": "mount {source|a~filesystem} at~{target} type~{fstype} with~{flags}",
    "fsopen": "open a filesystem {fstype} to mount it",
    "fsconfig": "configure a filesystem to mount it: {parameter} ({cmd})",
    "fspick": "open the filesystem at~{path} to reconfigure it",
    "open_tree": "open the mount {path} with~{flags}",
    "move_mount": "attach a mount from~{source} at~{target}",
    "mount_setattr": "change the attributes of the mount {path}",
    "umount": "unmount {target|a~filesystem} with~{flags}",
    "pivot_root": "make {new_root|another~directory} the root and~put~the~old~root~at~{put_old}",
    "chroot": "change the root directory to~{path}",
    "module_load": "load a kernel module with~the~parameters~{parameters}",
    "module_unload": "unload the kernel module {name}",
    "module.request": "have the kernel load the module {name}",
    "memfd_create": "create a file in memory named~{name}",
    "mknod": "create a node {type} at~{path}",
    "swap": "{call|change~swap~space} {path}",
    "symlink": "create a symbolic link {path} to~{target}",
    "rename": "rename {source} to~{path} with~{flags}",
    "setxattr": "set {name|inode~flags~or~times} of~{path|a~file}",
    "socket": "open a socket {family} {type} {protocol}",
    "chmod": "chmod {mode} {path} descriptor~{descriptor}",
    "file.open": "open {filesystem}:{path} {node} to {access}",
    "file.link": "create a link to {leads}",
    "network.connect": "connect to {address} port {port} ({protocol})",
    "network.bind": "listen on {address} port {port} ({protocol})",
    "unix.connect": "connect to the socket {socket}",
    "sysctl.access": "{access} the sysctl {sysctl}",
    "device.access": "{access} the device {device}",
    "process.exec": "execute {path} {file}",
    "kernel.helper": "have the kernel execute {path}",
    "unshare": "create namespaces: {flags}",
    "clone": "create namespaces: {flags}",
    "task.drift": "change {changed} without a call that may change it",
}
#: event -> what to look for if the call may have taken effect
_EFFECTS = {
    "mount": "a mount in /proc/PID/mountinfo of the container",
    "move_mount": "a mount in /proc/PID/mountinfo of the container",
    "chmod": "the file with its new mode",
    "mknod": "the new device node",
    "symlink": "the new link",
    "rename": "the file under its new name",
    "setns": "processes that the killed one had started in the other namespace",
    "unshare": "processes that the killed one had started",
    "clone": "the child process",
    "ptrace": "a change in the traced process",
    "process_vm": "a change in the memory of the other process",
    "bpf": "programs that are pinned or attached: `bpftool prog`",
    "module_load": "the module in /proc/modules",
    "module_unload": "the module that /proc/modules lacks",
    "unix.connect": "requests in the log of the service behind the socket",
    "network.connect": "the connection in the log of the other side",
    "file.open": "a file that it truncated or created",
    "settime": "the time of the node",
    "reboot": "the node's uptime",
    "keyctl": "keys in /proc/keys",
}

#: events whose effect is an object of the process, which ends with it
_OWN = frozenset(("socket", "memfd_create", "userfaultfd", "io_uring_setup", "perf_event_open", "fsopen"))


def tried(event: str, details: Record) -> str:
    """Returns what was tried, in words of the kernel's record: `mount /dev/sda1 at /mnt type ext4`."""
    if event.startswith("probe."):  # its fields are redacted by their names, so none is repeated here
        return f"an event of the custom probe {event.removeprefix('probe.')}"
    values = {name: _word(value) for name, value in details.items() if (name, value) != ("flags", "0")}
    if form := _TRIED.get(event):
        return " ".join(part for word in form.split() if (part := _filled(word, values)))
    shown = [f"{name} {value}" for name, value in values.items() if value and name not in ("call", "inode")]
    call = values.get("call") or event
    return f"call {call}" + (f" with {', '.join(shown[:4])}" if shown else "")


def _filled(word: str, values: Mapping[str, str]) -> str:
    """Returns a word like `({protocol})` with its field; empty if a field is not known."""
    found = word.replace("~", " ")
    while "{" in found:
        before, _, rest = found.partition("{")
        field, _, after = rest.partition("}")
        name, _, otherwise = field.partition("|")
        if not values.get(name):
            # `{filesystem}:{path}` without the filesystem is the path
            left = before + after.lstrip(":") if name == "filesystem" else ""
            found = before + otherwise + after if otherwise else left
            continue
        found = before + "\0" + name + "\0" + after
    pieces = found.split("\0")
    return "".join(values[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _word(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    # Not cut: half of a secret would not be recognised by the redactor, which comes after this.
    return "" if value in (None, "", [], {}) else text


def ended(record: Record) -> str:
    """Returns in one sentence how the call ended: whether it was stopped, and whether it may have had an
    effect.
    """
    outcome, mechanism = str(record.get("outcome")), str(record.get("mechanism"))
    if outcome == "denied":
        return "denied before it took effect"
    if outcome == "killed":
        if mechanism == "observe":
            return "its process was killed after the event: look for what it did before"
        if mechanism not in ("kill", "backstop"):
            return "denied before it took effect, and its process was killed"
        how = "killed by the backstop" if mechanism == "backstop" else "killed"
        if record.get("event") in _OWN:
            return f"{how}; what the call may have made ended with its process"
        effect = _EFFECTS.get(str(record.get("event")), "the effect of the call")
        return f"{how}; the call may have taken effect: look for {effect}"
    if outcome == "kill-failed":
        denied = mechanism == "cgroup"
        return ("denied before it took effect" if denied else "not stopped") + "; the kill failed"
    if outcome in ("would-deny", "would-kill"):
        word = "denied" if outcome == "would-deny" else "killed"
        return f"not stopped (audit mode): in enforce mode it would have been {word}"
    return "not stopped: the rule only reports"


def runbook(record: Record) -> str:
    """Returns the page that says what to do."""
    return f"{RUNBOOKS}{page_of(record).name}.md"


def next_steps(record: Record) -> Sequence[str]:
    """Returns the commands to begin with: they only look, and change nothing."""
    container = record.get("container") or {}
    namespace, pod = str(container.get("namespace") or ""), str(container.get("pod") or "")
    steps = []
    if namespace and pod:
        where = f"-n {shlex.quote(namespace)}"
        steps.append(f"kubectl {where} describe pod {shlex.quote(pod)}")
    chosen = str(container.get("id") or "")[:12]
    if chosen and not steps:
        steps.append(f"ringfence events --since 1h -c {shlex.quote(chosen)}")
    return steps
