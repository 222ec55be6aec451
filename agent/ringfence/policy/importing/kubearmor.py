# SPDX-License-Identifier: Apache-2.0
"""Translates KubeArmor's policies: one rule for all entries of a section that share options and action.

`Allow` makes a list of what is permitted. What happens to everything else is set in KubeArmor's
configuration, not in the policy, so the translated rule only alerts on everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ringfence.policy.importing.draft import Draft, Keys, Remarks, slug, text, texts
from ringfence.policy.importing.words import call_of, programs, translate_path
from ringfence.policy.reader import Node

__all__ = ["KINDS", "translate"]

KINDS = ("KubeArmorPolicy", "KubeArmorClusterPolicy", "KubeArmorHostPolicy")
_ACTIONS = {"Block": "deny", "Audit": "alert", "Allow": "allow"}
_EVENTS = {"process": "process.exec", "file": "file.open"}
_INTERNET = ["AF_INET", "AF_INET6"]
_ICMP = ["IPPROTO_ICMP", "IPPROTO_ICMPV6"]
_PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "tcp": {"family": _INTERNET, "type": ["SOCK_STREAM"]},
    "udp": {"family": _INTERNET, "type": ["SOCK_DGRAM"]},
    "icmp": {"family": _INTERNET, "protocol": _ICMP},
    "raw": {"family": _INTERNET, "type": ["SOCK_RAW"]},
}
#: capabilities that are needed for nothing but these events
_CAPABILITIES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sys_module": {"module_load": {}, "module_unload": {}},
    "sys_boot": {"reboot": {}, "kexec": {}},
    "sys_chroot": {"chroot": {}, "setns": {"nstype": ["CLONE_NEWNS"]}},
    "sys_pacct": {"acct": {}},
}
_TECHNIQUE = re.compile(r"(?:.*_)?(T[0-9]{4}(?:\.[0-9]{3})?)")


class _Shared(NamedTuple):
    """What all rules of an object share. `unsure`: parts of its selector that were not kept."""

    name: str
    title: str
    severity: str
    description: str
    attack: tuple[str, ...]
    selector: dict[str, Any]
    unsure: tuple[tuple[Node, str, str], ...]


class _Entry(NamedTuple):
    """One entry of a section, with what it matches and what could not be kept of it."""

    node: Node
    where: str
    event: str
    match: dict[str, Any]
    action: str
    lost: tuple[str, ...]

    @property
    def group(self) -> str:
        """Equal for entries that one rule can have: only their paths differ."""
        options = {key: value for key, value in self.match.items() if key != "path"}
        return repr((self.event, options, "path" in self.match, self.action, self.lost))


def translate(node: Node, remarks: Remarks) -> Iterator[Draft]:
    """Yields the rules of an object."""
    top = Keys(remarks, node, "")
    kind, spec, metadata = top.text("kind"), top.within("spec"), top.within("metadata")
    if kind == "KubeArmorHostPolicy":
        remarks.dropped(node, "kind", "it is about the host: Ringfence watches containers")
        return
    shared = _shared(kind, metadata, spec)
    action = spec.text("action", "Block")
    found: list[_Entry] = []
    for section, read in (("process", _files), ("file", _files), ("network", _network),
                          ("capabilities", _capabilities), ("syscalls", _syscalls)):  # fmt: skip
        keys = spec.within(section)
        found += read(keys, keys.text("action", action), _EVENTS.get(section, ""))
        keys.ignore("severity", "tags", "message")
        keys.name_rest()
    spec.name_rest()
    groups: dict[str, list[_Entry]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(one)
    yield from _denied(shared, [group for group in groups.values() if group[0].action != "allow"], remarks)
    yield from _allowed(shared, [one for one in found if one.action == "allow"], remarks)


def _shared(kind: str, metadata: Keys, spec: Keys) -> _Shared:
    name = metadata.text("name", "unnamed")
    selector: dict[str, Any] = {}
    if kind == "KubeArmorPolicy":
        selector["namespaces"] = [metadata.text("namespace", "default")]
    unsure = tuple(_selector(spec.within("selector"), selector))
    severity = spec.text("severity", "1")
    level = int(severity) if severity.isascii() and severity.isdigit() and len(severity) < 3 else 5
    words = ("low", "low", "low", "low", "medium", "medium", "medium", "high", "high", "critical")
    tags = (_TECHNIQUE.match(one) for one in texts(spec.take("tags")))
    return _Shared(
        slug("kubearmor", name), spec.text("message") or f"KubeArmor: {name}", words[min(level, 9)],
        f"Imported from {kind} {name}.", tuple({one[1]: 0 for one in tags if one}), selector, unsure,
    )  # fmt: skip


def _selector(keys: Keys, selector: dict[str, Any]) -> Iterator[tuple[Node, str, str]]:
    """Reads the selection of pods. Yields the parts that cannot be kept."""
    labels = {}
    for node, where, key in keys.within("matchLabels").rest():
        if key == "kubearmor.io/container.name":
            selector["names"] = [one.strip() for one in text(node).strip("[]").split(",") if one.strip()]
        elif text(node):
            labels[key] = text(node)
        else:
            yield node, where, "a label needs a value"
    for node, where in keys.each("matchExpressions"):
        one = Keys(keys.remarks, node, where)
        key, operator, values = one.text("key"), one.text("operator"), texts(one.take("values"))
        place = {"In": "namespaces", "NotIn": "except"}.get(operator, "") if key == "namespace" else ""
        if place and place not in selector and values:
            selector[place] = values if place == "namespaces" else {"namespaces": values}
        elif key == "label" and operator == "In" and len(values) == 1 and "=" in values[0]:
            label, _, value = values[0].partition("=")
            labels[label] = value
        else:
            yield node, where, f"pods cannot be chosen by {key} {operator} {', '.join(values[:3])}"
    if labels:
        selector["labels"] = labels
    if {*selector} == {"except"}:
        selector["containers"] = "all"


def _files(keys: Keys, action: str, event: str) -> Iterator[_Entry]:
    """Reads the paths, directories and patterns of the sections process and file."""
    for key in ("matchPaths", "matchDirectories", "matchPatterns"):
        for node, where in keys.each(key):
            one = Keys(keys.remarks, node, where)
            path = one.text("path") or one.text("dir") or one.text("pattern")
            recursive, owner = one.text("recursive") == "true", one.text("ownerOnly") == "true"
            lost = ["the owner of the file (ownerOnly)"] if owner else []
            how = "is" if key == "matchPaths" else "below"
            if key == "matchPatterns":
                path, how = (path[:-2], "begins") if path.endswith("**") else (path, "is")
            found, why = translate_path(path, how)
            if not found:
                keys.remarks.dropped(node, where, why)
                continue
            if key == "matchDirectories" and not recursive:
                lost.append("without `recursive`, only the files in the directory itself")
            match: dict[str, Any] = {"path": found}
            if one.text("readOnly") == "true":
                match["access"] = ["write"]
            yield from _entry(one, node, event, match, action, lost)


def _network(keys: Keys, action: str, _event: str) -> Iterator[_Entry]:
    for node, where in keys.each("matchProtocols"):
        one = Keys(keys.remarks, node, where)
        protocol = one.text("protocol").lower()
        if protocol in _PROTOCOLS:
            yield from _entry(one, node, "socket", dict(_PROTOCOLS[protocol]), action, [])
        else:
            keys.remarks.dropped(node, where, f"the protocol {protocol!r}; known: {', '.join(_PROTOCOLS)}")


def _capabilities(keys: Keys, action: str, _event: str) -> Iterator[_Entry]:
    for node, where in keys.each("matchCapabilities"):
        one = Keys(keys.remarks, node, where)
        name = one.text("capability").lower().removeprefix("cap_")
        events = _CAPABILITIES.get(name, {})
        if not events or action == "Allow":
            known = ", ".join(_CAPABILITIES)
            keys.remarks.dropped(node, where, f"{action} of {name!r}: rules are about acts; known: {known}")
            continue
        for event, match in events.items():
            yield from _entry(one, node, event, dict(match), action, [])


def _syscalls(keys: Keys, action: str, _event: str) -> Iterator[_Entry]:
    for node, where in keys.each("matchSyscalls"):
        one = Keys(keys.remarks, node, where)
        for name in texts(one.take("syscall")):
            call = call_of(name)
            if call is None or action == "Allow":
                keys.remarks.dropped(node, where, f"{action} of the system call {name!r}")
            else:
                yield from _entry(one, node, call.event, dict(call.match), action, [])


def _entry(
    one: Keys, node: Node, event: str, match: dict[str, Any], action: str, lost: list[str]
) -> Iterator[_Entry]:
    """Adds the programs (fromSource) and the action of an entry, and names what is left of it."""
    action = one.text("action", action)
    sources = [Keys(one.remarks, *source) for source in one.each("fromSource")]
    paths = [source.text("path") or source.text("dir") for source in sources]
    if paths and programs(paths) and not any(source.rest() for source in sources):
        match["exe"] = paths
    if paths and action == "Allow":
        one.remarks.dropped(
            node, one.where, "Allow with fromSource, which is about what else the program does"
        )
        return
    if paths and "exe" not in match:
        lost.append("fromSource with more than whole paths of programs")
    one.ignore("severity", "tags", "message")
    lost += [f"{key!r}" for _, _, key in one.rest()]
    if action in _ACTIONS:
        yield _Entry(node, one.where, event, match, _ACTIONS[action], tuple(lost))
    else:
        one.remarks.dropped(node, one.where, f"the action {action!r}; known: {', '.join(_ACTIONS)}")


def _draft(shared: _Shared, entry: _Entry, action: str, remarks: Remarks) -> Draft:
    draft = Draft(
        shared.name, shared.title, shared.severity, entry.event, action, entry.node, entry.where,
        shared.description, selector=dict(shared.selector), attack=shared.attack,
    )  # fmt: skip
    for node, where, why in shared.unsure:
        draft.leave_out(remarks, node, where, why, narrowing=False)
    return draft


def _denied(shared: _Shared, groups: list[list[_Entry]], remarks: Remarks) -> Iterator[Draft]:
    for group in groups:
        draft = _draft(shared, group[0], group[0].action, remarks)
        paths = [word for one in group for word in one.match.get("path", ())]
        draft.require(group[0].match | ({"path": list(dict.fromkeys(paths))} if paths else {}))
        for one in group:
            for why in one.lost:
                draft.leave_out(remarks, one.node, one.where, why, narrowing=False)
        yield draft


def _allowed(shared: _Shared, entries: list[_Entry], remarks: Remarks) -> Iterator[Draft]:
    """Yields an alert on everything but what is allowed, for each kind of act."""
    for event in dict.fromkeys(one.event for one in entries):
        some = [one for one in entries if one.event == event]
        draft = _draft(shared, some[0], "alert", remarks)
        for one in some:
            if one.lost:
                remarks.wider(one.node, one.where, f"{'; '.join(one.lost)}: not excepted")
            else:
                only = {"access": {"not": ["write"]}} if "access" in one.match else {}
                draft.exceptions.append(one.match | only)
        what = "what happens to everything else is not in the policy; it is reported"
        remarks.wider(some[0].node, some[0].where, what)
        if event == "socket":
            draft.require({"family": _INTERNET})
        yield draft
