# SPDX-License-Identifier: Apache-2.0
"""How to allow a call: the location of the rule, and an exception for it, ready to paste.

The exception is narrow: this program, this object. Where it cannot be, none is proposed. It omits observed
text that cannot be written safely or is unsuitable for an exception because it can change after it was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from ringfence.abi import MATCH_TEXT, EventKind
from ringfence.containers.model import Container
from ringfence.events import Event
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.operand import Kind
from ringfence.policy.vocabulary import EVENTS, OF_THE_HOST

__all__ = ["allow_text", "exception_keys"]

#: what no reader of YAML takes for anything but a text
_BARE = re.compile(r"(?!(null|true|false|yes|no|on|off|y|n)$)[A-Za-z/][\w./-]*", re.ASCII | re.IGNORECASE)
_EXACT = (Kind.CHOICE, Kind.SOCKET, Kind.NETWORK, Kind.DEVICE, Kind.TEXT)


def _plain(value: Any) -> str | None:
    """Returns the value as one word of a policy; None if it would match more, or is unsafe for a terminal."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    # A name with invalid UTF-8 has lone surrogates: not printable, and no encoding has them.
    if not isinstance(value, str) or not value.isprintable() or "*" in value:
        return None
    return value if 0 < len(value.encode()) < MATCH_TEXT else None


def exception_keys(
    event: Event, details: Mapping[str, Any], exe: bytes, events: Collection[EventKind] = ()
) -> dict[str, str]:
    """Returns operands and values of the narrowest exception for this event, in a rule on `events`: it can
    name only what all of them have.
    """
    words = EVENTS.get(event.kind)
    found: dict[str, str] = {}
    if words is None:
        return found
    # A program without a file (memfd) has the path `/`, which names no program.
    if exe.startswith(b"/") and not exe.endswith(b"/") and words.operand("exe") and (path := _plain(exe)):
        found["exe"] = path
    for operand in words.operands:
        value = _plain(details.get(operand.name))
        if operand.kind is Kind.OBJECT:
            path, kind = _plain(details.get("path")), _plain(details.get("filesystem"))
            inside = (path or "").lstrip("/")  # empty: an object without a name, such as a memfd
            if inside and kind and not kind.startswith("0x"):
                found[operand.name] = f"{kind}:{inside}"
        elif operand.kind is Kind.DEVICE and (value or "?").startswith("?"):
            continue  # neither a character nor a block device: no policy can name it
        elif operand.kind in _EXACT and value and (not operand.words or value in operand.words):
            found[operand.name] = value
    if "path" in found:  # it includes the filesystem
        for name in ("filesystem", "type", "mount"):
            found.pop(name, None)
    if found.get("mount") == "none":
        del found["mount"]  # of an object on no mount, the kernel compares how it was reached (`process`)
    common = [EVENTS[kind] for kind in events if kind in EVENTS]
    return {name: value for name, value in found.items() if all(one.operand(name) for one in common)}


def _yaml(value: Any) -> str:
    """Returns a value on one line. JSON is valid YAML, and its contents cannot start another key."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(one)}' for key, one in value.items())}}}"
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _scope(container: Container) -> dict[str, str]:
    """Returns which containers an exception is for: by the workload of the pod, the pod, or the name."""
    facts = {
        "namespaces": container.namespace,
        "workloads": container.owner,
        "pods": None if container.owner else container.pod,
        "names": None if container.namespace else container.name,
    }
    return {
        key: word for key, value in facts.items() if (word := _plain(value)) and not set("?[") & set(word)
    }


def allow_text(
    event: Event,
    rule: CompiledRule | None,
    details: Mapping[str, Any],
    exe: bytes,
    container: Container | None,
) -> str:
    """Returns how to allow the call, in a few printable lines."""
    if rule is None:
        return "its rule is no longer loaded"
    if event.event == EventKind.AGENT_TAMPER:
        return "no policy can allow it; `self_defence: alert` in the agent's configuration only reports it"
    place = f"{rule.file.rpartition('/')[2]}:{rule.line}"  # the alert's rule has the whole path
    keys: dict[str, Any] = dict(exception_keys(event, details, exe, rule.written))
    words = EVENTS.get(event.kind)
    # Without the program, it would open the rule to everything in the container.
    if keys and words and ("exe" in keys or not words.operand("exe")):
        if container is not None and event.kind not in OF_THE_HOST and (scope := _scope(container)):
            keys = {"for": scope, **keys}
        lines = [f"{name}: {_yaml(value)}" for name, value in keys.items()]
        snippet = "\n".join(f"    {'- ' if not n else '  '}{line}" for n, line in enumerate(lines))
        return f"add to rule {rule.rule_id}:\n  exceptions:\n{snippet}"
    return f"no exception to rule {rule.rule_id} ({place}) is proposed: {_reason(event, exe)}"


def _reason(event: Event, exe: bytes) -> str:
    """Returns why there is no narrow exception for an event."""
    if event.kind not in EVENTS:
        return "nothing in this event distinguishes the call from others"
    if not exe:
        return "the program is not known, and without it any program of the container could do this"
    if exe == b"/":
        return "the program ran from memory and has no path, so that any such program could do this"
    return "the path of the program cannot be written in a policy"
