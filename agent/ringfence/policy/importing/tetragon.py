# SPDX-License-Identifier: Apache-2.0
"""Translates Tetragon's TracingPolicy and TracingPolicyNamespaced: one rule for each selector of a hook."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ringfence.policy.importing.draft import Draft, Keys, Remarks, slug, texts
from ringfence.policy.importing.words import argument, call_of, programs, translate_path, value_of
from ringfence.policy.operand import Kind
from ringfence.policy.reader import Node

__all__ = ["KINDS", "translate"]

KINDS = ("TracingPolicy", "TracingPolicyNamespaced")
_PREFIX = re.compile(r"(?:__(?:x64|arm64)_)?sys_(?:enter_|exit_)?")
#: fields of a system call's tracepoint before its arguments
_TRACEPOINT_FIELDS = 5
_STRENGTH = {"none": 0, "alert": 1, "deny": 2, "kill": 3}


class _Hook(NamedTuple):
    """Where a policy looks: the event, conditions that it implies, and operands by argument number."""

    event: str
    match: Mapping[str, Any]
    operands: Mapping[int, str]


_KERNEL = {
    "fd_install": _Hook("file.open", {}, {1: "path"}),
    "security_file_open": _Hook("file.open", {}, {0: "path"}),
    "security_file_permission": _Hook("file.open", {}, {0: "path", 1: "access"}),
    "security_bprm_check": _Hook("process.exec", {}, {0: "path"}),
    "security_bprm_creds_for_exec": _Hook("process.exec", {}, {0: "path"}),
    "tcp_connect": _Hook("network.connect", {"protocol": ["tcp"]}, {0: "address"}),
    "security_sb_mount": _Hook("mount", {}, {2: "fstype", 3: "flags"}),
    "security_bpf": _Hook("bpf", {}, {0: "cmd"}),
    "security_kernel_module_request": _Hook("module.request", {}, {0: "name"}),
    "do_init_module": _Hook("module_load", {}, {}),
}
#: names of LSM hooks that differ from their functions
_LSM = {"bprm_check_security": "security_bprm_check"}
_ACCESS = {"4": "read", "2": "write"}  # MAY_READ and MAY_WRITE of linux/fs.h
_NAMESPACES = {
    "Pid": "host-pid",
    "Net": "host-network",
    "Ipc": "host-ipc",
    "Uts": "host-uts",
    "Cgroup": "host-cgroup",
}
_HOW = {"Equal": "is", "Mask": "bits", "Prefix": "begins", "Postfix": "ends", "In": "is"}
_OPPOSITE = {"NotEqual": "Equal", "NotPrefix": "Prefix", "NotPostfix": "Postfix", "NotDAddr": "DAddr",
             "NotDPort": "DPort"}  # fmt: skip
_SOCKET = {"DAddr": "address", "DPort": "port"}


class _Policy(NamedTuple):
    """What all rules of an object share."""

    name: str
    description: str
    selector: dict[str, Any]
    observes: bool
    unsure: tuple[tuple[Node, str, str], ...]  # parts of the selection of pods that were not kept
    lists: Mapping[str, list[str]]


def translate(node: Node, remarks: Remarks) -> Iterator[Draft]:
    """Yields a rule for each selector of each hook."""
    top = Keys(remarks, node, "")
    kind = top.text("kind")
    metadata, spec = top.within("metadata"), top.within("spec")
    name, namespace = metadata.text("name", "unnamed"), metadata.text("namespace")
    if kind == "TracingPolicy":
        remarks.narrower(node, "", "processes of the host: Ringfence watches containers")
    policy = _shared(name, namespace, kind, spec)
    for key in ("kprobes", "tracepoints", "lsmhooks"):
        for hook, where in spec.each(key):
            yield from _hook(policy, key, Keys(remarks, hook, where), hook)
    spec.ignore("enforcers")  # the action NotifyEnforcer says what they do
    spec.name_rest()


def _shared(name: str, namespace: str, kind: str, spec: Keys) -> _Policy:
    selector: dict[str, Any] = {}
    if kind == "TracingPolicyNamespaced":
        selector["namespaces"] = [namespace or "default"]
    unsure = [*_labels(spec.within("podSelector"), selector), *_containers(spec, selector)]
    observes = False
    for node, where in spec.each("options"):
        option = Keys(spec.remarks, node, where)
        name_of, value = option.text("name"), option.text("value")
        observes = observes or (name_of, value) == ("policy-mode", "monitor")
        if name_of != "policy-mode":
            spec.remarks.dropped(node, where, f"Ringfence has no option {name_of!r}")
    lists = {}
    for node, where in spec.each("lists"):
        one = Keys(spec.remarks, node, where)
        lists[one.text("name")] = texts(one.take("values"))
    description = f"Imported from {kind} {name}."
    return _Policy(slug("tetragon", name), description, selector, observes, tuple(unsure), lists)


def _labels(keys: Keys, selector: dict[str, Any]) -> Iterator[tuple[Node, str, str]]:
    """Reads a selector of labels. Yields the parts that cannot be kept."""
    labels = dict(_pairs(keys.within("matchLabels")))
    for node, where in keys.each("matchExpressions"):
        one = Keys(keys.remarks, node, where)
        key, operator, values = one.text("key"), one.text("operator"), texts(one.take("values"))
        if operator == "Exists":
            labels[key] = "*"
        elif operator == "In" and len(values) == 1:
            labels[key] = values[0]
        else:
            yield node, where, f"labels cannot be chosen by {operator} {', '.join(values)}"
    if labels:
        selector["labels"] = labels


def _pairs(keys: Keys) -> Iterator[tuple[str, str]]:
    for node, _, key in keys.rest():
        yield key, next(iter(texts(node)), "")


def _containers(spec: Keys, selector: dict[str, Any]) -> Iterator[tuple[Node, str, str]]:
    keys = spec.within("containerSelector")
    for node, where in keys.each("matchExpressions"):
        one = Keys(spec.remarks, node, where)
        key, operator, values = one.text("key"), one.text("operator"), texts(one.take("values"))
        if (key, operator) == ("name", "In") and values and "names" not in selector:
            selector["names"] = values
        else:
            yield node, where, f"containers cannot be chosen by {key} {operator}"
    for node, where, key in keys.rest():
        yield node, where, f"containers cannot be chosen by {key}"


def _hook(policy: _Policy, kind: str, keys: Keys, node: Node) -> Iterator[Draft]:
    """Yields the rules of one hook: of several, if its call is a list."""
    at = keys.text("subsystem") if kind == "tracepoints" else kind
    keys.ignore("syscall", "return", "returnArg", "tags")
    call = keys.text("call") or keys.text("hook") or keys.text("event")
    calls = policy.lists.get(call.removeprefix("list:"), []) if call.startswith("list:") else [call]
    title, odd = keys.text("message"), _resolved(keys)
    selectors: list[tuple[Node | None, str]] = [*keys.each("selectors")]
    keys.name_rest()
    for one in calls or [call]:
        hook = _found(one, at)
        if hook is None:
            keys.remarks.dropped(node, keys.where, f"Ringfence has no event for {one!r}")
            continue
        before: list[Draft] = []
        for selector, where in selectors or [(None, keys.where)]:
            new = Draft(
                policy.name, title or f"{policy.name}: {one}", "medium", hook.event, "alert",
                selector or node, where, policy.description, selector=dict(policy.selector),
            )  # fmt: skip
            if _fill(new, policy, hook, Keys(keys.remarks, selector, where), odd):
                _after(new, before, keys.remarks)
                before.append(new)
        yield from (one for one in before if one.action != "none")


def _found(call: str, at: str) -> _Hook | None:
    """Returns the event of a call. `at`: kprobes, lsmhooks, or the subsystem of a tracepoint."""
    if at == "lsmhooks":
        return _KERNEL.get(_LSM.get(call, f"security_{call}"))
    if at == "kprobes" and call in _KERNEL:
        return _KERNEL[call]
    begin = _PREFIX.match(call)
    if begin is None or at not in ("kprobes", "syscalls"):
        return None
    name = call[begin.end() :]
    found = call_of(name)
    shift = _TRACEPOINT_FIELDS if at == "syscalls" else 0
    operands = {n + shift: one.operand for n in range(6) if (one := argument(name, index=n))}
    return _Hook(found.event, found.match, operands) if found else None


def _resolved(keys: Keys) -> set[int]:
    """Returns the arguments that are not what their number says: a part of a structure, other data."""
    found = set()
    for node, where in keys.each("args"):
        one = Keys(keys.remarks, node, where)
        if one.take("resolve") or one.take("source"):
            found.add(_number(one.text("index")))
    return found


def _number(word: str) -> int:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 4 else -1


def _fill(draft: Draft, policy: _Policy, hook: _Hook, keys: Keys, odd: set[int]) -> bool:
    """Reads a selector. Returns False if it can hold for no container."""
    remarks = keys.remarks
    draft.require(hook.match)
    draft.action = _action(keys)
    draft.severity = "high" if draft.action in ("kill", "deny") else "medium"
    for node, where, why in policy.unsure:
        draft.leave_out(remarks, node, where, why, narrowing=False)
    for node, where in keys.each("matchArgs"):
        _argument(draft, hook, Keys(remarks, node, where), node, odd)
    for node, where in keys.each("matchBinaries"):
        _binaries(draft, Keys(remarks, node, where), node)
    task: dict[str, list[str]] = {}
    for node, where in keys.each("matchNamespaces"):
        if not _namespace(draft, task, Keys(remarks, node, where), node):
            return False
    for node, where in keys.each("matchCapabilities"):
        _capability(draft, task, Keys(remarks, node, where), node)
    if task:
        draft.require({"task": task})
    for node, where, key in keys.rest():
        if key == "matchReturnActions":
            remarks.dropped(node, where, "Ringfence decides before the call returns")
        else:
            draft.leave_out(remarks, node, where, f"Ringfence has nothing like {key!r}")
    if policy.observes and draft.action != "none":
        draft.action = "alert"
    return True


def _action(keys: Keys) -> str:
    """Returns the strongest action of a selector; `none`: it only keeps later selectors from matching."""
    found = []
    for node, where in keys.each("matchActions"):
        one = Keys(keys.remarks, node, where)
        action, signal, error = one.text("action"), one.text("argSig"), one.take("argError")
        if action == "Sigkill" or (action in ("Signal", "NotifyEnforcer") and signal == "9"):
            found.append("kill")
        elif action == "Override" or (action == "NotifyEnforcer" and error is not None):
            found.append("deny")
        elif action == "NoPost":
            found.append("none")
        else:
            found.append("alert")
            if action != "Post":
                keys.remarks.dropped(node, where, f"Ringfence has no action {action!r}; it alerts")
        one.name_rest()
    return max(found, key=lambda word: _STRENGTH[word], default="alert")


def _after(draft: Draft, before: list[Draft], remarks: Remarks) -> None:
    """Only the first selector that matches counts in Tetragon; here the strongest rule does."""
    for one in before:
        weaker = _STRENGTH[one.action] < _STRENGTH[draft.action]
        if weaker and not _apart(one.match, draft.match):
            why = f"{one.where} comes first and does less; here the strongest rule counts"
            draft.leave_out(remarks, draft.node, draft.where, why, narrowing=False)
            return


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns True if two rules name different single things, so no call can match both."""
    both = [(one[key], other[key]) for key in one if key in other]
    plain = [(a, b) for a, b in both if isinstance(a, list) and isinstance(b, list)]
    return any(not {*a} & {*b} and not any("*" in str(word) for word in (*a, *b)) for a, b in plain)


def _argument(draft: Draft, hook: _Hook, keys: Keys, node: Node, odd: set[int]) -> None:
    number = _number(next(iter(texts(keys.take("args"))), keys.text("index")))
    operator, values = keys.text("operator"), texts(keys.take("values"))
    operand = hook.operands.get(number, "") if number not in odd else ""
    plain = _OPPOSITE.get(operator, operator)
    found = _condition(draft, operand, plain, values)
    if found is None:
        why = f"argument {number} {operator} {', '.join(values[:3])} has no counterpart"
        draft.leave_out(keys.remarks, node, keys.where, why, narrowing=plain == operator)
    elif plain != operator:
        draft.exceptions.append(found)
    elif not draft.require(found):
        draft.leave_out(keys.remarks, node, keys.where, "a second condition of the same kind")


def _condition(draft: Draft, operand: str, operator: str, values: list[str]) -> dict[str, Any] | None:
    """Returns a condition as a policy has it; None if it cannot be kept exactly."""
    how = _HOW.get(operator, "")
    if operand == "path" and how:
        found = [translate_path(one, how)[0] for one in values]
        return {"path": [word for one in found for word in one]} if found and all(found) else None
    if (
        operand == "access"
        and operator in ("Equal", "Mask")
        and values
        and all(one in _ACCESS for one in values)
    ):
        return {"access": [_ACCESS[one] for one in values]}
    if operand == "address" and operator in _SOCKET and values:
        return {_SOCKET[operator]: values}
    known = draft.operand(operand) if operand not in ("", "path", "access", "address") else None
    if known is None or (known.kind is Kind.FLAGS and how == "is"):
        return None
    value = value_of(known, values, how)
    return {operand: value} if value else None


def _binaries(draft: Draft, keys: Keys, node: Node) -> None:
    operator, values = keys.text("operator"), texts(keys.take("values"))
    follows = keys.text("followChildren") == "true"
    kept = operator in ("In", "NotIn") and programs(values) and not follows
    if not kept or not draft.require({"exe": values if operator == "In" else {"not": values}}):
        why = f"programs cannot be chosen by {operator}{' with their children' if follows else ''}"
        draft.leave_out(keys.remarks, node, keys.where, why, narrowing=not operator.startswith("Not"))


def _namespace(draft: Draft, task: dict[str, list[str]], keys: Keys, node: Node) -> bool:
    """Adds the namespaces of the task. Returns False if only the host can match."""
    kind, operator, values = keys.text("namespace"), keys.text("operator"), texts(keys.take("values"))
    if values == ["host_ns"] and operator in ("In", "NotIn"):
        if kind == "Mnt" and operator == "NotIn":
            return True
        if kind == "Mnt":
            keys.remarks.dropped(node, keys.where, "this is about the host: Ringfence watches containers")
            return False
        inside = operator == "In"
        if kind == "User":
            task.setdefault("none" if inside else "all", []).append("in-user-namespace")
            return True
        if kind in _NAMESPACES:
            task.setdefault("all" if inside else "none", []).append(_NAMESPACES[kind])
            return True
    draft.leave_out(keys.remarks, node, keys.where, f"namespaces: {kind} {operator} {', '.join(values)}")
    return True


def _capability(draft: Draft, task: dict[str, list[str]], keys: Keys, node: Node) -> None:
    kind, operator, values = keys.text("type"), keys.text("operator"), texts(keys.take("values"))
    if kind == "Effective" and operator in ("In", "NotIn") and values == ["CAP_SYS_ADMIN"]:
        task.setdefault("all" if operator == "In" else "none", []).append("cap-sys-admin")
        return
    why = f"capabilities: {kind} {operator} {', '.join(values[:3])}; only CAP_SYS_ADMIN is known"
    draft.leave_out(keys.remarks, node, keys.where, why)
