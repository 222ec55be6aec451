# SPDX-License-Identifier: Apache-2.0
"""Writes fences that allow exactly what a run did: five files, each line with its reason.

They are policy.yaml (programs, addresses, calls that were never made), seccomp.json, capabilities.txt,
landlock.json, and run.json, which has the command. Nothing here uses the kernel: the same values give the
same text.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.abi import MATCH_TEXT, EventKind
from ringfence.bpf.syscalls import names_of
from ringfence.learning.observed import Counts, Observed, Peer
from ringfence.policy.conditions import MAX_LIST
from ringfence.policy.lower import MAX_EXCEPTIONS

__all__ = ["files", "write"]

# The runtime's execve follows the filter, and the kernel itself returns from signals.
_ALWAYS = ("execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn")
# Directories with too many files to name each.
_WHOLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev")
_PROGRAMS = ("/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64")
# Calls that change a directory; their paths are not recorded.
_ENTRIES = (
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "mknod", "mknodat",
)  # fmt: skip
#: events that are denied if the run never had one
_NEVER = (
    "unshare", "setns", "mount", "umount", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick",
    "open_tree", "move_mount", "mount_setattr", "ptrace", "process_vm", "pidfd_getfd", "bpf",
    "perf_event_open", "module_load", "module_unload", "kexec", "open_by_handle_at", "memfd_create",
    "userfaultfd", "io_uring_setup", "keyctl", "mknod", "iopl", "syslog", "reboot", "swap",
)  # fmt: skip


def why(counts: Counter[str]) -> str:
    """Returns the reason of a line: how often, and by which programs."""
    total = sum(counts.values())
    shown = [f"{_plain(name)} {times}" for name, times in counts.most_common(4)]
    more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
    return f"{total} time{'s' if total != 1 else ''}: {', '.join(shown)}{more}"


def _plain(text: str) -> str:
    """Makes a program's name safe for a comment: it must not end the line or look like other syntax."""
    return "".join(letter if letter.isprintable() and letter not in '#"\\' else "?" for letter in text)[:64]


def _quoted(text: str) -> str:
    """Returns a YAML string. JSON's escapes are not suitable: YAML refuses halves of a surrogate pair."""
    letters = [
        letter if " " <= letter <= "~" and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in text
    ]
    return f'"{"".join(letters)}"'


def _can_be_named(path: str) -> bool:
    """Returns True if a rule can name this path: it is not a pattern, nor too long for the kernel."""
    plain = posixpath.normpath(path) == path and not set(path) & set("*?[]") and path.isprintable()
    whole = path.startswith("/") and not path.startswith("//") and path != "/"  # normpath keeps two slashes
    return whole and plain and len(path.encode()) < MATCH_TEXT


def files(
    seen: Observed, name: str, selected: str, granted: Sequence[str], base: Mapping[str, Any] | None
) -> dict[str, str]:
    """Returns file name -> text.

    `name` is that of the policy, `selected` the glob of the sandboxes' names that it selects. `granted` are
    the run's capabilities, `base` is its seccomp profile.
    """
    return {
        "policy.yaml": "\n".join(_policy(seen, name, selected)) + "\n",
        "seccomp.json": _seccomp(seen, base),
        "capabilities.txt": "\n".join(_capabilities(seen, granted)) + "\n",
        "landlock.json": _landlock(seen),
    }


def write(directory: Path, texts: Mapping[str, str], run: Mapping[str, Any]) -> None:
    """Writes all files. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, text in {**texts, "run.json": json.dumps(run, indent=1) + "\n"}.items():
        (directory / file).write_text(text)


def _policy(seen: Observed, name: str, selected: str) -> Iterator[str]:
    yield f"# Allows what one run of {name} did, and nothing else. Review it before use: actions that did not"
    yield "# happen in this run (error handling, a reload, a daily job) are denied, too."
    if seen.lost:
        yield f"# {seen.lost} records were lost during the run: this policy may be incomplete."
    yield from (
        "apiVersion: ringfence.dev/v1",
        "kind: Policy",
        f"metadata: {{name: {name}-learned}}",
        "spec:",
    )
    # Not all containers: the rules would stop them, and `policy check` would refuse it.
    yield f'  selector: {{names: ["{selected}"]}}  # with --policy it applies to that sandbox, with any name'
    yield "  mode: enforce"
    yield "  rules:"
    yield from _rule(
        f"{name}-program", "runs a program that the learned run did not run", "process.exec", "kill"
    )
    yield "      match: any"
    named = [path for path in sorted(seen.programs) if _can_be_named(path)]
    if named:
        yield "      exceptions:"
    yield from _programs({path: seen.programs[path] for path in named})
    for path in sorted(set(seen.programs) - set(named)):
        yield f"        # no rule can name this program, so it is killed: {_plain(path)}"
    for event, word, peers in (
        ("[network.connect, network.sendmsg]", "connects", seen.connected),
        ("network.bind", "binds", seen.bound),
    ):
        title = f"{word} to an address that the learned run did not use"
        yield from _rule(f"{name}-{word}", title, event, "deny")
        yield "      match: any"
        yield from _exceptions(peers)
    yield from _rule(f"{name}-call", "makes a call that the learned run did not make", "", "kill")
    yield "      event:"
    for label in _NEVER:
        calls = names_of(frozenset((EventKind.from_label(label),)))
        if not seen.called(calls):
            yield f"        - {label}  # never"
    yield "      match: any"


def _rule(identifier: str, title: str, event: str, action: str) -> Iterator[str]:
    yield f"    - id: {identifier}"
    yield f"      title: {title}"
    yield "      severity: high"
    yield f"      action: {action}"
    if event:
        yield f"      event: {event}"


def _batched(some: Sequence[str], size: int) -> list[Sequence[str]]:
    return [some[first : first + size] for first in range(0, len(some), size)]


def _programs(programs: Counts) -> Iterator[str]:
    if len(programs) <= MAX_EXCEPTIONS:
        for path, counts in programs.items():
            yield f"        - {{path: {_quoted(path)}}}  # {why(counts)}"
        return
    for some in _batched(list(programs), MAX_LIST):
        yield "        - path:"
        yield from (f"            - {_quoted(path)}  # {why(programs[path])}" for path in some)


def _exceptions(peers: Counts) -> Iterator[str]:
    wanted: dict[tuple[str, int], Counter[str]] = {}
    for peer, counts in peers.items():
        wanted.setdefault((peer.address, peer.port), Counter()).update(counts)
    if wanted:
        yield "      exceptions:"
    if len(wanted) <= MAX_EXCEPTIONS:
        for (address, port), counts in sorted(wanted.items()):
            yield f"        - {{address: {_quoted(address)}, port: {port}}}  # {why(counts)}"
    else:
        yield from _grouped(wanted)


def _grouped(wanted: Mapping[tuple[str, int], Counter[str]]) -> Iterator[str]:
    """Yields exceptions for more peers than fit into a rule.

    Addresses with the same ports share an exception, which allows no other pair. If this is still too many,
    each address is allowed with any port.
    """
    ports: dict[str, set[int]] = {}
    counts: Counts = {}
    for (address, port), some in wanted.items():
        ports.setdefault(address, set()).add(port)
        counts.setdefault(address, Counter()).update(some)
    groups: dict[tuple[int, ...], list[str]] = {}
    for address in sorted(ports):
        groups.setdefault(tuple(sorted(ports[address])), []).append(address)
    blocks = [(key, part) for key, some in groups.items() for part in _batched(some, MAX_LIST)]
    if len(blocks) > MAX_EXCEPTIONS or any(len(key) > MAX_LIST for key in groups):
        yield "        # more than a rule can have: without ports"
        blocks = [((), part) for part in _batched(sorted(ports), MAX_LIST)]
    for key, addresses in blocks:
        if key:
            yield f"        - port: [{', '.join(map(str, key))}]"
        yield f"        {' ' if key else '-'} address:"
        yield from (f"            - {_quoted(address)}  # {why(counts[address])}" for address in addresses)


def _capabilities(seen: Observed, granted: Sequence[str]) -> Iterator[str]:
    recorded = bool(seen.capabilities or seen.capabilities_refused)
    if not recorded:
        yield "# This kernel does not report used capabilities (needs Linux 6.14): all granted ones."
    for name in granted:
        if not recorded:
            yield name
        elif name in seen.capabilities:
            yield f"{name}  # {why(seen.capabilities[name])}"
    for name in granted:
        if recorded and name not in seen.capabilities:
            yield f"# {name}: granted but never used"


def _seccomp(seen: Observed, base: Mapping[str, Any] | None) -> str:
    """Returns the run's seccomp profile, reduced to the calls that it made, one per line."""
    made: dict[str, Counter[str]] = {}
    for (name, _), counts in seen.calls.items():
        made.setdefault(name, Counter()).update(counts)
    rules: list[dict[str, Any]] = []
    conditional: set[str] = set()
    for rule in (base or {}).get("syscalls", ()):
        for name in rule["names"]:
            if rule["action"] != "SCMP_ACT_ALLOW":  # a result such as ENOSYS, on which libraries rely
                rules.append({**rule, "names": [name], "comment": "as in the original profile"})
            elif rule.get("args") and name in made and _is_used(rule, seen):
                rules.append({**rule, "names": [name], "comment": why(made[name])})
                conditional.add(name)
    for name in sorted({*made, *_ALWAYS} - conditional):
        reason = why(made[name]) if name in made else "always"
        rules.append({"names": [name], "action": "SCMP_ACT_ALLOW", "comment": reason})
    architectures = list((base or {}).get("architectures", ()))[: None if _compat(seen) else 1]
    head = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures}
    lines = ",\n".join(f"  {json.dumps(rule)}" for rule in rules)
    return json.dumps(head)[:-1] + ', "syscalls": [\n' + lines + "\n]}\n"


def _is_used(rule: Mapping[str, Any], seen: Observed) -> bool:
    """Returns False for a rule on socket() with families that the run did not use (if any were recorded)."""
    families = {argument.get("valueTwo") for argument in rule["args"]}
    return rule["names"] != ["socket"] or not seen.families or bool(families & set(seen.families))


def _compat(seen: Observed) -> bool:
    return any(compat for _, compat in seen.calls)


def _landlock(seen: Observed) -> str:
    """Returns rules on directories, not files, as programs replace files by new ones of the same name."""
    rules: dict[tuple[str, str], Counter[str]] = {}
    for access, paths in (("read", seen.read), ("write", seen.written)):
        for path, counts in paths.items():
            rules.setdefault((_place(path), access), Counter()).update(counts)
    if seen.called(_ENTRIES):
        changed = Counter({name: sum(c.values()) for (name, _), c in seen.calls.items() if name in _ENTRIES})
        rules["/", "write"] = changed
    rows: list[dict[str, Any]] = [
        {"path": path, "access": access, "comment": why(counts)}
        for (path, access), counts in sorted(rules.items())
    ]
    rows += [
        {"path": path, "access": "execute", "comment": "programs and their loaders"} for path in _PROGRAMS
    ]
    for path in sorted({posixpath.dirname(program) for program in seen.programs}):
        if not path.startswith(tuple(f"{each}/" for each in _PROGRAMS)) and path not in _PROGRAMS:
            rows.append({"path": path, "access": "execute", "comment": "a program outside the above"})
    rows += _ports("connectTcp", seen.connected) + _ports("bindTcp", seen.bound)
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"


def _place(path: str) -> str:
    for whole in _WHOLE:
        if path == whole or path.startswith(f"{whole}/"):
            return whole
    return posixpath.dirname(path) or "/"


def _ports(access: str, peers: Mapping[Peer, Counter[str]]) -> list[dict[str, Any]]:
    ports: dict[int, Counter[str]] = {}
    for peer, counts in peers.items():
        if peer.protocol == "tcp":
            ports.setdefault(peer.port, Counter()).update(counts)
    rows: Iterable[tuple[int, Counter[str]]] = sorted(ports.items())
    return [{"port": port, "access": access, "comment": why(counts)} for port, counts in rows]
