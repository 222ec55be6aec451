# SPDX-License-Identifier: Apache-2.0
"""Translates Falco's rules: one rule for each system call of each alternative of a condition.

Falco reports, so everything here alerts. A check that cannot be kept is left out, and the rule matches more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ringfence.policy.importing.condition import Check, Except, Expression, Unreadable, alternatives, parse
from ringfence.policy.importing.draft import Draft, Keys, Remarks, one_line, slug, text, texts
from ringfence.policy.importing.words import Call, argument, call_of, programs, translate_path, value_of
from ringfence.policy.operand import Kind
from ringfence.policy.reader import Node, SequenceNode

__all__ = ["Rules"]

_SEVERITIES = {
    "emergency": "critical",
    "alert": "critical",
    "critical": "critical",
    "error": "high",
    "warning": "medium",
    "notice": "low",
    "informational": "info",
    "info": "info",
    "debug": "info",
}
#: macros that most rules use; a file that defines one replaces it
_MACROS = {
    "container": "container.id != host",
    "spawned_process": "evt.type in (execve, execveat)",
    "open_write": "evt.type in (open, openat, openat2) and evt.is_open_write = true",
    "open_read": "evt.type in (open, openat, openat2) and evt.is_open_read = true",
    "outbound": "evt.type in (connect, sendto, sendmsg)",
}
_EQUAL = ("=", "==", "in")
_HOW = {"=": "is", "==": "is", "in": "is", "startswith": "begins", "pmatch": "below", "endswith": "ends"}
#: fields that choose containers -> keys of a selector, with a form for each value
_TRAITS: Mapping[str, tuple[str, Sequence[str]]] = {
    "container.name": ("names", ("{}",)),
    "container.image": ("images", ("{}",)),
    "container.image.repository": ("images", ("{}", "{}:*", "{}@*")),
    "k8s.ns.name": ("namespaces", ("{}",)),
    "k8s.pod.name": ("pods", ("{}",)),
}
_GLOBS = {
    "=": "{}",
    "==": "{}",
    "in": "{}",
    "startswith": "{}*",
    "endswith": "*{}",
    "contains": "*{}*",
    "glob": "{}",
}
_ADDRESSES = {"fd.sip": "address", "fd.rip": "address", "fd.snet": "address", "fd.rnet": "address"}
_NUMBERS = {"fd.sport": "port", "fd.rport": "port", "fd.l4proto": "protocol"}
_ACCESS = {"evt.is_open_write": "write", "evt.is_open_read": "read"}
#: directories that are links in today's images; Falco has the name that the program gave
_MERGED = re.compile(r"/(bin|sbin|lib|lib32|lib64)(/|$)")
#: programs that are mostly links: the kernel runs, and a rule names, the file behind them
_LINKS = {
    "sh": ("bash", "dash", "busybox"),
    "ash": ("dash", "busybox"),
    "nc": ("nc.openbsd", "nc.traditional", "ncat", "busybox"),
    "netcat": ("nc.openbsd", "nc.traditional", "ncat"),
    "wget": ("busybox",),
    "vi": ("vim.basic", "vim.tiny", "busybox"),
    "awk": ("mawk", "gawk", "original-awk", "busybox"),
}
_TECHNIQUE = re.compile(r"T[0-9]{4}(\.[0-9]{3})?")
MAX_VALUES = 1024
MAX_NESTED = 32
_IGNORED = ("output", "warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration")


@dataclass
class _Source:
    """One rule of a file, after what later items appended to it."""

    name: str
    keys: Keys
    node: Node
    conditions: list[str] = field(default_factory=list)
    disabled: bool = False

    @property
    def where(self) -> str:
        return f"{self.keys.where} ({one_line(self.name, 60)})"


class _Place(NamedTuple):
    """Where remarks on a rule belong."""

    remarks: Remarks
    node: Node
    where: str


class Rules:
    """All Falco files of one import: later items replace, or add to, earlier ones."""

    def __init__(self) -> None:
        self._lists: dict[str, list[str]] = {}
        self._macros: dict[str, str] = dict(_MACROS)
        self._parsed: dict[str, Expression] = {}
        self._rules: dict[str, _Source] = {}

    def read(self, document: SequenceNode, remarks: Remarks) -> None:
        """Reads the items of one document."""
        for index, node in enumerate(document.items):
            keys = Keys(remarks, node, f"[{index}]")
            if name := keys.text("list"):
                added = texts(keys.take("items"))
                self._lists[name] = [*self._lists.get(name, ()), *added] if _appends(keys, "items") else added
            elif name := keys.text("macro"):
                condition = keys.text("condition")
                if _appends(keys, "condition") and name in self._macros:
                    condition = f"({self._macros[name]}) {condition}"
                self._macros[name] = condition
            elif name := keys.text("rule"):
                self._rule(name, keys, node)
            elif not keys.take("required_engine_version") and not keys.take("required_plugin_versions"):
                remarks.dropped(node, keys.where, "this is neither a rule, a macro nor a list")

    def _rule(self, name: str, keys: Keys, node: Node) -> None:
        known = self._rules.get(name)
        enabled, condition = keys.take("enabled"), keys.text("condition")
        if _appends(keys, "condition") and known:
            known.conditions.append(condition)
            keys.name_rest()
        elif known and enabled is not None and not condition:  # it only turns the rule on or off
            known.disabled = text(enabled) == "false"
        else:
            self._rules[name] = _Source(name, keys, node, [condition], text(enabled) == "false")

    def translate(self) -> Iterator[tuple[Remarks, Draft]]:
        """Yields the rules of all files, with the file that each is from."""
        for one in self._rules.values():
            place = _Place(one.keys.remarks, one.node, one.where)
            source = one.keys.text("source", "syscall")
            if one.disabled or source != "syscall":
                why = "the rule is disabled" if one.disabled else f"rules of the source {source!r}"
                place.remarks.dropped(one.node, one.where, why)
                continue
            for draft in self._drafts(one, place):
                yield place.remarks, draft

    def _drafts(self, one: _Source, place: _Place) -> list[Draft]:
        keys = one.keys
        severity = _SEVERITIES.get(keys.text("priority").lower(), "medium")
        attack = tuple(word for word in texts(keys.take("tags")) if _TECHNIQUE.fullmatch(word))
        description = keys.text("desc")
        keys.ignore(*_IGNORED)
        others = keys.rest()
        first, *more = one.conditions
        try:
            terms = alternatives(parse(" ".join((f"({first})", *more)) if more else first), self._macro)
            found = []
            for some, call, name in self._parts(terms, place):
                draft = Draft(
                    slug("falco", one.name), f"Falco: {one.name}", severity, call.event, "alert", place.node,
                    place.where, description, {key: [word] for key, word in call.match.items()},
                    attack=attack,
                )  # fmt: skip
                for node, where, key in others:
                    draft.leave_out(place.remarks, node, where, f"the key {key!r}", narrowing=False)
                if _Alternative(self, draft, name, place).fill(some) and draft not in found:
                    found.append(draft)
        except Unreadable as error:
            place.remarks.dropped(place.node, f"{place.where}.condition", str(error))
            return []
        return found

    def _parts(
        self, found: Iterable[Sequence[Check | Except]], place: _Place
    ) -> Iterator[tuple[Sequence[Check | Except], Call, str]]:
        """Yields each alternative with each event of it, and the first system call of that event."""
        for terms in found:
            flat = self._flat(terms)
            for call, name in self._calls(flat, place):
                yield flat, call, name

    def _macro(self, name: str) -> Expression | None:
        """Returns the condition of a macro, which is parsed once."""
        if name in self._macros and name not in self._parsed:
            try:
                self._parsed[name] = parse(self._macros[name])
            except Unreadable as error:
                raise Unreadable(f"the macro {name!r}: {error}") from None
        return self._parsed.get(name)

    def _flat(self, terms: Sequence[Check | Except]) -> list[Check | Except]:
        """Returns the terms without double negation: `not container` is `container.id = host`."""
        found: list[Check | Except] = []
        for term in terms:
            inner = self.within(term) if isinstance(term, Except) else []
            if len(inner) == 1 and len(inner[0]) == 1 and isinstance(inner[0][0], Except):
                again = self.within(inner[0][0])
                found += again[0] if len(again) == 1 else [term]
            else:
                found.append(term)
        return found

    def within(self, term: Except) -> list[list[Check | Except]]:
        """Returns the alternatives of what is negated; each is an exception."""
        return alternatives(term.part, self._macro)

    def values(self, check: Check) -> list[str]:
        """Returns the values of a check, with those of the lists that it names."""
        found: list[str] = []
        self._expand(check.values, found, ())
        return found

    def _expand(self, values: Iterable[str], found: list[str], within: tuple[str, ...]) -> None:
        for one in values:
            if one in within or len(within) > MAX_NESTED:
                raise Unreadable(f"the list {one!r} contains itself")
            if len(found) > MAX_VALUES:
                raise Unreadable(f"a list has more than {MAX_VALUES} values")
            if one in self._lists:
                self._expand(self._lists[one], found, (*within, one))
            else:
                found.append(one)

    def _calls(self, terms: Iterable[Check | Except], place: _Place) -> Iterator[tuple[Call, str]]:
        """Yields the events of an alternative, each once, with the first system call of it."""
        types = [set(self.values(one)) for one in terms if isinstance(one, Check) and _names_events(one)]
        if not types:
            place.remarks.dropped(place.node, place.where, "an alternative names no system call (evt.type)")
            return
        others = [one.part for one in terms if isinstance(one, Except) and isinstance(one.part, Check)]
        excluded = {name for one in others if _names_events(one) for name in self.values(one)}
        seen: set[str] = set()
        for name in sorted(set.intersection(*types) - excluded):
            call = call_of(name)
            if call is None:
                place.remarks.dropped(place.node, place.where, f"Ringfence has no event for {name!r}")
            elif str(call) not in seen:
                seen.add(str(call))
                yield call, name


def _appends(keys: Keys, what: str) -> bool:
    """Returns True if an item adds to the earlier one of its name. It may say so in two ways."""
    override = keys.within("override")
    return (keys.text("append") == "true") | (override.text(what) == "append")


def _names_events(check: Check) -> bool:
    return check.field == "evt.type" and check.operator in _EQUAL


class _Alternative:
    """Fills one rule from the terms of one alternative."""

    def __init__(self, rules: Rules, draft: Draft, call: str, place: _Place) -> None:
        self.rules, self.draft, self.call, self.place = rules, draft, call, place

    def fill(self, terms: Sequence[Check | Except]) -> bool:
        """Adds all terms. Returns False if the alternative is about the host, or about other calls."""
        remarks, node, where = self.place
        if any(
            isinstance(one, Check) and one.field == "container.id" and "host" in one.values for one in terms
        ):
            remarks.dropped(node, where, "it is about the host: Ringfence watches containers")
            return False
        for term in terms:
            if isinstance(term, Except):
                self._exception(term)
            elif not _names_events(term) and term.field != "evt.dir":
                self._check(term)
        inside = self.draft.selector or any(isinstance(t, Except) and _of_host(t, self.rules) for t in terms)
        if not inside:
            remarks.narrower(node, where, "processes of the host: Ringfence watches containers")
        return True

    def _check(self, check: Check) -> None:
        """Adds a check that must hold, or leaves it out."""
        traits = self._traits(check)
        if traits and not {*traits} & {*self.draft.selector}:
            self.draft.selector |= traits
            return
        found, why = self._operands(check)
        if why or not found:
            self._leave_out(f"`{check}`" + (f": {why}" if why else " is left out"))
        if found and not self.draft.require(found):
            self._leave_out(
                f"`{check}`: a second condition on the same thing, or on one that this event has not"
            )

    def _leave_out(self, why: str, *, narrowing: bool = True) -> None:
        remarks, node, where = self.place
        self.draft.leave_out(remarks, node, where, one_line(why, 200), narrowing=narrowing)

    def _exception(self, term: Except) -> None:
        """Adds what is negated as exceptions; what cannot be kept exactly is no exception."""
        if _of_host(term, self.rules) or (isinstance(term.part, Check) and _names_events(term.part)):
            return
        for terms in self.rules.within(term):
            block: dict[str, Any] = {}
            if not all(isinstance(one, Check) and self._except(one, block) for one in terms):
                shown = " and ".join(str(one) if isinstance(one, Check) else "not ..." for one in terms)
                self._leave_out(f"the exception `{shown}` is left out", narrowing=False)
            elif block not in self.draft.exceptions:
                self.draft.exceptions.append(block)

    def _except(self, check: Check, block: dict[str, Any]) -> bool:
        """Adds one check to an exception. Returns False if it cannot be kept exactly."""
        if check.field == "proc.name" or _names_events(check):
            return False  # any program can take a name
        if traits := self._traits(check):
            known = block.setdefault("for", {})
            known |= {key: value for key, value in traits.items() if key not in known}
            return all(known[key] == value for key, value in traits.items())
        found, why = self._operands(check)
        if not found or why or any(not self.draft.operand(key) or key in block for key in found):
            return False
        block |= found
        return True

    def _traits(self, check: Check) -> dict[str, Any]:
        """Returns a check on the container as a selector has it; {} if it is none."""
        form, values = _GLOBS.get(check.operator), self.rules.values(check)
        if check.field == "container.privileged" and check.operator in _EQUAL and values:
            return {"privileged": values == ["true"]}
        label = re.fullmatch(r"k8s\.pod\.label(?:\.|\[)([^\]]+)\]?", check.field)
        if label and form and len(values) == 1:
            return {"labels": {label[1]: form.format(values[0])}}
        key, shapes = _TRAITS.get(check.field, ("", ()))
        if not key or not form or not values:
            return {}
        return {key: [shape.format(form.format(one)) for one in values for shape in shapes]}

    def _operands(self, check: Check) -> tuple[dict[str, Any], str]:
        """Returns a check as conditions of the event, and why they match more than it (\"\": they do not)."""
        values, equal = self.rules.values(check), check.operator in _EQUAL
        name = check.field
        if name in ("fd.name", "evt.arg.filename", "evt.arg.pathname", "fs.path.name") and values:
            return self._paths(values, _HOW.get(check.operator, ""))
        if name == "fd.directory" and equal:
            found, _ = self._paths(values, "below")
            return found, "files of directories below it match, too"
        if name == "fd.filename" and equal:
            return {"name": values}, ""
        if name == "proc.name" and equal and self.draft.event == "process.exec":
            return _names(values)
        if name == "proc.exepath" and equal and programs(values):
            return ({"path": values} if self.draft.event == "process.exec" else {"exe": values}), ""
        if name in _ACCESS and equal and values == ["true"]:
            return {"access": [_ACCESS[name]]}, ""
        if equal and (key := _ADDRESSES.get(name) or _NUMBERS.get(name)):
            return {key: values}, ""
        return self._argument(check, values), ""

    def _paths(self, values: Iterable[str], how: str) -> tuple[dict[str, Any], str]:
        found: list[str] = []
        for one in values:
            paths = [one, f"/usr{one}"] if _MERGED.match(one) else [one]
            for path in paths:
                words, why = (
                    translate_path(path, how) if how else ([], "only whole paths and their beginnings")
                )
                if not words:
                    return {}, why
                found += words
        return ({"path": found}, "") if found else ({}, "")

    def _argument(self, check: Check, values: list[str]) -> dict[str, Any]:
        """Returns a check on an argument of the call: evt.arg.flags contains CLONE_NEWUSER."""
        known = argument(self.call, name=check.field.removeprefix("evt.arg."))
        operand = self.draft.operand(known.operand) if known and check.field.startswith("evt.arg.") else None
        if operand is None or check.operator not in (*_EQUAL, "contains", "icontains", "intersects"):
            return {}
        how = "bits" if operand.kind is Kind.FLAGS else "is"
        if how == "bits":
            values = [] if check.operator in _EQUAL else [one.upper() for one in values]
        elif check.operator not in _EQUAL:
            values = [word for word in operand.words if any(one.upper() in word for one in values)]
        value = value_of(operand, values, how)
        return {operand.name: value} if value else {}


def _of_host(term: Except, rules: Rules) -> bool:
    """Returns True for `container.id != host`, which holds for every process that Ringfence watches."""
    return rules.within(term) == [[Check("container.id", "=", ("host",))]]


def _names(values: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Returns the names of programs, with the files that are behind common links."""
    more = [file for one in values for file in _LINKS.get(one, ()) if file not in values]
    shown = ", ".join(one for one in values if one in _LINKS)
    why = f"{shown} may be links, so the rule names {', '.join(dict.fromkeys(more))}, too" if more else ""
    return {"name": list(dict.fromkeys([*values, *more]))}, why
