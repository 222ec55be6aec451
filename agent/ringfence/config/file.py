# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration's YAML file: keys with their locations; knows nothing of their meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import yaml

from ringfence.errors import Problem

__all__ = ["MAX_BYTES", "read"]

MAX_BYTES = 1 << 20
_MAX_NODES = 10_000  # aliases let a small file expand to a huge value
_MAX_DEPTH = 8
Take = Callable[[str, Any], str | None]


def read(file: str, text: bytes, take: Take, sections: Collection[str]) -> list[Problem]:
    """Passes every key of the file to `take`, which returns an error message or None.

    `sections` names the keys that hold further keys; a key in one is passed as `section.key`. Returns all
    problems, each with its location.
    """
    if len(text) > MAX_BYTES:
        return [Problem(file, 0, 0, "", f"larger than {MAX_BYTES} bytes: not a configuration file")]
    try:
        root = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return [Problem(file, line, column, "", f"not YAML: {error.problem or error.context}")]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return [Problem(file, 0, 0, "", f"not YAML: {' '.join(str(error).split())}")]
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        return [_problem(file, root, "", "must be a mapping of keys to values")]
    return _section(file, root, "", take, sections)


def _section(
    file: str, node: yaml.MappingNode, above: str, take: Take, sections: Collection[str]
) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for name_node, value_node in node.value:
        if not isinstance(name_node, yaml.ScalarNode):
            problems.append(_problem(file, name_node, above, "a key must be a single word"))
            continue
        path = f"{above}.{name_node.value}" if above else name_node.value
        if path in seen:
            problems.append(_problem(file, name_node, path, f"already set in line {seen[path]}"))
            continue
        seen[path] = name_node.start_mark.line + 1
        if path in sections and isinstance(value_node, yaml.MappingNode):
            problems += _section(file, value_node, path, take, sections)
            continue
        error = (
            "must be a mapping of keys to values" if path in sections else _take_node(path, value_node, take)
        )
        if error:
            at = name_node if error.startswith("unknown key") else value_node
            problems.append(_problem(file, at, path, error))
    return problems


def _take_node(path: str, node: yaml.Node, take: Take) -> str | None:
    try:
        value = _plain(node, _MAX_DEPTH, [_MAX_NODES])
    except ValueError as error:
        return str(error)
    return take(path, value)


def _plain(node: yaml.Node, depth: int, left: list[int]) -> Any:
    """Returns strings, lists and mappings of strings. `off` stays a string: YAML 1.1 would read false."""
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        raise ValueError("nested too deeply, or too long")
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, depth - 1, left) for item in node.value]
    return {str(_plain(name, depth - 1, left)): _plain(value, depth - 1, left) for name, value in node.value}


def _problem(file: str, node: yaml.Node, where: str, message: str) -> Problem:
    return Problem(file, node.start_mark.line + 1, node.start_mark.column + 1, where, message)
